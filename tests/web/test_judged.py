"""What is refused at the head of a request, before its body is read."""

from typing import Any

import pytest

from abproxy.events import Observer, RequestInfo
from support.client import Client
from support.proxy import InMemoryProxy, in_memory_proxy
from support.upstream import Saying

ways = pytest.mark.parametrize("is_fast", [True, False])
KEY = b"Authorization: Bearer k\r\n"
LENGTH = b"Content-Length: 3000000\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n"
EXPECT = b"Expect: 100-continue\r\n"


def send(
    *lines: bytes,
    first: bytes = b"POST /embed",
    body: bytes = b"",
    is_fast: bool = True,
    **settings: Any,
) -> tuple[InMemoryProxy, Client]:
    """Send a head to a proxy that asks for a key, and perhaps some of its body."""
    chosen = {"api_keys": ("k",), "max_body_bytes": 4_000_000, **settings}
    proxy = in_memory_proxy(Saying(b"[[1]]"), is_fast=is_fast, **chosen)
    client = proxy.connect()
    head = first + b" HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    client.send(head + b"".join(lines) + b"\r\n" + body)
    proxy.flush()
    return proxy, client


@ways
@pytest.mark.parametrize("path", [b"/embed", b"/v1/embeddings", b"/", b"/rerank"])
@pytest.mark.parametrize("framing", [LENGTH, CHUNKED])
@pytest.mark.parametrize("expects", [b"", EXPECT])
def test_a_stranger_is_told_so_before_the_body(
    path: bytes,
    framing: bytes,
    expects: bytes,
    is_fast: bool,  # noqa: FBT001
) -> None:
    """No body is held for one who may not send it, and none is asked for."""
    _, client = send(framing, expects, first=b"POST " + path, is_fast=is_fast)

    [answer] = client.answers()
    assert (answer.status, answer.body) == (401, b"")
    assert answer.header("Connection") == "close"
    assert not client.transport.connected


@ways
def test_who_has_the_key_is_asked_for_the_body(is_fast: bool) -> None:  # noqa: FBT001
    """And then answered."""
    body = b'{"inputs":["a"]}'
    length = b"Content-Length: %d\r\n" % len(body)

    proxy, client = send(KEY, length, EXPECT, is_fast=is_fast)
    asked = client.transport.value()
    client.transport.clear()
    client.send(body)
    proxy.flush()

    assert asked == b"HTTP/1.1 100 Continue\r\n\r\n"
    assert client.answers()[0].body == b"[[1]]"


@ways
@pytest.mark.parametrize("expects", [b"", EXPECT])
@pytest.mark.parametrize("path", [b"/embed", b"/rerank"])
def test_a_body_that_is_announced_too_large_is_not_asked_for(
    path: bytes,
    expects: bytes,
    is_fast: bool,  # noqa: FBT001
) -> None:
    """Its client may read so at once."""
    _, client = send(
        KEY, LENGTH, expects, first=b"POST " + path, is_fast=is_fast, max_body_bytes=9
    )

    assert [answer.status for answer in client.answers()] == [413]


@ways
def test_a_stranger_is_not_told_how_large_a_body_may_be(
    is_fast: bool,  # noqa: FBT001
) -> None:
    """With less it would be no better."""
    _, client = send(LENGTH, body=b"x" * 3_000_000, is_fast=is_fast, max_body_bytes=9)

    assert [answer.status for answer in client.answers()] == [401]


@ways
@pytest.mark.parametrize("expects", [b"", EXPECT])
def test_a_method_that_is_not_passed_on_is_refused_before_the_body(
    expects: bytes,
    is_fast: bool,  # noqa: FBT001
) -> None:
    """Also to who has the key."""
    _, client = send(KEY, LENGTH, expects, first=b"TRACE /x", is_fast=is_fast)

    [answer] = client.answers()
    assert answer.status == 405
    assert answer.header("Allow")


@ways
def test_a_connection_is_kept_where_the_refused_body_is_here(
    is_fast: bool,  # noqa: FBT001
) -> None:
    """A client with a wrong key may correct it without another handshake."""
    body = b'{"inputs":["a"]}'
    length = b"Content-Length: %d\r\n" % len(body)
    proxy, client = send(length, body=body, is_fast=is_fast)

    client.embed(body, ("Authorization", "Bearer k"))
    proxy.flush()

    assert [answer.status for answer in client.answers()] == [401, 200]


class Ends(Observer):
    """Notes the outcome of each request."""

    def __init__(self) -> None:
        self.seen: list[tuple[bytes, int, bool]] = []

    def request_ended(self, request: RequestInfo, *, gone: bool) -> None:
        """Note it."""
        self.seen.append((request.path, request.status, gone))


@pytest.mark.parametrize(("lines", "status"), [((), 401), ((KEY,), 413)])
def test_what_is_refused_at_the_head_is_a_request_like_any(
    lines: tuple[bytes, ...], status: int
) -> None:
    """So that the access log has it."""
    proxy = in_memory_proxy(Saying(b""), api_keys=("k",), max_body_bytes=9)
    ends = proxy.site.observer = Ends()
    client = proxy.connect()

    client.send(b"POST /embed HTTP/1.1\r\n" + b"".join(lines) + LENGTH + b"\r\n")

    assert ends.seen == [(b"/embed", status, False)]
    assert not proxy.site.requests
