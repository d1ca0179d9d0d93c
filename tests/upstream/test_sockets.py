"""The way upstream over real sockets, where transports in memory would lie."""

from collections.abc import AsyncIterator
from gzip import compress
from typing import Any

import pytest
import pytest_twisted
from attrs import define
from twisted.internet import reactor
from twisted.internet.defer import CancelledError, Deferred, maybeDeferred
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.logger import capturedLogs
from twisted.web.client import HTTPConnectionPool

from abproxy.errors import CannotConnect, ConnectionBroken
from abproxy.http.messages import UpstreamRequest
from abproxy.upstream.agent import make_agent
from abproxy.upstream.connections import make_pool
from abproxy.upstream.endpoints import EndpointFactory, make_endpoint, uri_of
from abproxy.upstream.fast.client import FastClient
from abproxy.upstream.fast.connection import ConnectionPool
from abproxy.upstream.treq_client import TreqClient, make_treq
from support.client import turn, until
from support.upstream import ByteServer, Peer, answering, make_upstream

HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n"
WHOLE = HEAD + b"\r\n[[1]]"


@define(eq=False)
class Way:
    """A server and the way there."""

    client: str
    server: ByteServer
    port: Any
    pool: HTTPConnectionPool
    idle: ConnectionPool

    def send(self, body: bytes = b"{}") -> Deferred[Any]:
        url = f"http://127.0.0.1:{self.port.getHost().port}"
        about: dict[str, Any] = {"base_url": url, "max_answer_bytes": 1000}
        client: TreqClient | FastClient
        if self.client == "treq":
            http = make_treq(make_agent(self.pool, EndpointFactory(reactor, 5)))
            client = TreqClient(http=http, **about)
        else:
            endpoint = make_endpoint(reactor, uri_of(url.encode()), 5)
            client = FastClient(endpoint=endpoint, pool=self.idle, **about)
        upstream = make_upstream(
            client.send,
            reactor,
            timeout_s=10,
            pool=self.idle,
            agent_pool=self.pool,
        )
        return upstream.send(UpstreamRequest(path=b"/embed", headers=(), body=body))


@pytest.fixture(params=["fast", "treq"])
def client(request: pytest.FixtureRequest) -> str:
    """Name a client: all is true of both."""
    return str(request.param)


@pytest_twisted.async_yield_fixture
async def way(client: str) -> AsyncIterator[Way]:
    """Listen on a free port of this machine."""
    server = ByteServer()
    port = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(server)
    pool, idle = make_pool(reactor, max_connections=4), ConnectionPool(reactor, 4)
    yield Way(client, server, port, pool, idle)
    await maybeDeferred(port.stopListening)
    for peer in server.peers:
        peer.transport.abortConnection()
        await peer.lost
    await (pool.closeCachedConnections() or turn())
    await idle.close()


async def outcome(reply: Deferred[Any]) -> Any:
    """Wait for the reply or the error."""
    return await reply.addErrback(lambda failure: failure.value)


@pytest_twisted.ensureDeferred
async def test_connections_are_used_again(way: Way) -> None:
    """A batch does not pay for a handshake."""
    way.server.asked = answering(WHOLE)

    replies = [await way.send() for _ in range(3)]

    assert [reply.body for reply in replies] == [b"[[1]]"] * 3
    assert len(way.server.peers) == 1


@pytest_twisted.ensureDeferred
async def test_a_connection_that_was_closed_meanwhile_is_not_used(way: Way) -> None:
    """A server may close an idle connection at any time."""
    way.server.asked = answering(WHOLE)
    await way.send()
    way.server.peers[0].transport.loseConnection()
    await way.server.peers[0].lost
    await turn()

    reply = await way.send()

    assert reply.body == b"[[1]]"
    assert len(way.server.peers) == 2


@pytest_twisted.ensureDeferred
async def test_cookies_of_one_answer_are_not_sent_with_the_next(way: Way) -> None:
    """They were meant for another client."""
    way.server.asked = answering(HEAD + b"Set-Cookie: session=1; Path=/\r\n\r\n[[1]]")

    reply = await way.send()
    await way.send()

    assert (b"Set-Cookie", b"session=1; Path=/") in reply.headers
    assert b"cookie" not in way.server.peers[0].received.lower()


@pytest_twisted.ensureDeferred
async def test_lines_that_were_named_as_about_the_connection_stay_behind(
    way: Way,
) -> None:
    """Whatever else may stand among the names."""
    lines = b"Connection: x-hop, no name, ,close\r\nX-HOP: 1\r\nX-End: 1\r\n\r\n"
    way.server.asked = answering(HEAD + lines + b"[[1]]")

    reply = await way.send()

    assert reply.headers == ((b"X-End", b"1"),)


@pytest_twisted.ensureDeferred
async def test_nothing_is_asked_for_that_nobody_asked_for(way: Way) -> None:
    """No compression, no name of a browser."""
    way.server.asked = answering(WHOLE)

    await way.send()

    lines = way.server.peers[0].received.lower()
    assert b"accept-encoding" not in lines
    assert b"user-agent" not in lines


@pytest_twisted.ensureDeferred
async def test_an_answer_packed_without_being_asked_is_unpacked(way: Way) -> None:
    """Rows are cut from text; a client has lost nothing but a header."""
    packed = compress(b"[[1]]")
    head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n"
    way.server.asked = answering(head % len(packed) + packed)

    reply = await way.send()

    assert reply.body == b"[[1]]"
    assert reply.headers == ()


@pytest_twisted.ensureDeferred
async def test_cancelling_while_the_host_is_looked_up_is_no_failure(way: Way) -> None:
    """Twisted says that there is no such host; the upstream is not to blame."""
    reply = way.send()

    reply.cancel()

    assert isinstance(await outcome(reply), CancelledError)


@pytest_twisted.ensureDeferred
async def test_cancelling_before_the_head_closes_the_connection(way: Way) -> None:
    """TEI forgets what it has not begun to compute."""
    received: Deferred[Peer] = Deferred()
    way.server.asked = received.callback
    sent = way.send()
    peer = await received

    sent.cancel()

    assert isinstance(await outcome(sent), CancelledError)
    await peer.lost


@pytest_twisted.ensureDeferred
async def test_cancelling_during_the_body_closes_the_connection(way: Way) -> None:
    """Twisted's own ways to read a body would leave it open."""
    way.server.asked = answering(HEAD + b"\r\n[[")
    sent = way.send()
    await turn()

    sent.cancel()

    assert isinstance(await outcome(sent), CancelledError)
    await way.server.peers[0].lost


@pytest_twisted.ensureDeferred
async def test_an_answer_that_is_cut_short_is_no_answer(way: Way) -> None:
    """The connection broke, and that is what the caller hears."""

    def cut(peer: Peer) -> None:
        peer.transport.write(HEAD + b"\r\n[[")
        peer.transport.loseConnection()

    way.server.asked = cut

    assert type(await outcome(way.send())) is ConnectionBroken


@pytest_twisted.ensureDeferred
async def test_a_server_that_hangs_up_has_broken_the_connection(way: Way) -> None:
    """As TEI does when it dies of a query."""
    way.server.asked = lambda peer: peer.transport.loseConnection()

    error = await outcome(way.send())

    assert type(error) is ConnectionBroken
    assert "closed cleanly" in str(error)


@pytest_twisted.ensureDeferred
async def test_an_answer_that_is_no_http_has_broken_the_connection(way: Way) -> None:
    """Whatever it is, it cannot be read on."""
    way.server.asked = answering(b"SSH-2.0-OpenSSH\r\n")

    assert type(await outcome(way.send())) is ConnectionBroken


@pytest_twisted.ensureDeferred
async def test_two_lengths_in_an_answer_are_none(way: Way) -> None:
    """Where it ends would be a matter of opinion."""
    way.server.asked = answering(HEAD + b"Content-Length: 4\r\n\r\n[[1]]")

    assert type(await outcome(way.send())) is ConnectionBroken


@pytest_twisted.ensureDeferred
async def test_a_closed_port_cannot_be_connected_to(way: Way) -> None:
    """Nothing was sent, and the caller knows it."""
    port = way.port.getHost().port
    await way.port.stopListening()
    way.port.getHost = lambda: type("Address", (), {"port": port})

    assert type(await outcome(way.send())) is CannotConnect


@pytest_twisted.ensureDeferred
async def test_the_pool_says_nothing_in_the_log(way: Way) -> None:
    """A connection is no news."""
    way.server.asked = answering(WHOLE)

    with capturedLogs() as logged:
        await way.send()

    assert [event for event in logged if "onnection" in str(event)] == []


@pytest_twisted.ensureDeferred
async def test_an_answer_may_come_before_all_is_asked(way: Way) -> None:
    """A server may refuse a body that it has not read, and close."""

    def refuse(peer: Peer) -> None:
        peer.transport.pauseProducing()
        if len(way.server.peers) == 1:
            refusal = b"HTTP/1.1 413 Too Large\r\nContent-Length: 0\r\n\r\n"
            peer.transport.write(refusal)

    way.server.asked = refuse

    reply = await way.send(b"x" * (16 << 20))

    assert reply.status == 413
    sent = way.send()
    await until(lambda: len(way.server.peers) == 2)
    sent.cancel()
    await outcome(sent)


@pytest_twisted.ensureDeferred
async def test_what_is_asked_arrives_whole(way: Way) -> None:
    """Also if the socket does not take it all at once."""
    body = bytes(range(256)) * (16 << 10)

    def when_whole(peer: Peer) -> None:
        if peer.received.endswith(b"\r\n\r\n" + body):
            peer.transport.write(WHOLE)

    way.server.asked = when_whole

    assert (await way.send(body)).body == b"[[1]]"
