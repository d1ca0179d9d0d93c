"""How the house is put together: who speaks to the upstream."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from attrs import frozen
from twisted.internet.error import ConnectionDone
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from wired import Reactor

from abproxy.messages import Outgoing
from abproxy.settings import Settings
from abproxy.upstream.fast.connection import Connections
from abproxy.wiring import wire
from abproxy.writing import write_at_once, write_later

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]"
QUESTION = Outgoing(method=b"GET", path=b"/info", headers=(), body=b"")


@frozen
class House:
    """A house that nobody has started."""

    reactor: Reactor
    service: Any

    def connect(self) -> Any:
        """Let it ask the upstream; tell who makes the connection."""
        self.service.discovery.send(QUESTION).addErrback(lambda _: None)
        [(_, _, factory, *_)] = self.reactor.tcpClients
        return factory


@contextmanager
def house(url: str = "http://upstream", **settings: Any) -> Iterator[House]:
    """Put a house together."""
    reactor = Reactor()
    service: Any = wire(Settings(port="0", upstream_url=url, **settings), reactor)
    yield House(reactor, service)
    service.gate.listener.socket.close()


def _is_ours(factory: Any) -> bool:
    """Look behind what an endpoint puts around a factory."""
    return isinstance(factory._wrappedFactory, Connections)


def test_a_client_of_our_own_speaks_to_the_upstream() -> None:
    """Unless somebody wants it otherwise."""
    with house() as here:
        assert _is_ours(here.connect())


def test_treq_speaks_to_the_upstream_if_it_is_wanted() -> None:
    """For whoever does not trust ours."""
    with house(upstream_client="treq") as here:
        assert not _is_ours(here.connect())


def test_treq_speaks_to_an_upstream_with_tls() -> None:
    """Ours knows nothing of it, and sends nothing in the clear."""
    with house("https://upstream") as here:
        assert not _is_ours(here.connect())


@pytest.mark.parametrize("client", ["fast", "treq"])
def test_connecting_may_take_as_long_as_it_may(client: str) -> None:
    """Whoever connects."""
    with house(upstream_client=client, connect_timeout_s=3.0) as here:
        here.connect()

        [(_, port, _, timeout_s, _)] = here.reactor.tcpClients
        assert (port, timeout_s) == (80, 3.0)


@pytest.mark.parametrize(
    ("at_once", "write"), [(True, write_at_once), (False, write_later)]
)
def test_batches_are_written_as_answers_are(
    write: Callable[..., None], *, at_once: bool
) -> None:
    """One setting decides for both."""
    with house(write_at_once=at_once) as here:
        connections = here.connect()._wrappedFactory

        assert connections.write is write


@pytest.mark.parametrize("client", ["fast", "treq"])
def test_when_a_connection_broke_idle_ones_are_closed(client: str) -> None:
    """Whoever tries again would use up its tries on one after the other."""
    with house(upstream_client=client) as here:
        idle = StringTransport()
        one = here.connect().buildProtocol(None)
        here.reactor.tcpClients.clear()
        other = here.connect().buildProtocol(None)
        one.makeConnection(idle)
        one.dataReceived(ANSWER)
        other.makeConnection(StringTransport())
        kept = not idle.disconnecting

        other.dataReceived(b"HTTP/1.1 200")
        other.connectionLost(Failure(ConnectionDone()))

        assert (kept, idle.disconnecting) == (True, True)


@pytest.mark.parametrize("client", ["fast", "treq"])
def test_idle_connections_are_closed_at_the_end(client: str) -> None:
    """Whoever has kept them; and no timer is left."""
    with house(upstream_client=client) as here:
        end, protocol = StringTransport(), here.connect().buildProtocol(None)
        protocol.makeConnection(end)
        protocol.dataReceived(ANSWER)
        kept = not end.disconnecting
        closed: list[Any] = []

        here.service.close_idle().addCallback(closed.append)
        told, early = end.disconnecting, list(closed)
        protocol.connectionLost(Failure(ConnectionDone()))

        assert (kept, told, early) == (True, True, [])
        assert len(closed) == 1
        assert not here.reactor.getDelayedCalls()
