"""Both ends of real connections, on which the tests read and write plain bytes."""

from collections.abc import Callable
from typing import Any

from attrs import define, field
from twisted.internet import reactor, task
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.endpoints import (
    TCP4ClientEndpoint,
    TCP4ServerEndpoint,
    connectProtocol,
)
from twisted.internet.protocol import Factory, Protocol

from abproxy.settings import Settings
from abproxy.wiring import wire


@define(eq=False)
class Peer(Protocol):
    """The server's end of one connection."""

    server: "Server"
    received: bytes = b""
    lost: Deferred[None] = field(factory=Deferred)

    def dataReceived(self, data: bytes) -> None:
        if data.startswith(b"GET /info "):
            # The proxy wants to know with whom it speaks: not part of any test.
            self.transport.loseConnection()
            return
        if self not in self.server.peers:
            self.server.peers.append(self)
        self.received += data
        self.server.asked(self)

    def connectionLost(self, reason: Any = None) -> None:
        del reason
        self.lost.callback(None)


@define(eq=False, slots=False)
class Server(Factory):
    """A server that does with each request what the test says."""

    noisy = False
    asked: Callable[[Peer], None] = lambda _: None
    peers: list[Peer] = field(factory=list)
    """Connections on which something was asked."""

    connections: int = 0
    """All that there ever were."""

    def buildProtocol(self, addr: Any) -> Peer:  # noqa: N802
        del addr
        self.connections += 1
        return Peer(self)


def answering(data: bytes) -> Callable[[Peer], None]:
    """Answer each request with *data*."""
    return lambda peer: peer.transport.write(data)


@define(eq=False)
class Client(Protocol):
    """One connection to the door."""

    received: bytes = b""
    lost: Deferred[None] = field(factory=Deferred)

    def send(self, data: bytes) -> None:
        self.transport.write(data)

    def dataReceived(self, data: bytes) -> None:
        self.received += data

    def connectionLost(self, reason: Any = None) -> None:
        del reason
        self.lost.callback(None)

    async def until(self, end: bytes) -> bytes:
        """Wait until what came ends like this."""
        while not self.received.endswith(end):
            await turn()
        return self.received


@define(eq=False)
class Street:
    """A server, the proxy in front of it, and clients, all on real sockets."""

    server: Server
    port: Any
    proxy: Any
    clients: list[Client] = field(factory=list)

    async def client(self) -> Client:
        """Connect to the proxy."""
        number = self.proxy._port.getHost().port
        endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", number)
        client = await connectProtocol(endpoint, Client())
        self.clients.append(client)
        return client

    async def close(self) -> None:
        """Leave nothing open."""
        for end in (*self.clients, *self.server.peers):
            end.transport.abortConnection()
            await end.lost
        await self.proxy.stopService()
        await maybeDeferred(self.port.stopListening)


async def street(**settings: Any) -> Street:
    """Start a server that a test speaks for, and a proxy in front of it."""
    server = Server()
    port = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(server)
    url = f"http://127.0.0.1:{port.getHost().port}"
    proxy: Any = wire(Settings(port="0", upstream_url=url, **settings), reactor)
    proxy.startService()
    while proxy._port is None:
        await turn()
    return Street(server, port, proxy)


def turn() -> Deferred[None]:
    """Let the sockets have a turn."""
    return task.deferLater(reactor, 0.02)
