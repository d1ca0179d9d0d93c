"""Connections of clients: what they may send, and how they end."""

import json
from collections.abc import AsyncIterator

import pytest
import pytest_twisted
from twisted.internet.interfaces import ITCPTransport
from twisted.logger import capturedLogs
from zope.interface import directlyProvides

from abproxy.web.server import MOST_SURPLUS
from support.client import Client, turn
from support.proxy import (
    InMemoryProxy,
    StartedProxy,
    in_memory_proxy,
    proxy_before_byte_server,
)
from support.upstream import Saying, answering

GET = b"GET /docs HTTP/1.1\r\nHost: proxy\r\n\r\n"
FINE = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfine"
BAD_REQUEST = b"HTTP/1.1 400 Bad Request\r\n\r\n"


def embed(length: int) -> bytes:
    """Write the head of a call."""
    return (
        b"POST /embed HTTP/1.1\r\nHost: proxy\r\nContent-Type: application/json\r\n"
        b"Content-Length: %d\r\n\r\n" % length
    )


@pytest_twisted.async_yield_fixture
async def real() -> AsyncIterator[StartedProxy]:
    """Listen on a free port of this machine, for bodies up to 1000 bytes."""
    async with proxy_before_byte_server(max_body_bytes=1000) as started:
        started.upstream.asked = answering(FINE)
        yield started


@pytest.mark.parametrize(
    "lines",
    [
        b"Content-Length: 5\r\nContent-Length: 6",
        b"Content-Length: 5\r\nContent-Length: 5",
        b"Content-Length: 5, 5",
        b"Content-Length: +5",
        b"Content-Length: -5",
        b"Content-Length: 0x5",
        b"Content-Length: 5 5",
        b"Content-Length: \xb2",
        b"Content-Length:",
        b"Content-Length: " + b"9" * 5000,
        b"Content-Length : 5",
        b"Content-Length\t: 5",
        b"Content-Length: 5\r\nTransfer-Encoding: chunked",
        b"Transfer-Encoding: chunked\r\nContent-Length: 5",
        b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        b"Transfer-Encoding: gzip, chunked",
        b"Transfer-Encoding: chunked, identity",
        b"Transfer-Encoding: xchunked",
        b"Transfer-Encoding: \x0bchunked",
        b"Transfer-Encoding : chunked",
        b"X-Nul: \x00",
        b"X-Return: a\rb",
        b"X-Feed: a\nTransfer-Encoding: chunked",
        b"no colon",
        b": no name",
        b"X(): no token",
    ],
)
@pytest.mark.parametrize("path", [b"/embed", b"/docs"])
@pytest_twisted.ensureDeferred
async def test_a_head_with_two_meanings_is_refused(
    real: StartedProxy, path: bytes, lines: bytes
) -> None:
    """Nothing of it reaches the upstream, and nothing behind it is a request."""
    client = await real.byte_client()

    client.send(
        b"POST %b HTTP/1.1\r\nHost: proxy\r\n%b\r\nX-Last: 1\r\n\r\n0\r\n\r\n%b"
        % (path, lines, GET)
    )
    await client.lost
    await turn()

    assert client.received == BAD_REQUEST
    assert real.upstream.peers == []


@pytest.mark.parametrize(
    "line",
    [
        b"GET /docs",
        b"GET  /docs HTTP/1.1",
        b"GET /docs HTTP/2.0",
        b"GET /do cs HTTP/1.1",
        b"G{T /docs HTTP/1.1",
        b"GET /d\x80cs HTTP/1.1",
        b"GET /docs?x=\x80 HTTP/1.1",
        b"POST /embed?x=\x80 HTTP/1.1",
    ],
)
@pytest_twisted.ensureDeferred
async def test_a_first_line_that_is_none_is_refused(
    real: StartedProxy, line: bytes
) -> None:
    """With the bytes of a target as with its words."""
    client = await real.byte_client()

    client.send(line + b"\r\nHost: proxy\r\nExpect: 100-continue\r\n\r\n" + GET)
    await client.lost

    assert client.received == BAD_REQUEST
    assert real.upstream.peers == []


@pytest_twisted.ensureDeferred
async def test_a_folded_line_is_sent_on_as_one(real: StartedProxy) -> None:
    """No server behind us can take its second half for a line."""
    client = await real.byte_client()

    client.send(GET[:-2] + b"X-Folded: a\r\n Content-Length: 5\r\n\r\n")
    await client.until(b"fine")

    assert b"X-Folded: a Content-Length: 5\r\n" in real.upstream.peers[0].received


@pytest_twisted.ensureDeferred
async def test_that_a_body_is_sent_as_it_is_says_nothing(real: StartedProxy) -> None:
    """Only its length counts, and is sent to the upstream."""
    client = await real.byte_client()

    client.send(
        b"PUT /docs HTTP/1.1\r\nHost: proxy\r\nTransfer-Encoding: identity\r\n"
        b"Content-Length: 2\r\n\r\nab"
    )
    await client.until(b"fine")

    [peer] = real.upstream.peers
    assert b"\r\nContent-Length: 2\r\n" in peer.received
    assert b"Transfer-Encoding" not in peer.received
    assert peer.received.endswith(b"\r\n\r\nab")


@pytest_twisted.ensureDeferred
async def test_trailers_of_a_request_are_dropped(real: StartedProxy) -> None:
    """They might be taken for headers."""
    client = await real.byte_client()

    client.send(
        b"PUT /docs HTTP/1.1\r\nHost: proxy\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"1;x=y\r\na\r\n0\r\nAuthorization: x\r\n\r\n"
    )
    await client.until(b"fine")

    [peer] = real.upstream.peers
    assert peer.received.endswith(b"\r\n\r\n1\r\na\r\n0\r\n\r\n")


@pytest_twisted.ensureDeferred
async def test_a_connection_is_used_again(real: StartedProxy) -> None:
    """Until the client closes it; the question for /info may need another one."""
    client = await real.byte_client()

    for asked in range(1, 6):
        client.send(GET)
        while client.received.count(b"fine") < asked:
            await turn()

    assert len(real.upstream.peers) <= 2


@pytest.mark.parametrize("path", [b"/embed", b"/docs"])
@pytest_twisted.ensureDeferred
async def test_a_client_that_goes_on_sending_still_reads_its_413(
    real: StartedProxy, path: bytes
) -> None:
    """A reset must not overtake the answer."""
    client = await real.byte_client()

    client.send(embed(3_000_000).replace(b"/embed", path))
    client.send(b"x" * 3_000_000)
    await client.until(b'"}')
    client.transport.loseConnection()
    await client.lost

    assert client.received.startswith(b"HTTP/1.1 413 ")
    assert b"1000 bytes at most" in client.received
    assert real.upstream.peers == []


@pytest_twisted.ensureDeferred
async def test_draining_closes_idle_connections(real: StartedProxy) -> None:
    """And is over when the last one is closed."""
    client = await real.byte_client()
    await turn()

    await real.service.site.drain()

    await client.lost


def refused(body: bytes) -> tuple[object, Client]:
    """Send a call over the limit on a connection that can be half closed."""
    proxy = in_memory_proxy(Saying(b""), max_body_bytes=10)
    client = proxy.connect()
    directlyProvides(client.transport, ITCPTransport)
    client.transport.loseWriteConnection = lambda: None  # type: ignore[attr-defined]
    client.send(embed(11) + body)
    return proxy, client


@pytest.mark.parametrize("body", [b"", b"12345678901", b"12345678901" + GET])
def test_a_refused_client_may_send_for_five_seconds(body: bytes) -> None:
    """Also with all of the body in the segment of its head."""
    proxy, client = refused(body)
    client.send(b"more")

    proxy.clock.advance(4)  # type: ignore[attr-defined]
    before = client.transport.connected
    proxy.clock.advance(1)  # type: ignore[attr-defined]

    assert (before, client.transport.connected) == (True, False)
    assert [answer.status for answer in client.answers()] == [413]
    assert not proxy.clock.getDelayedCalls()  # type: ignore[attr-defined]


def test_a_refusal_speaks_the_language_of_the_route() -> None:
    """OpenAI's clients read `message`."""
    proxy = in_memory_proxy(Saying(b""), max_body_bytes=10)

    answer = proxy.ask("POST", "/v1/embeddings", b"x" * 11)

    assert answer.status == 413
    assert json.loads(answer.body)["message"] == "a request may have 10 bytes at most"


@pytest.mark.parametrize("target", ["http://proxy/embed", "HTTPS://proxy:1/embed?x=1"])
def test_an_absolute_target_is_the_route_it_names(target: str) -> None:
    """As HTTP wants it of every server."""
    proxy = in_memory_proxy(Saying(b"[[1]]"), max_wait_ms=1000)
    client = proxy.connect()

    client.embed(b'{"inputs":"a"}', path=target)
    proxy.flush()
    waits = client.answers() == []
    proxy.clock.advance(1)
    proxy.flush()

    assert waits
    assert client.answers()[0].body == b"[[1]]"
    client.leave()


def test_a_silent_connection_is_closed() -> None:
    """After more time than a client's pool keeps one."""
    proxy = in_memory_proxy(Saying(b"done"))
    client = proxy.connect()
    proxy.clock.advance(70)
    client.send(GET)
    proxy.flush()

    proxy.clock.advance(74)
    before = client.transport.connected
    proxy.clock.advance(1)

    assert (before, client.transport.connected) == (True, False)
    assert not proxy.clock.getDelayedCalls()


def test_a_call_that_waits_is_not_silent() -> None:
    """It may wait as long as its upstream needs."""
    proxy = in_memory_proxy(Saying(b"[[1]]"), max_wait_ms=1000000)
    client = proxy.connect()
    client.embed(b'{"inputs":"a"}')

    proxy.clock.advance(900)

    assert client.transport.connected
    client.leave()


def test_a_call_that_was_open_when_draining_began_is_the_last() -> None:
    """Its client is told not to send another on that connection."""
    proxy = in_memory_proxy(Saying(b"[[1]]"), max_wait_ms=1000000)
    client, other = proxy.connect(), proxy.connect()
    client.embed(b'{"inputs":"a"}')
    other.embed(b'{"inputs":"b"}', ("Authorization", "another lane"))

    proxy.site.drain()
    proxy.collector.flush()
    proxy.flush()

    assert client.answers()[0].header("Connection") == "close"
    assert not client.transport.connected
    proxy.clock.advance(0)


def test_a_call_that_comes_while_idle_connections_stay_is_the_last() -> None:
    """It was on its way when draining began: it is answered, and its client told."""
    proxy = in_memory_proxy(Saying(b"[[1]]"))
    client, other = proxy.connect(), proxy.connect()
    drained: list[object] = []
    proxy.site.drain(1).addCallback(drained.append)
    proxy.clock.advance(0.5)

    client.embed(b'{"inputs":"a"}')
    proxy.flush()
    other.leave()

    assert client.answers()[0].header("Connection") == "close"
    assert drained == [None]
    proxy.clock.advance(0)
    assert not proxy.clock.getDelayedCalls()


def test_connections_that_stayed_idle_wait_for_the_last_answer() -> None:
    """When their time is over, but a call is still in flight, none is closed yet."""
    proxy = in_memory_proxy(Saying(b"[[1]]"), max_wait_ms=1000000)
    busy, idle = proxy.connect(), proxy.connect()
    busy.embed(b'{"inputs":"a"}')
    proxy.site.drain(1)
    proxy.clock.pump([0, 1])
    before = idle.transport.connected

    proxy.collector.flush()
    proxy.flush()
    proxy.clock.advance(0)

    assert before
    assert not idle.transport.connected


def test_thousands_of_idle_connections_are_closed_in_one_go() -> None:
    """That one of them is gone is no reason to look at all the others."""
    proxy = in_memory_proxy(Saying(b""), max_connections=5000)
    for _ in range(5000):
        proxy.connect()
    drained: list[object] = []

    proxy.site.drain().addCallback(drained.append)
    proxy.clock.advance(0)

    assert drained == [None]


def test_what_is_not_answered_in_time_is_cut_off() -> None:
    """When draining takes too long."""
    proxy = in_memory_proxy(Saying(b""), max_wait_ms=1000000)
    client = proxy.connect()
    client.embed(b'{"inputs":"a"}')
    drained: list[object] = []
    proxy.site.drain().addCallback(drained.append)

    proxy.site.abort()

    assert drained == [None]
    assert client.transport.value() == b""
    proxy.clock.advance(0)
    assert not proxy.clock.getDelayedCalls()


def test_nothing_is_logged_for_a_request() -> None:
    """It costs as much as the answer."""
    proxy = in_memory_proxy(Saying(b"done"))

    with capturedLogs() as logged:
        proxy.site.doStart()
        proxy.ask("GET", "/docs", b"", ("Authorization", "Bearer secret"))
        proxy.site.doStop()

    assert logged == []


def test_a_connection_too_many_is_told_so_and_closed() -> None:
    """The answer says when to come back; those who are served notice nothing."""
    proxy = in_memory_proxy(Saying(b"[[1]]"), max_connections=1)
    served, surplus = proxy.connect(), proxy.connect()

    surplus.embed(b'{"inputs":"a"}')
    served.embed(b'{"inputs":"a"}')
    proxy.flush()

    [refused] = surplus.answers()
    assert refused.status == 429
    assert refused.header("Retry-After") == "1"
    assert refused.header("Connection") == "close"
    assert served.answers()[0].status == 200


def test_a_connection_too_many_may_not_be_silent_for_long() -> None:
    """It is one too many, and the sooner it goes the better."""
    proxy = in_memory_proxy(Saying(b"[[1]]"), max_connections=1)
    served, surplus = proxy.connect(), proxy.connect()

    proxy.clock.pump([1] * 5)

    assert served.transport.connected
    assert not surplus.transport.connected


def test_far_too_many_connections_are_not_even_told() -> None:
    """Files run out, and some are needed for the upstream."""
    proxy = in_memory_proxy(Saying(b"[[1]]"), max_connections=2)
    for _ in range(2 + MOST_SURPLUS):
        proxy.connect()

    assert proxy.site.buildProtocol(None) is None


def test_there_is_room_again_when_a_client_leaves() -> None:
    """A connection counts as long as it is open."""
    proxy = in_memory_proxy(Saying(b"[[1]]"), max_connections=1)
    proxy.connect().leave()

    answer = proxy.ask("GET", "/info")

    assert answer.status == 200


@pytest.mark.parametrize(
    "sent",
    [
        b"P",
        b"POST /embed HTTP/1.1\r\nHost: x\r\nX-Slow",
        b"POST /embed HTTP/1.1\r\nContent-Length: 100\r\n\r\n{",
    ],
)
def test_a_request_that_takes_too_long_to_arrive_is_refused(sent: bytes) -> None:
    """A byte now and then does not keep a connection for ever."""
    proxy = in_memory_proxy(Saying(b""))
    client = proxy.connect()
    client.send(sent)

    proxy.clock.pump([1] * 59)
    early = client.transport.value()
    proxy.clock.pump([1, 1])

    [refused] = client.answers()
    assert early == b""
    assert refused.status == 408
    assert json.loads(refused.body) == {
        "error": "no request within 60 seconds",
        "error_type": "Timeout",
    }


def test_a_relayed_body_may_take_its_time() -> None:
    """A large upload is slow, not hostile, as long as it goes on."""
    proxy = in_memory_proxy(Saying(b"done"), upstream_timeout_s=1000)
    client = proxy.connect()
    client.send(b"POST /other HTTP/1.1\r\nContent-Length: 5\r\n\r\n")

    for _ in range(5):
        proxy.clock.pump([1] * 30)
        client.send(b"x")
    proxy.flush()

    assert client.answers()[0].body == b"done"


def _answered_early(proxy: InMemoryProxy) -> Client:
    """Get an answer before half of the body is sent."""
    client = proxy.connect()
    client.send(b"POST bad:target HTTP/1.1\r\nContent-Length: 100\r\n\r\nhalf")
    return client


def test_the_rest_of_an_answered_body_may_not_take_for_ever() -> None:
    """A byte now and then does not keep a connection that has its answer."""
    proxy = in_memory_proxy(Saying(b""))
    client = _answered_early(proxy)
    [answer] = client.answers()

    for _ in range(2):
        proxy.clock.pump([1] * 29)
        client.send(b"x")
    open_so_far = client.transport.connected
    proxy.clock.pump([1, 1, 1])

    assert answer.status == 400
    assert open_so_far
    assert not client.transport.connected
    assert len(client.answers()) == 1


def test_a_body_that_was_answered_early_and_ends_in_time_is_forgiven() -> None:
    """Its connection serves the next request."""
    proxy = in_memory_proxy(Saying(b"[[1]]"))
    client = _answered_early(proxy)

    proxy.clock.pump([1] * 50)
    client.send(b"x" * 96)
    proxy.clock.pump([1] * 20)
    client.embed(b'{"inputs":"a"}')
    proxy.flush()

    assert [answer.status for answer in client.answers()] == [400, 200]


def test_a_slow_answer_is_no_slow_request() -> None:
    """A client that has sent everything may wait as long as the answer takes."""
    proxy = in_memory_proxy(
        Saying(b"[[1]]"), max_wait_ms=100000, upstream_timeout_s=500
    )
    client = proxy.connect()
    client.embed(b'{"inputs":"a"}')

    proxy.clock.pump([1] * 100)
    proxy.flush()

    assert client.answers()[0].status == 200


def test_no_timer_is_left_when_the_last_client_has_gone() -> None:
    """Without connections there is nothing to check."""
    proxy = in_memory_proxy(Saying(b""))
    client = proxy.connect()

    client.leave()

    assert not proxy.clock.getDelayedCalls()


def test_a_body_that_still_arrives_is_waited_for_while_draining() -> None:
    """A call half sent when SIGTERM came is accepted, and answered."""
    proxy = in_memory_proxy(Saying(b"[[1]]"))
    client = proxy.connect()
    client.send(
        b"POST /embed HTTP/1.1\r\nContent-Type: application/json\r\n"
        b'Content-Length: 14\r\n\r\n{"inputs'
    )

    proxy.site.drain()
    proxy.clock.pump([1, 1])
    client.send(b'":"a"}')
    proxy.flush()
    proxy.clock.advance(0)

    assert client.answers()[0].body == b"[[1]]"
    assert not client.transport.connected


def test_the_rest_of_a_pipelined_request_has_to_arrive_in_time() -> None:
    """Also where a request began while the one before was answered."""
    proxy = in_memory_proxy(Saying(b"[[1]]"))
    client = proxy.connect()
    client.embed(b'{"inputs":"a"}')
    client.send(b"POST /embed HTTP/1.1\r\nX-")
    proxy.flush()

    proxy.clock.pump([1] * 61)

    assert [answer.status for answer in client.answers()] == [200, 408]


def test_so_has_the_rest_of_one_behind_a_request_that_is_answered_at_once() -> None:
    """Its first bytes were there when no answer was waited for."""
    proxy = in_memory_proxy(Saying(b"[[1]]"))
    client = proxy.connect()
    client.send(GET.replace(b"/docs", b"/-/nothing") + b"POST /embed HTTP/1.1\r\nX-")

    proxy.clock.pump([1] * 61)

    assert [answer.status for answer in client.answers()] == [404, 408]


def test_a_relayed_body_without_a_length_has_a_limit_too() -> None:
    """No client may upload without end."""
    proxy = in_memory_proxy(Saying(b"done"), max_body_bytes=10)
    client = proxy.connect()
    client.send(b"POST /other HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n")

    client.send(b"b\r\n" + b"x" * 11 + b"\r\n")
    proxy.clock.advance(0)
    proxy.flush()  # the upstream hears of it as well

    assert client.transport.disconnecting or not client.transport.connected


def test_a_long_head_is_taken() -> None:
    """Tokens and cookies can be long."""
    proxy = in_memory_proxy(Saying(b"done"))
    for_us = (("Connection", "x-long"), ("X-Long", "x" * 40_000))

    answer = proxy.ask("GET", "/info", b"", *for_us)

    assert answer.status == 200


@pytest.mark.parametrize("end", [b"", b"\r\n\r\n"])
def test_a_head_that_is_too_long_is_refused_in_words(end: bytes) -> None:
    """No client is hung up on without a word."""
    proxy = in_memory_proxy(Saying(b""))
    client = proxy.connect()

    client.send(b"GET / HTTP/1.1\r\nCookie: " + b"x" * 70_000 + end)

    assert client.answers("GET")[0].status == 431
