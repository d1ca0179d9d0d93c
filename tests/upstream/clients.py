"""
Both clients for the upstream, on connections in memory.

The test is the other end: it reads what was asked and says what is answered,
in what pieces, and when the connection ends.
"""

from collections.abc import Callable, Sequence
from typing import Any

from attrs import define, field
from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.web.client import URI
from twisted.web.iweb import IAgentEndpointFactory
from zope.interface import implementer

from abproxy.http.messages import Response, UpstreamRequest
from abproxy.upstream.agent import ExactPathAgent
from abproxy.upstream.connections import make_pool
from abproxy.upstream.fast.client import FastClient
from abproxy.upstream.fast.connection import ConnectionPool
from abproxy.upstream.treq_client import TreqClient, make_treq
from support.upstream import AtOnce, make_upstream


class End(StringTransport):
    """The server's end of a connection."""

    protocol: Any = None
    is_lost: bool = False

    @property
    def is_given_up(self) -> bool:
        """Whether the client wants to close it."""
        return bool(self.disconnecting)

    def abortConnection(self) -> None:  # noqa: N802
        """Close it later, as sockets do."""
        self.disconnecting = True

    def answer(self, *pieces: bytes) -> None:
        """Send *pieces* as long as the client takes them."""
        for piece in filter(None, pieces):
            if not self.disconnecting:
                self.protocol.dataReceived(piece)

    def lose(self, error: Exception | None = None) -> None:
        """Let the connection end."""
        if not self.is_lost:
            self.is_lost = True
            self.protocol.connectionLost(Failure(error or ConnectionDone()))

    def asked(self) -> bytes:
        """Take what was asked since."""
        written: bytes = self.value()
        self.clear()
        return written


@implementer(IStreamClientEndpoint, IAgentEndpointFactory)
@define(eq=False)
class Ends:
    """Where connections lead to."""

    all: list[End] = field(factory=list)
    connected: Deferred[None] = field(factory=lambda: succeed(None))
    """The next connection is made when this fires."""

    def endpointForURI(self, uri: URI) -> "Ends":  # noqa: ARG002, N802
        """All URLs lead here."""
        return self

    def connect(self, factory: Any) -> Deferred[Any]:
        """Make a connection."""
        return self.connected.addCallback(lambda _: self._make(factory))

    def _make(self, factory: Any) -> Any:
        end = End()
        end.protocol = factory.buildProtocol(None)
        end.protocol.makeConnection(end)
        self.all.append(end)
        self.connected = succeed(None)
        return end.protocol

    @property
    def last(self) -> End:
        """The connection that was made last."""
        return self.all[-1]


@define(eq=False)
class Client:
    """A client, its clock, and the other ends of its connections."""

    ends: Ends
    clock: Clock
    upstream: Any
    close: Callable[[], Deferred[Any]]

    def send(self, request: UpstreamRequest | None = None) -> "Asked":
        """Send something."""
        return Asked(self.upstream.send(request or question()))


@define(eq=False)
class Asked:
    """What becomes of one request."""

    reply: Deferred[Response]
    results: list[Any] = field(factory=list)

    def __attrs_post_init__(self) -> None:
        self.reply.addBoth(self.results.append)

    @property
    def told(self) -> Any:
        """The reply, or the error's class and words; None as long as it is open."""
        if not self.results:
            return None
        [result] = self.results
        if isinstance(result, Failure):
            return result.type, str(result.value)
        return result

    @property
    def error(self) -> BaseException:
        """The only result, which is a failure."""
        [failure] = self.results
        assert isinstance(failure, Failure), failure
        return failure.value


def question(
    *headers: tuple[bytes, bytes],
    method: bytes = b"POST",
    path: bytes = b"/embed",
    body: bytes = b"{}",
) -> UpstreamRequest:
    """Make a request."""
    return UpstreamRequest(method=method, path=path, headers=headers, body=body)


def fast(base_url: str = "http://upstream", size: int = 1000, most: int = 4) -> Client:
    """Make a client of our own."""
    clock, ends = Clock(), Ends()
    pool = ConnectionPool(clock, most)
    client = FastClient(
        base_url=base_url, endpoint=ends, pool=pool, max_answer_bytes=size
    )
    upstream = make_upstream(client.send, clock, base_url=base_url, pool=pool)
    return Client(ends, clock, upstream, pool.close)


def treq(base_url: str = "http://upstream", size: int = 1000, most: int = 4) -> Client:
    """Make one with treq."""
    clock, ends = Clock(), Ends()
    pool = make_pool(clock, most)
    agent = ExactPathAgent.usingEndpointFactory(clock, ends, pool)
    http: Any = make_treq(agent)
    http._data_to_body_producer = AtOnce
    of_fast = ConnectionPool(clock, most)
    client = TreqClient(
        http=http,
        base_url=base_url,
        max_answer_bytes=size,
        generations=of_fast.generations,
    )
    upstream = make_upstream(
        client.send,
        clock,
        base_url=base_url,
        pool=of_fast,
        agent=agent,
        agent_pool=pool,
    )
    return Client(ends, clock, upstream, pool.closeCachedConnections)


CLIENTS = {"fast": fast, "treq": treq}


def ask(
    client: Client,
    pieces: Sequence[bytes],
    request: UpstreamRequest | None = None,
    *,
    ends: bool = False,
) -> Any:
    """Ask, answer in *pieces*, end the connection if it *ends*, and tell."""
    asked = client.send(request)
    end = client.ends.last
    end.answer(*pieces)
    if ends or end.is_given_up:
        end.lose()
    told = asked.told
    asked.reply.cancel()
    return told
