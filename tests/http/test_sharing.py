"""Which header lines let calls share a batch, and which deadlines are heeded."""

from operator import itemgetter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from abproxy.http.messages import HeaderList
from abproxy.http.sharing import (
    BUILT_IN,
    Kind,
    LineRules,
    kind_of,
    may_be_ignored,
    read_timeout_s,
)

NAMES = {
    Kind.IGNORED: """
        traceparent tracestate baggage b3 x-b3-traceid sentry-trace uber-trace-id
        uberctx-user x-datadog-trace-id x-amzn-trace-id x-amzn-requestid
        x-cloud-trace-context grpc-trace-bin x-trace-id x-span-id trace-id
        elastic-apm-traceparent x-instana-t newrelic sw8 request-context langsmith-trace
        x-request-id request-id x-correlation-id correlation-id x-ms-client-request-id
        x-client-request-id x-github-request-id x-acme-request-id fly-request-id
        x-request-guid x-litellm-call-id amz-sdk-invocation-id amz-sdk-request
        idempotency-key x-idempotency-key x-stainless-retry-count
        via forwarded x-forwarded-for x-forwarded-proto x-forwarded-port
        x-forwarded-server x-real-ip x-client-ip true-client-ip fastly-client-ip
        x-cluster-client-ip x-azure-clientip cdn-loop x-amz-cf-id x-request-start
        x-envoy-attempt-count x-envoy-external-address x-vercel-id
        cf-connecting-ip cf-ray cf-ipcountry cf-visitor cf-worker
        sec-fetch-mode sec-fetch-site sec-ch-ua sec-ch-ua-platform dnt
        user-agent x-user-agent openai-client-user-agent x-client-name
        x-client-version x-sdk-version x-goog-api-client x-client-info
        accept-encoding cache-control content-type date pragma priority referer
        x-priority request-timeout-ms request-deadline-ms grpc-timeout
        x-request-timeout x-request-timeout-ms x-envoy-expected-rq-timeout-ms
        x-envoy-upstream-rq-per-try-timeout-ms x-stainless-read-timeout
        sw3 sw8-correlation x-tt-logid x-arr-log-id x-jaeger-debug-id grpc-tags-bin
        singularityheader x-amz-id-2 rndr-id x-retry-count retry-attempt
        idempotent-id x-vercel-proxied-for x-ruxit-forwarded-for x-originating-ip
        x-original-forwarded-for x-nf-client-connection-ip x-appengine-user-ip
        """,
    Kind.CREDENTIAL: """
        authorization proxy-authorization api-key x-api-key cookie x-goog-api-key
        ocp-apim-subscription-key x-functions-key x-amz-security-token x-auth-token
        x-acme-token x-vault-token private-token cf-aig-authorization helicone-auth
        x-forwarded-user x-forwarded-email x-forwarded-groups
        x-forwarded-access-token x-forwarded-client-cert
        x-forwarded-preferred-username x-forwarded-tls-client-cert
        cf-access-jwt-assertion cf-access-authenticated-user-email
        cf-access-client-id cf-access-client-secret
        x-auth-request-user x-auth-request-email remote-user x-remote-user
        x-remote-group x-amzn-oidc-data x-goog-iap-jwt-assertion
        x-goog-authenticated-user-id x-ms-client-principal x-authentik-uid
        x-appengine-user-email x-consumer-username x-credential-identifier x-wsse
        x-portkey-virtual-key x-langfuse-public-key
        tailscale-user-login ssl-client-cert client-cert x-openwebui-user-jwt
        """,
    Kind.APART: """
        x-forwarded-host x-forwarded-prefix x-forwarded-anything accept-language from
        x-tenant sec-tenant x-new origin content-encoding x-b3 openai-organization
        openai-project openai-beta x-api-version anthropic-version x-user-id
        x-openwebui-user-id x-openwebui-user-name x-session-id range
        cf-aig-cache-key x-routing-key x-model x-design x-app-name x-client-id
        """,
    Kind.ALONE: """
        digest content-digest repr-digest content-md5 signature signature-input
        x-hub-signature x-hub-signature-256 x-amz-content-sha256 x-ms-content-sha256
        x-amz-checksum-crc32c x-goog-hash stripe-signature x-signature-ed25519
        paypal-transmission-sig x-md5 x-sha256 x-oss-content-sha256
        x-shopify-hmac-sha256 x-body-sha256 x-content-hash x-checksum want-digest dpop
        """,
}


@pytest.mark.parametrize(
    ("name", "kind"), [(name, kind) for kind in NAMES for name in NAMES[kind].split()]
)
def test_each_line_is_of_one_kind(name: str, kind: Kind) -> None:
    """As its name tells; one of which nothing is known keeps apart."""
    assert kind_of(name) is kind


@pytest.mark.parametrize("name", ["x-" + "a-" * 50 + "request-id", "-" * 16_000])
def test_a_name_too_long_is_not_known(name: str) -> None:
    """To look for words in it would take milliseconds."""
    assert kind_of(name) is Kind.APART


@pytest.mark.parametrize(
    "value",
    [
        b"AWS4-HMAC-SHA256 Credential=a, SignedHeaders=host, Signature=b",
        b"aws4-hmac-sha256 x",
        b"HMAC-SHA256 SignedHeaders=host&Signature=b",
        b'Signature keyId="a",signature="b"',
        b'Hawk id="a", mac="b"',
        b"SharedKey account:mac",
        b'Digest username="a", nonce="b"',
        b"TC3-HMAC-SHA256 Credential=a",
    ],
)
def test_a_signed_request_goes_alone(value: bytes) -> None:
    """The signature is of its body and no other."""
    assert BUILT_IN.sort(((b"Authorization", value),)).alone_by == "authorization"


@pytest.mark.parametrize("value", [b"Bearer digest x", b"Basic x", b"hmac", b"tok"])
def test_a_key_does_not_send_a_call_alone(value: bytes) -> None:
    """Calls with the same key share."""
    assert BUILT_IN.sort(((b"Authorization", value),)).alone_by is None


@pytest.mark.parametrize(
    "value", [b"*/*", b"application/json", b"text/html, */*;q=0.1", b"", b"a/b+json"]
)
def test_who_takes_json_may_share(value: bytes) -> None:
    """Answers are JSON."""
    lines = BUILT_IN.sort(((b"Accept", value),))

    assert (lines.shared, lines.alone_by) == ((), None)


@pytest.mark.parametrize("value", [b"text/event-stream", b"application/msgpack"])
def test_who_wants_another_form_goes_alone(value: bytes) -> None:
    """Only JSON can be shared out."""
    assert BUILT_IN.sort(((b"Accept", value),)).alone_by == "accept"


def test_what_is_ignored_is_left_out() -> None:
    """A shared request has what keeps its calls apart, and credentials."""
    lines = ((b"X-B", b"1"), (b"Traceparent", b"2"), (b"Authorization", b"3"))

    shared = BUILT_IN.sort(lines).shared

    assert shared == ((b"Authorization", b"3"), (b"X-B", b"1"))


values = st.lists(
    st.tuples(st.sampled_from([b"X-A", b"X-B", b"X-C"]), st.binary(max_size=2)),
    unique_by=itemgetter(0),
)


@given(lines=values)
def test_the_order_of_names_does_not_keep_apart(
    lines: list[tuple[bytes, bytes]],
) -> None:
    """Two clients may send the same lines in another order."""
    one, other = tuple(lines), tuple(reversed(lines))

    assert BUILT_IN.sort(one) == BUILT_IN.sort(other)


def test_the_order_of_the_values_of_one_name_keeps_apart() -> None:
    """A server may go by the first of them, or by the last."""
    one, other = (b"X-A", b"2"), (b"X-A", b"1")

    assert BUILT_IN.sort((one, other)).shared == (one, other)


@given(name=st.text("abcdefghijklmnopqrstuvwxyz-_0123456789", max_size=300))
def test_a_name_is_of_one_kind_in_any_case(name: str) -> None:
    """Names are compared without case."""
    line: HeaderList = ((name.upper().encode(), b"*/*"),)

    assert (BUILT_IN.sort(line).shared == ()) == (kind_of(name) is Kind.IGNORED)


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("x-a", Kind.IGNORED),
        ("x-app-user", Kind.IGNORED),
        ("x-both", Kind.APART),
        ("x-all", Kind.ALONE),
        ("user-agent", Kind.APART),
        ("traceparent", Kind.ALONE),
        ("stripe-signature", Kind.IGNORED),
        ("x-app-token", Kind.CREDENTIAL),
        ("x-api-key", Kind.CREDENTIAL),
        ("x-other", Kind.APART),
    ],
)
def test_the_word_of_the_operator_counts_more(name: str, kind: Kind) -> None:
    """Alone before apart, apart before ignored, and all before what is built in."""
    rules = LineRules.of(
        ignore=("x-a", "x-app-*", "x-both", "x-all", "stripe-signature"),
        apart=("x-both", "x-all", "user-agent", "x-api-key"),
        alone=("x-all", "trace*", "body.x-other"),
    )

    assert rules.kind(name) is kind


@pytest.mark.parametrize(
    "pattern",
    [
        "authorization",
        "x-api-key",
        "x-acme-token",
        "cookie",
        "x-forwarded-user",
        "*",
        "x-*",
        "x-forwarded-*",
        "cf-*",
        "cf-access-jwt*",
        "remote-*",
        "auth*",
    ],
)
def test_a_credential_cannot_be_ignored(pattern: str) -> None:
    """One client would get in with the key of another."""
    assert not may_be_ignored(pattern)


@pytest.mark.parametrize(
    "pattern", ["x-openwebui-*", "x-user-id", "accept-language", "x-forwarded-host"]
)
def test_what_is_no_credential_can_be_ignored(pattern: str) -> None:
    """The operator knows the server."""
    assert may_be_ignored(pattern)


@pytest.mark.parametrize(
    ("name", "value", "seconds"),
    [
        ("request-timeout-ms", b"1500", 1.5),
        ("x-envoy-expected-rq-timeout-ms", b"250", 0.25),
        ("request-deadline-ms", b"40.5", 0.0405),
        ("x-request-timeout-ms", b"1000", 1),
        ("x-request-timeout-seconds", b"2", 2),
        ("x-request-timeout", b"300ms", 0.3),
        ("x-request-timeout", b"3s", 3),
        ("grpc-timeout", b"100m", 0.1),
        ("grpc-timeout", b"2S", 2),
        ("grpc-timeout", b"1H", 3600),
        ("grpc-timeout", b"5u", 5e-6),
    ],
)
def test_a_deadline_is_heeded_if_its_unit_is_certain(
    name: str, value: bytes, seconds: float
) -> None:
    """In the name, or behind the number."""
    assert read_timeout_s(name, value) == pytest.approx(seconds)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("x-request-timeout", b"30"),
        ("request-timeout-ms", b"1s"),
        ("request-timeout-ms", b"soon"),
        ("request-deadline-ms", b"1795816000000"),
        ("x-request-deadline", b"2026-11-27T22:00:00Z"),
        ("grpc-timeout", b"100"),
        ("x-envoy-upstream-rq-per-try-timeout-ms", b"100"),
        ("x-connect-timeout-ms", b"100"),
        ("x-stainless-read-timeout", b"600s"),
        ("x-a", b"100ms"),
    ],
)
def test_a_deadline_of_uncertain_unit_is_not_heeded(name: str, value: bytes) -> None:
    """An answer too late is better than none that was wanted."""
    assert read_timeout_s(name, value) is None
