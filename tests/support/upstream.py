"""Upstreams in memory that do what a test says."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any
from zlib import crc32

import msgspec
from attrs import define, field
from twisted.internet.defer import (
    Deferred,
    maybeDeferred,
    succeed,
)
from twisted.internet.endpoints import (
    TCP4ServerEndpoint,
)
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.web.iweb import IBodyProducer
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request
from zope.interface import implementer

from abproxy.http.headers import Credentials
from abproxy.http.messages import Response, UpstreamRequest
from abproxy.upstream.agent import ExactPathAgent
from abproxy.upstream.client import Transport, Upstream
from abproxy.upstream.connections import make_pool
from abproxy.upstream.fast.connection import ConnectionPool
from bench.breakable import Breakable, Traits
from support.client import LOCALHOST, the_reactor, until


def row_of(item: Any) -> list[int]:
    """Return what the upstream answers for *item*."""
    return [crc32(msgspec.json.encode(item))]


def reply(status: int, body: bytes, *headers: tuple[bytes, bytes]) -> Response:
    """Make an upstream's reply."""
    return Response(status=status, reason=b"", headers=headers, body=body)


@define(eq=False)
class Sent:
    """One request that has reached the upstream."""

    request: UpstreamRequest
    done: Deferred[Response]
    was_cancelled: bool = False

    @property
    def inputs(self) -> list[Any]:
        """The items in the request."""
        found = msgspec.json.decode(self.request.body)["inputs"]
        return found if isinstance(found, list) else [found]

    def answer(self) -> None:
        """Answer with the right rows."""
        rows = [row_of(item) for item in self.inputs]
        self.done.callback(reply(200, msgspec.json.encode(rows)))

    def refuse(self, status: int = 422, body: bytes = b"no") -> None:
        """Answer with an error."""
        self.done.callback(reply(status, body))

    def fail(self, error: Exception) -> None:
        """Give no answer."""
        self.done.errback(Failure(error))


@define(eq=False)
class RecordingUpstream:
    """Keeps what was sent; the test decides when and how it is answered."""

    sent: list[Sent] = field(factory=list)

    def send(self, request: UpstreamRequest) -> Deferred[Response]:
        """Keep one request."""
        sent = Sent(request, Deferred(lambda _: self._cancelled(sent)))
        self.sent.append(sent)
        return sent.done

    def _cancelled(self, sent: Sent) -> None:
        sent.was_cancelled = True

    @property
    def open(self) -> list[Sent]:
        """The requests without an answer."""
        return [sent for sent in self.sent if not sent.done.called]

    @property
    def batches(self) -> list[list[Any]]:
        """The inputs of every request so far."""
        return [sent.inputs for sent in self.sent]


class OpenUpstream(Resource):
    """An upstream that accepts any key, and keeps what it was shown."""

    isLeaf = True

    def __init__(self) -> None:
        super().__init__()
        self.shown: list[str | None] = []
        self.hosts: list[str | None] = []

    def render(self, request: Request) -> bytes:
        """Answer anything."""
        self.shown.append(request.getHeader("Authorization"))
        self.hosts.append(request.getHeader("Host"))
        return b"[[1]]"


class Saying(Resource):
    """Gives every request the same answer."""

    isLeaf = True

    def __init__(self, body: bytes) -> None:
        """Remember what to say."""
        super().__init__()
        self.body = body

    def render(self, request: Request) -> bytes:  # noqa: ARG002
        """Say it."""
        return self.body


@define(eq=False, slots=False)
class HeldUpstream(Resource):
    """An upstream that keeps its requests until the test answers them."""

    isLeaf = True
    requests: list[Request] = field(factory=list)
    bodies: list[bytes] = field(factory=list)

    def __attrs_post_init__(self) -> None:
        super().__init__()

    def render(self, request: Request) -> int:
        """Take in a request."""
        self.requests.append(request)
        self.bodies.append(request.content.read())
        return NOT_DONE_YET

    def answer(self, at: int, body: bytes, status: int = 200) -> None:
        """Answer one request."""
        self.requests[at].setResponseCode(status)
        self.requests[at].setHeader(b"Content-Length", b"%d" % len(body))
        self.requests[at].write(body)
        self.requests[at].finish()


def make_upstream(
    transport: Transport, clock: Clock | None = None, **traits: Any
) -> Upstream:
    """Make an upstream with a deadline of 7 seconds, that *transport* leads to."""
    clock = clock or Clock()
    agent_pool = traits.pop("agent_pool", None) or make_pool(clock, 4)
    about = {
        "base_url": "http://upstream",
        "credentials": Credentials(),
        "timeout_s": 7,
        "pool": ConnectionPool(clock, 4),
        "agent": ExactPathAgent(clock, pool=agent_pool),
        **traits,
    }
    return Upstream(transport=transport, clock=clock, agent_pool=agent_pool, **about)


@implementer(IBodyProducer)
@define(eq=False)
class AtOnce:
    """A body that is written in one go."""

    data: bytes

    @property
    def length(self) -> int:
        return len(self.data)

    def startProducing(self, consumer: Any) -> Deferred[None]:
        consumer.write(self.data)
        return succeed(None)

    def pauseProducing(self) -> None: ...
    def resumeProducing(self) -> None: ...
    def stopProducing(self) -> None: ...


@asynccontextmanager
async def breakable(traits: Traits) -> AsyncIterator[Breakable]:
    """Start an upstream that breaks on demand."""
    upstream = Breakable(reactor=the_reactor(), traits=traits)
    upstream.start()
    try:
        yield upstream
    finally:
        await upstream.stop()
        await until(lambda: not upstream.connections)


@define(eq=False)
class Peer(Protocol):
    """The server's end of one connection."""

    server: "ByteServer"
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
class ByteServer(Factory):
    """An upstream that does with each request what the test says."""

    noisy = False
    asked: Callable[[Peer], None] = lambda _: None
    peers: list[Peer] = field(factory=list)
    """Connections on which something was asked."""

    port: Any = None
    """Where it listens, if it was started."""

    connections: int = 0
    """All that there ever were."""

    def buildProtocol(self, addr: Any) -> Peer:  # noqa: N802
        del addr
        self.connections += 1
        return Peer(self)

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"http://{LOCALHOST}:{self.port.getHost().port}"

    async def start(self) -> None:
        """Listen on a free port."""
        endpoint = TCP4ServerEndpoint(the_reactor(), 0, interface=LOCALHOST)
        self.port = await endpoint.listen(self)

    async def stop(self) -> None:
        """Close the port and all connections."""
        await maybeDeferred(self.port.stopListening)
        for peer in self.peers:
            peer.transport.abortConnection()
            await peer.lost


def answering(data: bytes) -> Callable[[Peer], None]:
    """Answer each request with *data*."""
    return lambda peer: peer.transport.write(data)
