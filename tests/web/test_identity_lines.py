"""Header lines that say who asks keep calls apart, and reach the inference server."""

import string

from hypothesis import given, settings
from hypothesis import strategies as st

from abproxy.http.sharing import Kind, kind_of
from support.proxy import in_memory_proxy
from support.upstream import HeldUpstream

WORDS = st.text(string.ascii_lowercase, min_size=1, max_size=8)
KNOWN = (
    *("authorization", "x-api-key", "cookie", "x-forwarded-user", "x-forwarded-email"),
    *("x-forwarded-groups", "x-forwarded-access-token", "x-forwarded-client-cert"),
    *("x-forwarded-prefix", "x-forwarded-host", "cf-access-jwt-assertion", "x-tenant"),
    *("x-auth-request-user", "remote-user", "x-remote-group", "sec-tenant", "from"),
    *("accept-language", "x-user-id", "x-org", "openai-organization", "x-account"),
)
IGNORED = (
    *("baggage", "traceparent", "x-real-ip", "x-forwarded-for", "x-forwarded-proto"),
    *("x-request-id", "user-agent", "cf-ray", "sec-fetch-site", "idempotency-key"),
)
MADE = st.one_of(
    WORDS.map("x-{}-token".format),
    WORDS.map("x-{}-api-key".format),
    WORDS.map("x-auth-request-{}".format),
    WORDS.map("cf-access-{}".format),
    WORDS.map("{}-secret".format),
    WORDS.map("x-tenant-{}".format),
).filter(lambda name: kind_of(name) in {Kind.CREDENTIAL, Kind.APART})
NAMES = st.sampled_from(KNOWN) | MADE
VALUES = st.text(string.ascii_letters + string.digits + "-_.=", min_size=1, max_size=20)
LINES = st.dictionaries(st.sampled_from(IGNORED), VALUES, max_size=4)


@st.composite
def spelled(draw: st.DrawFn, names: st.SearchStrategy[str]) -> str:
    """Draw a name in capitals and small letters as they come."""
    name = draw(names)
    capital = draw(st.lists(st.booleans(), min_size=len(name), max_size=len(name)))
    pairs = zip(name, capital, strict=True)
    return "".join(letter.upper() if big else letter for letter, big in pairs)


def sent(
    name: str, values: list[str], others: list[dict[str, str]], *, is_fast: bool
) -> list[str | None]:
    """Let two clients ask at once, and return what the upstream saw of this line."""
    upstream = HeldUpstream()
    proxy = in_memory_proxy(upstream, is_fast=is_fast, max_wait_ms=100)
    for value, more in zip(values, others, strict=True):
        client = proxy.connect()
        client.embed(b'{"inputs":"a"}', *more.items(), (name, value))
    proxy.clock.advance(0.1)
    proxy.flush()
    seen = [request.getHeader(name) for request in upstream.requests]
    for at in range(len(seen)):
        upstream.answer(at, b"[[1],[2]]" if len(seen) == 1 else b"[[1]]")
    proxy.flush()
    assert all(client.transport.value() for client in proxy.clients)
    for client in proxy.clients:
        client.leave()
    return seen


@settings(max_examples=60, deadline=None)
@given(
    name=spelled(NAMES),
    values=st.lists(VALUES, min_size=2, max_size=2, unique=True),
    one=LINES,
    other=LINES,
    is_fast=st.booleans(),
)
def test_two_identities_are_never_in_one_request(
    name: str,
    values: list[str],
    one: dict[str, str],
    other: dict[str, str],
    *,
    is_fast: bool,
) -> None:
    """Whatever else the calls have, and each request has its own."""
    assert sorted(
        map(str, sent(name, values, [one, other], is_fast=is_fast))
    ) == sorted(values)


@settings(max_examples=60, deadline=None)
@given(name=spelled(NAMES), value=VALUES, one=LINES, other=LINES, is_fast=st.booleans())
def test_the_same_identity_may_share_and_is_sent(
    name: str, value: str, one: dict[str, str], other: dict[str, str], *, is_fast: bool
) -> None:
    """The answer depends on it, in company as alone; on other lines it does not."""
    assert sent(name, [value, value], [one, other], is_fast=is_fast) == [value]
