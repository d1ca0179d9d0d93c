"""Which calls share a request upstream, and what that request looks like."""

import json
from collections.abc import Iterable

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from abproxy import __version__
from abproxy.dialects.members import MemberRules
from abproxy.http.headers import Credentials
from abproxy.http.sharing import LineRules
from support.client import Client
from support.proxy import InMemoryProxy, in_memory_proxy
from support.upstream import HeldUpstream

Line = tuple[str, str]
WAIT_S = 1.0
ways = pytest.mark.parametrize("is_fast", [False, True])


def _proxy(
    *,
    is_fast: bool = True,
    is_tei: bool = False,
    ignore: Iterable[str] = (),
    apart: Iterable[str] = (),
    alone: Iterable[str] = (),
) -> tuple[InMemoryProxy, HeldUpstream]:
    upstream = HeldUpstream()
    proxy = in_memory_proxy(upstream, is_fast=is_fast, max_wait_ms=WAIT_S * 1000)
    reader = evolve(
        proxy.served.reader,
        lines=LineRules.of(ignore, apart, alone),
        members=MemberRules(is_tei=is_tei, ignore=ignore, apart=apart, alone=alone),
    )
    proxy.serve(reader=reader)
    return proxy, upstream


def _send(proxy: InMemoryProxy, body: bytes, *lines: Line, path: str) -> Client:
    client = proxy.connect()
    client.embed(body, *lines, path=path)
    return client


def _go(proxy: InMemoryProxy) -> None:
    proxy.clock.advance(WAIT_S)
    proxy.flush()


def _body(**members: object) -> bytes:
    return json.dumps({"input": ["a"], **members}).encode()


def _share(
    one: Iterable[Line] | bytes, other: Iterable[Line] | bytes, **settings: object
) -> bool:
    """Send two calls, and return whether one request carries both."""
    proxy, upstream = _proxy(**settings)  # type: ignore[arg-type]
    for each in (one, other):
        body, lines = (each, ()) if isinstance(each, bytes) else (_body(), tuple(each))
        _send(proxy, body, *lines, path="/v1/embeddings")
    _go(proxy)
    return len(upstream.bodies) == 1


@ways
@pytest.mark.parametrize(
    ("name", "shares"),
    [
        ("sentry-trace", True),
        ("X-Acme-Request-Id", True),
        ("Idempotency-Key", True),
        ("CF-Ray", True),
        ("Request-Deadline-Ms", True),
        ("X-Forwarded-For", True),
        ("X-Forwarded-User", False),
        ("X-Forwarded-Host", False),
        ("Cf-Access-Jwt-Assertion", False),
        ("Accept-Language", False),
        ("From", False),
        ("X-Anything", False),
    ],
)
def test_a_line_that_differs_keeps_apart_unless_it_is_ignored(
    name: str, *, shares: bool, is_fast: bool
) -> None:
    """By the kind of its name."""
    assert _share([(name, "100")], [(name, "200")], is_fast=is_fast) is shares


@ways
@pytest.mark.parametrize("name", ["X-Forwarded-User", "Cf-Access-Token", "X-Tenant"])
def test_equal_lines_share_and_are_sent(name: str, *, is_fast: bool) -> None:
    """The upstream is told who asks, as it would be of one call."""
    proxy, upstream = _proxy(is_fast=is_fast)
    for _ in range(2):
        _send(proxy, _body(), (name, "alice"), path="/v1/embeddings")
    _go(proxy)

    [request] = upstream.requests
    assert request.getHeader(name) == "alice"


@ways
def test_a_shared_request_has_an_identity_of_its_own(*, is_fast: bool) -> None:
    """It is none of its callers."""
    proxy, upstream = _proxy(is_fast=is_fast)
    for name in ("one", "two"):
        lines = (("User-Agent", name), ("Accept", "*/*"), ("X-Request-Id", name))
        _send(proxy, _body(), *lines, path="/v1/embeddings")
    _go(proxy)

    [request] = upstream.requests
    assert request.getHeader("User-Agent") == f"abproxy/{__version__}"
    assert request.getHeader("Accept") == "application/json"
    assert request.getHeader("X-Request-Id") is None


def test_a_line_of_the_lane_stands_in_for_our_own() -> None:
    """Once, where the operator keeps clients apart by it."""
    proxy, upstream = _proxy(apart=("user-agent",))
    for _ in range(2):
        _send(proxy, _body(), ("User-Agent", "one"), path="/v1/embeddings")
    _go(proxy)

    [request] = upstream.requests
    assert request.requestHeaders.getRawHeaders("User-Agent") == ["one"]


ALONE_LINES = [
    ("Content-Digest", "sha-256=:x:"),
    ("Signature", "sig1=:x:"),
    ("X-Hub-Signature-256", "sha256=x"),
    ("Authorization", "AWS4-HMAC-SHA256 Credential=x"),
]
ALONE_MEMBERS: list[dict[str, object]] = [
    {"late_chunking": True},
    {"modality": "text"},
    {"enable_fusion": True},
    {"stream": True},
    {"unknown": [1]},
    {"unknown": {"a": 1}},
]


@ways
@pytest.mark.parametrize("line", ALONE_LINES)
def test_a_signed_call_is_neither_shared_nor_split(
    line: Line, *, is_fast: bool
) -> None:
    """However many inputs it has, it is sent as it is signed."""
    proxy, upstream = _proxy(is_fast=is_fast)
    body = b'{ "input":\n%b}' % json.dumps(["a"] * 100).encode()
    sent = (line, ("X-Request-Id", "mine"), ("User-Agent", "me"))
    _send(proxy, body, *sent, path="/v1/embeddings")
    _send(proxy, body, *sent, path="/v1/embeddings")
    _go(proxy)

    assert upstream.bodies == [body, body]
    for request in upstream.requests:
        assert all(request.getHeader(name) == value for name, value in sent)


@ways
@pytest.mark.parametrize("members", ALONE_MEMBERS)
def test_inputs_that_belong_together_are_not_split(
    members: dict[str, object], *, is_fast: bool
) -> None:
    """A server that is not TEI may read them as one."""
    proxy, upstream = _proxy(is_fast=is_fast)
    body = _body(input=["a"] * 100, **members)
    _send(proxy, body, path="/v1/embeddings")
    _send(proxy, body, path="/v1/embeddings")
    _go(proxy)

    assert upstream.bodies == [body, body]


@pytest.mark.parametrize("members", ALONE_MEMBERS)
def test_tei_ignores_what_it_does_not_know(members: dict[str, object]) -> None:
    """So such calls share a batch, with what they have in common."""
    body = _body(**members)

    assert _share(body, body, is_tei=True)


def test_a_refused_call_that_goes_whole_is_not_cut() -> None:
    """The refusal is the answer, whatever the limits are by then."""
    proxy, upstream = _proxy()
    body = _body(input=["a"] * 40, late_chunking=True)
    client = _send(proxy, body, path="/v1/embeddings")
    _go(proxy)

    upstream.answer(0, b"batch size 40 > maximum allowed batch size 32", 422)
    proxy.flush()

    [answer] = client.answers()
    assert (answer.status, len(upstream.bodies)) == (422, 1)


@pytest.mark.parametrize(
    ("one", "other", "shares"),
    [
        ({"x": 1}, {"x": 1}, True),
        ({"x": 1}, {"x": 2}, False),
        ({"x": True}, {"x": True}, True),
        ({"x": {}}, {"x": {}}, True),
        ({"x": []}, {"x": []}, True),
        ({"x": {}}, {"x": []}, False),
        ({"x": "a"}, {}, False),
        ({"user": "a"}, {"user": "a"}, True),
        ({"user": "a"}, {"user": "b"}, False),
        ({"parameters": {"a": [1]}}, {"parameters": {"a": [1]}}, True),
        ({"options": {"a": 1}}, {"options": {"a": 2}}, False),
        ({"extra_body": {"a": 1}}, {"extra_body": {"a": 1}}, True),
        ({"metadata": {"a": 1}}, {"metadata": {"a": 1}}, True),
        ({"late_chunking": False}, {"late_chunking": False}, True),
        ({"encoding_format": "float"}, {}, True),
        ({"dimensions": None}, {}, True),
    ],
)
def test_members_keep_apart_by_their_bytes(
    one: dict[str, object], other: dict[str, object], *, shares: bool
) -> None:
    """Those that the route knows, by their values."""
    assert _share(_body(**one), _body(**other)) is shares


def test_what_the_operator_ignores_is_left_out_of_shared_requests() -> None:
    """A line and a member that no answer depends on."""
    proxy, upstream = _proxy(ignore=("x-user-*", "body.user"))
    for name in ("one", "two"):
        body = _body(user=name)
        _send(proxy, body, ("X-User-Id", name), path="/v1/embeddings")
    _go(proxy)

    [request] = upstream.requests
    assert request.getHeader("X-User-Id") is None
    assert json.loads(upstream.bodies[0]) == {"input": ["a", "a"]}


def test_what_the_operator_ignores_is_sent_when_a_call_is_alone() -> None:
    """As its client sent it."""
    proxy, upstream = _proxy(ignore=("x-user-*", "body.user"))
    body = _body(user="one")
    _send(proxy, body, ("X-User-Id", "one"), path="/v1/embeddings")
    _go(proxy)

    assert upstream.requests[0].getHeader("X-User-Id") == "one"
    assert upstream.bodies == [body]


@pytest.mark.parametrize(
    ("settings", "one", "other", "shares"),
    [
        ({"ignore": ["body.x"]}, {"x": 1}, {"x": 2}, True),
        ({"ignore": ["body.x"]}, {"x": [1]}, {"x": [2]}, True),
        ({"apart": ["body.x"]}, {"x": [1]}, {"x": [1]}, True),
        ({"apart": ["body.x"]}, {"x": [1]}, {"x": [2]}, False),
        ({"alone": ["body.x"]}, {"x": 1}, {"x": 1}, False),
        ({"alone": ["body.x"], "is_tei": True}, {"x": 1}, {"x": 1}, False),
        ({"alone": ["body.x"], "apart": ["body.x"]}, {"x": 1}, {"x": 1}, False),
        ({"apart": ["body.x"], "ignore": ["body.x"]}, {"x": 1}, {"x": 2}, False),
        ({"alone": ["body.dimensions"]}, {"dimensions": 2}, {"dimensions": 2}, False),
    ],
)
def test_the_word_of_the_operator_counts_more_for_members(
    settings: dict[str, object],
    one: dict[str, object],
    other: dict[str, object],
    *,
    shares: bool,
) -> None:
    """Alone before apart, apart before ignored, and all before what is built in."""
    assert _share(_body(**one), _body(**other), **settings) is shares


def test_other_rules_hold_for_a_head_and_a_body_that_are_remembered() -> None:
    """A reload changes what calls have in common."""
    proxy, upstream = _proxy()
    clients = [proxy.connect(), proxy.connect()]

    def both() -> None:
        for at, client in enumerate(clients):
            body, line = _body(user=str(at)), ("X-User-Id", "me")
            client.embed(body, line, path="/v1/embeddings")
        _go(proxy)

    both()
    assert len(upstream.bodies) == 2
    for at in range(2):
        upstream.answer(at, b'{"data":[{"index":0,"embedding":[1]}]}')
    proxy.flush()

    reader = evolve(
        proxy.served.reader,
        members=MemberRules(is_tei=False, ignore=("body.user",)),
    )
    proxy.serve(reader=reader)
    both()

    assert len(upstream.bodies) == 3


lines = st.lists(
    st.tuples(
        st.sampled_from(["X-A", "X-Tenant", "Cookie", "traceparent", "Digest", "Via"]),
        st.sampled_from(["1", "2"]),
    ),
    max_size=3,
)
members = st.dictionaries(
    st.sampled_from(["user", "x", "late_chunking", "parameters"]),
    st.sampled_from([None, 1, "a", True, [], [1], {"a": 1}]),
    max_size=2,
)
calls = st.tuples(lines, members)


def _is_alone(lines: list[Line], members: dict[str, object]) -> bool:
    ties = members.get("late_chunking") is not None
    has_more = members.get("x") in ([1], {"a": 1})
    return any(name == "Digest" for name, _ in lines) or ties or has_more


def _common(lines: list[Line], members: dict[str, object]) -> object:
    counts = [line for line in lines if line[0] not in {"traceparent", "Via"}]
    of_names = {name: [v for n, v in counts if n == name] for name, _ in counts}
    kept = {n: v for n, v in members.items() if (n, v) != ("user", None)}
    return of_names, json.dumps(kept, sort_keys=True)


@given(one=calls, other=calls, is_fast=st.booleans())
def test_calls_share_only_if_all_that_counts_is_equal(
    one: tuple[list[Line], dict[str, object]],
    other: tuple[list[Line], dict[str, object]],
    *,
    is_fast: bool,
) -> None:
    """And a call that goes alone is sent exactly as its client sent it."""
    drawn = [each for each in (one, other) if _is_readable(each[1])]
    proxy, upstream = _proxy(is_fast=is_fast)
    for found, more in drawn:
        _send(proxy, _body(**more), *found, path="/v1/embeddings")
    _go(proxy)

    alone = [each for each in drawn if _is_alone(*each)]
    others = [each for each in drawn if not _is_alone(*each)]
    expected = len(alone) + len(
        {json.dumps(_common(*each), sort_keys=True) for each in others}
    )
    assert len(upstream.bodies) == expected
    for found, more in alone:
        assert _body(**more) in upstream.bodies
        for name, value in found:
            assert any(
                value in request.requestHeaders.getRawHeaders(name, [])
                for request in upstream.requests
            )


def _is_readable(members: dict[str, object]) -> bool:
    """Whether the route's type takes it; any other body is relayed."""
    return isinstance(members.get("user"), str | None)


FIXED = ((b"Host", b"model.example"), (b"X-Gate", b"open"), (b"User-Agent", b"us"))


@ways
def test_fixed_lines_are_in_every_request(*, is_fast: bool) -> None:
    """In shared ones, in those of one call, and in what is relayed."""
    upstream = HeldUpstream()
    proxy = in_memory_proxy(upstream, is_fast=is_fast, max_wait_ms=WAIT_S * 1000)
    reader = evolve(proxy.served.reader, credentials=Credentials(fixed=FIXED))
    proxy.serve(reader=reader)
    for client in ("a", "b"):
        lines = (("X-Gate", client), ("User-Agent", client))
        _send(proxy, _body(), *lines, path="/v1/embeddings")
    _send(proxy, b'{"inputs":"a"}', ("X-Gate", "c"), path="/embed")
    _send(proxy, b'{"inputs":"a"}', ("X-Gate", "d"), path="/rerank")
    _go(proxy)

    assert len(upstream.requests) == 3
    for request in upstream.requests:
        for name, value in FIXED:
            assert request.requestHeaders.getRawHeaders(name) == [value]


@ways
@pytest.mark.parametrize(
    ("origin", "shares"), [("http://door", True), ("http://elsewhere", False)]
)
def test_the_live_page_shares_with_any_client(
    origin: str, *, shares: bool, is_fast: bool
) -> None:
    """Its browser adds lines that no script can leave out."""
    browser = (("Origin", origin), ("Accept-Language", "cs"), ("Sec-Fetch-Mode", "x"))

    assert _share((), browser, is_fast=is_fast) is shares
