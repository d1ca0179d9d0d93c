"""
The whole proxy and an upstream that breaks, on a network and a clock in memory.

All is as `wire` puts it together, both clients for the upstream included, but
time passes only when nothing else is left to do: a test that waits for seconds
takes none, and ends the same however busy the machine is.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from math import log2
from typing import Any

import msgspec
from attrs import define, field
from twisted.internet import error
from twisted.internet._resolver import HostResolution
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import (
    IHostnameResolver,
    IReactorPluggableNameResolver,
)
from twisted.internet.testing import StringTransportWithDisconnection
from twisted.python.failure import Failure
from twisted.web.http import OK
from zope.interface import implementer

from abproxy.settings.settings import Settings
from abproxy.wiring import wire
from bench.breakable import Breakable, Fault, Traits, messages
from bench.breakable.connection import Connection
from bench.breakable.messages import Request
from support.client import Answer, Client
from support.proxy import START, Reactor, collector_of, inference_server, paths_of
from support.upstream import AtOnce

__all__ = ["LATENCY_S", "Asked", "Network", "bound", "inputs_of", "is_ours", "network"]

LATENCY_S = 0.0001
"""How long bytes are on their way between proxy and upstream."""


@define(eq=False)
class Pipe:
    """One end of a connection: what is written arrives at the other end later."""

    reactor: "Internet"
    protocol: Any = None
    other: Any = None
    disconnecting: bool = False
    is_lost: bool = False
    disconnected: bool = False

    def write(self, data: bytes) -> None:
        """Send *data*."""
        if data and not self.disconnecting and not self.is_lost:
            self._later(self.other.arrives, bytes(data))

    def writeSequence(self, pieces: Sequence[bytes]) -> None:  # noqa: N802
        """Send *pieces*."""
        self.write(b"".join(pieces))

    def loseConnection(self) -> None:  # noqa: N802
        """Close it when all is sent."""
        self._close(error.ConnectionDone())

    def abortConnection(self) -> None:  # noqa: N802
        """Reset it."""
        self._close(error.ConnectionLost())

    def arrives(self, data: bytes) -> None:
        """Hand *data* to whoever is at this end."""
        if not self.is_lost and not self.disconnecting:
            self.protocol.dataReceived(data)

    def lose(self, reason: Exception) -> None:
        """Let the connection be no more."""
        if not self.is_lost:
            self.is_lost = self.disconnected = True
            self.protocol.connectionLost(Failure(reason))

    def _close(self, reason: Exception) -> None:
        if not self.disconnecting and not self.is_lost:
            self.disconnecting = True
            self.reactor.callLater(0, self.lose, reason)
            self._later(self.other.lose, reason)

    def _later(self, do: Callable[..., None], *arguments: Any) -> None:
        self.reactor.callLater(LATENCY_S, do, *arguments)

    def registerProducer(self, producer: Any, streaming: bool) -> None:  # noqa: FBT001, N802
        """Let *producer* write whenever it likes."""
        if not streaming:
            producer.resumeProducing()

    def unregisterProducer(self) -> None:  # noqa: N802
        """Nothing more is produced."""

    def pauseProducing(self) -> None:
        """All that is on its way arrives."""

    def resumeProducing(self) -> None:
        """It never stopped."""

    def stopProducing(self) -> None:
        """Close it."""
        self.loseConnection()

    def getPeer(self) -> IPv4Address:  # noqa: N802
        """Say who is at the other end."""
        return IPv4Address("TCP", "127.0.0.1", 1)

    getHost = getPeer  # noqa: N815


@define(eq=False)
class _Port:
    """Where somebody listens."""

    reactor: "Internet"
    number: int

    def getHost(self) -> IPv4Address:  # noqa: N802
        return IPv4Address("TCP", "127.0.0.1", self.number)

    def startReading(self) -> None:  # noqa: N802
        """Accept connections, as it does from the start."""

    def stopListening(self) -> Deferred[None]:  # noqa: N802
        self.reactor.listening.pop(self.number, None)
        return succeed(None)


@implementer(IHostnameResolver)
class _Names:
    """Every name is an address of this machine."""

    def resolveHostName(  # noqa: N802
        self,
        receiver: Any,
        name: str,
        portNumber: int = 0,  # noqa: N803
        **_: Any,
    ) -> Any:
        resolution = HostResolution(name)
        receiver.resolutionBegan(resolution)
        receiver.addressResolved(IPv4Address("TCP", "127.0.0.1", portNumber))
        receiver.resolutionComplete()
        return resolution


@implementer(IReactorPluggableNameResolver)
class Internet(Reactor):
    """A reactor whose connections lead to those who listen on it."""

    def __init__(self) -> None:
        super().__init__()
        self.nameResolver = _Names()
        self.listening: dict[int, Any] = {}

    def listenTCP(  # noqa: N802
        self, port: int, factory: Any, *_: Any, **__: Any
    ) -> _Port:
        """Listen on a *port*."""
        number = port or 8080
        self.listening[number] = factory
        return _Port(self, number)

    def connectTCP(  # noqa: N802
        self, _host: str, port: int, factory: Any, *_: Any, **__: Any
    ) -> Any:
        """Connect to whoever listens on *port*."""
        factory.doStart()
        self.callLater(LATENCY_S, self._connect, port, factory)
        return self

    def stopConnecting(self) -> None:  # noqa: N802
        """Connections are made or refused, whoever still wants them."""

    disconnect = stopConnecting

    def installNameResolver(self, resolver: Any) -> Any:  # noqa: N802
        """Names are what they are."""
        raise NotImplementedError

    def _connect(self, port: int, factory: Any) -> None:
        server = self.listening.get(port)
        if server is None:
            factory.clientConnectionFailed(
                self, Failure(error.ConnectionRefusedError())
            )
            return
        here, there = Pipe(self), Pipe(self)
        here.other, there.other = there, here
        here.protocol = factory.buildProtocol(here.getPeer())
        there.protocol = server.buildProtocol(there.getPeer())
        there.protocol.makeConnection(there)
        if here.protocol is None:
            here.abortConnection()
        else:
            here.protocol.makeConnection(here)


@define(kw_only=True, eq=False)
class Upstream(Breakable):
    """A server that breaks, and remembers each inference request."""

    requests: list[Request] = field(factory=list)
    statuses: list[int] = field(factory=list)
    """What they were answered with, in the order of the answers."""

    def _answer(
        self,
        connection: Connection,
        answer: messages.Answer,
        fault: Fault | None,
    ) -> None:
        self.statuses.append(answer.status)
        super()._answer(connection, answer, fault)

    def forget(self) -> None:
        """Remember nothing of what was asked before."""
        self.requests.clear()
        self.statuses.clear()

    def asked(self, connection: Connection, request: Request) -> None:
        """Answer *request*, and keep it."""
        is_call = request.method == b"POST" and not request.path.startswith(b"/-/")
        # A call of nothing is how the proxy asks whether there is such a route.
        if is_call and request.body != b"{}":
            self.requests.append(request)
        super().asked(connection, request)

    @property
    def inputs(self) -> list[list[Any]]:
        """The inputs of each inference request."""
        return [inputs_of(request.body) for request in self.requests]


def inputs_of(body: bytes) -> list[Any]:
    """Return what a request asks for."""
    asked = msgspec.json.decode(body)
    found = asked.get("inputs", asked.get("input", asked.get("texts")))
    return found if isinstance(found, list) else [found]


@define(eq=False)
class Asked:
    """One call, and when it was answered."""

    client: Client
    network: "Network"
    answered_at: float | None = None

    @property
    def is_answered(self) -> bool:
        """Whether something has come back."""
        return bool(self.client.transport.value())

    @property
    def answer(self) -> Answer:
        """The only answer."""
        [answer] = self.client.answers()
        return answer

    @property
    def told(self) -> tuple[int, bytes]:
        """Status and body of the answer."""
        return self.answer.status, self.answer.body


def is_ours(told: tuple[int, bytes]) -> bool:
    """Return whether this is what a caller hears of a lane that is out."""
    status, body = told
    if status == 429:
        return b"Overloaded" in body
    return status == 502 and b"together with others (status " in body


def rows_in(told: tuple[int, bytes]) -> tuple[int, bytes]:
    """Return what a caller got without its usage, which is a share if it was shared."""
    status, body = told
    return (status, body.partition(b',"usage"')[0]) if status == OK else told


def bound(calls: int, bad: int) -> int:
    """Return how many requests a shared one of *calls* may become."""
    if calls == 1:
        return 1
    return 1 + min(2 * calls, int(bad * (2 * log2(calls) + 2)))


@define(kw_only=True, eq=False)
class Network:
    """Clients, the proxy and the upstream."""

    reactor: Internet
    service: Any
    upstream: Upstream
    clients: list[Client] = field(factory=list)

    def connect(self) -> Client:
        """Open a connection to the proxy."""
        return self._client(self.service.site.buildProtocol(None))

    def _client(self, channel: Any) -> Client:
        transport = StringTransportWithDisconnection()
        transport.protocol = channel
        channel.makeConnection(transport)
        client = Client(transport, channel, self.reactor)
        self.clients.append(client)
        return client

    def post(
        self,
        body: Any,
        *headers: tuple[str, str],
        path: str = "/embed",
        client: Client | None = None,
    ) -> Asked:
        """Send a call; its answer is there after `settle`."""
        client = client or self.connect()
        client.transport.clear()
        client.embed(msgspec.json.encode(body), *headers, path=path)
        return Asked(client, self)

    def alone(
        self, body: Any, *headers: tuple[str, str], path: str = "/embed"
    ) -> tuple[int, bytes]:
        """Return what the upstream itself answers to a call, on a server at rest."""
        direct = Upstream(reactor=self.reactor, traits=self.upstream.traits)
        direct.refusals = list(self.upstream.refusals)
        client = self._client(Connection(direct))
        lines = ("Accept", "*/*"), ("User-Agent", "test")
        client.embed(msgspec.json.encode(body), *lines, *headers, path=path)
        self.until(client.transport.value)
        [answer] = client.answers()
        self.clients.remove(client)
        client.leave()
        return answer.status, answer.body

    def until(self, happened: Callable[[], Any], within_s: float = 600) -> None:
        """Let time pass until something has *happened*."""
        ends_at = self.reactor.seconds() + within_s
        while not happened():
            calls = self.reactor.getDelayedCalls()
            assert calls, "nothing will ever happen"
            at = min(call.getTime() for call in calls)
            assert at <= ends_at, "it did not happen in time"
            self.reactor.advance(max(0.0, at - self.reactor.seconds()))

    def settle(self, *asked: Asked, within_s: float = 600) -> list[tuple[int, bytes]]:
        """Let time pass until all who *asked* are answered; return what they got."""

        def all_are() -> bool:
            for each in asked:
                if each.is_answered and each.answered_at is None:
                    each.answered_at = self.reactor.seconds()
            return all(each.is_answered for each in asked)

        self.until(all_are, within_s)
        return [each.told for each in asked]

    def pass_(self, seconds: float) -> None:
        """Let time pass, whatever happens."""
        ends_at = self.reactor.seconds() + seconds
        timer = self.reactor.callLater(seconds, lambda: None)
        self.until(lambda: self.reactor.seconds() >= ends_at, seconds + 1)
        assert not timer.active()

    def page(self, path: str) -> Any:
        """Read a page of ours that is JSON."""
        client = self.connect()
        client.ask("GET", path)
        return client.answers("GET")[0].json


@contextmanager
def network(
    traits: Traits | None = None,
    *,
    mood: str | None = None,
    client: str = "fast",
    **settings: Any,
) -> Iterator[Network]:
    """
    Put the proxy up in front of an upstream.

    Args:
        traits: what the upstream is like.
        mood: what else it is like, by name.
        client: the proxy's client for it, fast or treq.
        settings: what the operator chose.
    """
    reactor = Internet()
    reactor.advance(START)
    upstream = Upstream(reactor=reactor, traits=traits or Traits())
    if mood is not None:
        upstream.be(mood)
    upstream.start()
    values = {
        "port": "0",
        "dedupe": False,
        "upstream_url": upstream.url,
        "fast_paths": paths_of(client),
        **settings,
    }
    service: Any = wire(Settings(**values), reactor)
    if client == "treq":
        inference_server(
            service
        ).transport.__self__.http._data_to_body_producer = AtOnce
    here = Network(reactor=reactor, service=service, upstream=upstream)
    discovery = inference_server(service).discovery
    discovery.start()
    here.until(lambda: discovery._asking is None)
    try:
        yield here
    finally:
        discovery.stop()
        for each in here.clients:
            each.leave()
        collector_of(service).stop()
        inference_server(service).close_idle()
        upstream.cut_all()
        service.public.listener.socket.close()
