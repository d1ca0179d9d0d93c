"""Which requests need a key, and how clients are told apart."""

from collections.abc import Iterable

import pytest
from pytest_twisted import ensureDeferred

from abproxy.web.app import MOST_STRANGERS
from abproxy.web.auth import ApiKeys
from support.proxy import in_memory_proxy, proxy_before_byte_server
from support.recorded import exchanges
from support.upstream import HeldUpstream, OpenUpstream, answering

JSON = ("Content-Type", "application/json")
PROTECTED = [
    ("POST", "/embed"),
    ("POST", "/"),
    ("POST", "/v1/embeddings"),
    ("POST", "/rerank"),
    ("GET", "/info"),
    ("GET", "/embed"),
    ("GET", "/nobody/knows"),
    ("POST", "/health"),
    ("OPTIONS", "/embed"),
    ("GET", "/docs/../info"),
    ("GET", "/docs/%2e%2e/info"),
]
PUBLIC = [
    ("GET", "/"),
    ("HEAD", "/health"),
    ("GET", "/ping"),
    ("GET", "/metrics"),
    ("GET", "/docs/"),
    ("GET", "/docs/swagger-ui.css"),
    ("GET", "/api-doc/openapi.json"),
    ("OPTIONS", "/embed"),
]
PREFLIGHT = (("Origin", "http://page"), ("Access-Control-Request-Method", "POST"))
"""What a browser sends with OPTIONS; it changes nothing for another method."""


def with_key(shown: str | None) -> list[tuple[str, str]]:
    """Write the line that shows something, if anything is shown."""
    return [("Authorization", shown)] if shown else []


@pytest.mark.parametrize(("method", "path"), PROTECTED)
@pytest.mark.parametrize(
    "shown", [None, "Bearer nope", "one", "bearer one", "Bearer one ", "Bearer "]
)
def test_without_a_key_requests_are_refused(
    method: str, path: str, shown: str | None
) -> None:
    """Nothing is sent upstream, and the answer is TEI's 401."""
    upstream = OpenUpstream()
    proxy = in_memory_proxy(upstream, api_keys=("one", "two"))
    headers = [JSON, *([("Authorization", shown)] if shown else [])]
    if shown == "Bearer one ":
        headers[-1] = ("Authorization", "Bearer  one")
    recorded = next(each for each in exchanges() if each.name == "key missing")

    answer = proxy.ask(method, path, b'{"inputs":"a"}', *headers)

    assert answer.status == recorded.status
    assert answer.body == recorded.reply_body
    told = {(name.lower(), value) for name, value in answer.headers}
    ours = {"connection", "date"}
    assert {h for h in recorded.reply_headers if h[0] not in ours} <= told
    assert upstream.shown == []


@pytest.mark.parametrize("key", ["one", "two"])
@pytest.mark.parametrize(("method", "path"), PROTECTED)
def test_any_of_the_keys_is_accepted(method: str, path: str, key: str) -> None:
    """Several keys may be in use, and none of them is passed on."""
    upstream = OpenUpstream()
    proxy = in_memory_proxy(upstream, api_keys=("one", "two"))
    shown = ("Authorization", f"Bearer {key}")

    answer = proxy.ask(method, path, b'{"inputs":"a"}', JSON, shown)

    assert answer.status == 200
    assert upstream.shown == [None]


@pytest.mark.parametrize(("method", "path"), PUBLIC)
def test_public_paths_are_public(method: str, path: str) -> None:
    """Probes, scrapers and preflights come without a key."""
    upstream = OpenUpstream()
    proxy = in_memory_proxy(upstream, api_keys=("one",), has_pages=False)

    answer = proxy.ask(method, path, b"", *PREFLIGHT)

    assert answer.status == 200


@pytest.mark.parametrize("shown", [None, "Bearer nope", "Basic b25lOg=="])
@pytest.mark.parametrize(("method", "path"), PUBLIC)
def test_a_client_without_a_key_is_not_sent_on_with_ours(
    method: str, path: str, shown: str | None
) -> None:
    """Neither with ours nor with what it has shown."""
    upstream = OpenUpstream()
    proxy = in_memory_proxy(
        upstream, api_keys=("one",), upstream_key="ours", has_pages=False
    )

    answer = proxy.ask(method, path, b"", *PREFLIGHT, *with_key(shown))

    assert answer.status == 200
    assert upstream.shown == [None]


@pytest.mark.parametrize(("method", "path"), PUBLIC)
def test_a_client_with_a_key_is_sent_on_with_ours_on_a_public_path(
    method: str, path: str
) -> None:
    """The upstream may need it there as well."""
    upstream = OpenUpstream()
    proxy = in_memory_proxy(
        upstream, api_keys=("one",), upstream_key="ours", has_pages=False
    )

    proxy.ask(method, path, b"", *PREFLIGHT, *with_key("Bearer one"))

    assert upstream.shown == ["Bearer ours"]


@pytest.mark.parametrize(("method", "path"), PUBLIC)
def test_where_no_key_is_asked_for_every_client_is_trusted(
    method: str, path: str
) -> None:
    """Every client that reaches such a proxy is."""
    upstream = OpenUpstream()
    proxy = in_memory_proxy(upstream, upstream_key="ours", has_pages=False)

    proxy.ask(method, path)

    assert upstream.shown == ["Bearer ours"]


@pytest.mark.parametrize(
    "announced",
    ["Content-Length: 3000000", "Transfer-Encoding: chunked", "Content-Length: 00"],
)
@pytest.mark.parametrize(("method", "path"), PUBLIC)
def test_a_body_needs_a_key_on_a_public_path_too(
    method: str, path: str, announced: str
) -> None:
    """The answer comes before the body, which is neither asked for nor sent on."""
    upstream = OpenUpstream()
    proxy = in_memory_proxy(upstream, api_keys=("one",), has_pages=False)
    client = proxy.connect()
    preflight = [": ".join(line) for line in PREFLIGHT]
    lines = ["Host: door", "Expect: 100-continue", *preflight, announced]

    client.send("\r\n".join([f"{method} {path} HTTP/1.1", *lines, "", ""]).encode())
    proxy.flush()

    [answer] = client.answers(method)
    assert answer.status == 401
    assert upstream.shown == []
    client.leave()


def test_an_empty_body_is_none() -> None:
    """Some clients say so with every request."""
    proxy = in_memory_proxy(OpenUpstream(), api_keys=("one",))

    answer = proxy.ask("OPTIONS", "/embed", b"", *PREFLIGHT, ("Content-Length", "0"))

    assert answer.status == 200


def test_a_client_with_a_key_may_send_a_body_anywhere() -> None:
    """What it is good for is for the upstream to say."""
    upstream = HeldUpstream()
    proxy = in_memory_proxy(upstream, api_keys=("one",))
    client = proxy.connect()

    client.ask("OPTIONS", "/embed", b"body", *with_key("Bearer one"))
    proxy.flush()

    assert upstream.bodies == [b"body"]
    client.leave()


def test_a_page_of_ours_does_not_look_at_a_body() -> None:
    """A probe that sends one is answered as ever."""
    proxy = in_memory_proxy(OpenUpstream(), api_keys=("one",))

    assert proxy.ask("GET", "/-/healthy", b"body").status == 200


@ensureDeferred
async def test_a_preflight_has_nothing_about_us_in_it() -> None:
    """To the byte, on its way to the upstream."""
    async with proxy_before_byte_server(api_keys=("one",), upstream_key="ours") as here:
        here.upstream.asked = answering(
            b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
        )
        client = await here.byte_client()

        client.send(
            b"OPTIONS /embed HTTP/1.1\r\nHost: door\r\nOrigin: http://page\r\n"
            b"Access-Control-Request-Method: POST\r\n"
            b"Authorization: Bearer nope\r\nContent-Length: 0\r\n\r\n"
        )
        await client.until(b"ok")

        head, *lines = here.upstream.peers[0].received.split(b"\r\n")
        assert head == b"OPTIONS /embed HTTP/1.1"
        names = {line.split(b":")[0].lower() for line in lines}
        asks = b"access-control-request-method"
        assert names == {b"host", b"origin", asks, b""}


def test_callers_with_different_keys_share_a_batch() -> None:
    """Keys that the proxy itself asks for are no reason to keep calls apart."""
    upstream = HeldUpstream()
    proxy = in_memory_proxy(
        upstream, api_keys=("one", "two"), upstream_key="ours", max_wait_ms=1000
    )
    for key in ("one", "two"):
        shown = ("Authorization", f"Bearer {key}")
        proxy.connect().embed(b'{"inputs":"a"}', shown)

    proxy.clock.advance(1)
    proxy.flush()

    shown = [request.getHeader("Authorization") for request in upstream.requests]
    assert shown == ["Bearer ours"]


def test_keys_are_never_printed() -> None:
    """A key does not reach a log by way of a repr."""
    assert "one" not in repr(ApiKeys(accepted=("one",)))


@pytest.mark.parametrize("path", ["/embed", "/v1/embeddings", "/info", "/rerank"])
@pytest.mark.parametrize("is_fast", [True, False])
def test_a_wrong_key_is_answered_as_tei_answers_it(path: str, *, is_fast: bool) -> None:
    """Line by line: a client prints what else there is instead of a message."""
    [recorded] = [each for each in exchanges() if each.name == "key wrong"]
    proxy = in_memory_proxy(OpenUpstream(), api_keys=("one",), is_fast=is_fast)
    told = ("Authorization", "Bearer nope"), ("X-Request-Id", "mine")

    answer = proxy.ask("POST", path, b'{"inputs":"a"}', *told)

    def lines(headers: Iterable[tuple[str, str]]) -> set[tuple[str, str]]:
        of_http = {"date", "connection", "content-length"}
        found = {(name.lower(), value) for name, value in headers}
        return {line for line in found if line[0] not in of_http}

    assert (answer.status, answer.body) == (401, b"")
    assert answer.header("Content-Length") == "0"
    assert lines(answer.headers) == lines(recorded.reply_headers)


@pytest.mark.parametrize("missing", [0, 1])
def test_options_that_is_no_preflight_needs_a_key(missing: int) -> None:
    """No browser sends it, so no page needs it."""
    upstream = OpenUpstream()
    proxy = in_memory_proxy(upstream, api_keys=("one",))

    answer = proxy.ask("OPTIONS", "/embed", b"", PREFLIGHT[1 - missing])

    assert answer.status == 401
    assert upstream.shown == []


def test_preflights_count_in_the_rate_limit_by_address() -> None:
    """Whatever each of them shows."""
    proxy = in_memory_proxy(OpenUpstream(), api_keys=("one",), rate_limit=4)

    statuses = [
        proxy.ask(
            "OPTIONS", "/embed", b"", *PREFLIGHT, ("Authorization", f"Bearer {n}")
        ).status
        for n in range(20)
    ]

    assert statuses == [200] * 4 + [429] * 16


def test_requests_without_a_key_have_few_connections_upstream() -> None:
    """Those with a key are not refused because of them."""
    upstream = HeldUpstream()
    proxy = in_memory_proxy(upstream, api_keys=("one",), has_pages=False)
    strangers = [proxy.connect() for _ in range(MOST_STRANGERS)]
    for stranger in strangers:
        stranger.ask("GET", "/docs", b"")
    proxy.flush()

    refused = proxy.ask("GET", "/docs")

    assert refused.status == 429
    assert refused.header("Retry-After") == "1"
    assert len(upstream.requests) == MOST_STRANGERS
    client = proxy.connect()
    client.ask("GET", "/docs", b"", *with_key("Bearer one"))
    proxy.flush()
    assert len(upstream.requests) == MOST_STRANGERS + 1
    strangers[0].leave()
    proxy.connect().ask("GET", "/docs", b"")
    proxy.flush()
    assert len(upstream.requests) == MOST_STRANGERS + 2
    for each in proxy.clients:
        each.leave()
