"""
One connection to the upstream: one question, one answer, then the next.

What comes unasked, or after an answer, is nobody's: the connection is closed
rather than that one caller could get the answer of another.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Any

from attrs import define, field
from twisted.internet.abstract import isIPv6Address
from twisted.internet.defer import CancelledError, Deferred, gatherResults
from twisted.internet.interfaces import IDelayedCall, IReactorTime, ITCPTransport
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from twisted.web._newclient import Request
from twisted.web.client import URI

from abproxy.http.headers import as_headers, each_line, write_lines
from abproxy.http.messages import HeaderList, Response, UpstreamRequest
from abproxy.tuning import Write, has_unsent
from abproxy.upstream.agent import IDLE_S, target_of
from abproxy.upstream.fast.response import PlainResponse, TwistedResponse, begin_plain

__all__ = [
    "Connection",
    "ConnectionPool",
    "Connections",
    "Exchange",
    "RequestWriter",
    "uri_of",
]


@define(eq=False)
class Exchange:
    """One question and its answer."""

    method: bytes

    question: bytes = field(repr=False)
    """Head and body, as they are written."""

    stop: Callable[[], object] = field(init=False, repr=False)
    """Called to stop what is being done for it."""

    again: "Callable[[Exchange], object] | None" = field(default=None, repr=False)
    """Sends it once more, if that is right when no byte of an answer has come."""

    _done: Deferred[Response] | None = field(init=False, default=None, repr=False)

    def promise(self) -> Deferred[Response]:
        """
        Promise the answer; whoever cancels that gives up.

        Once kept, the promise is let go: two that hold on to each other, and to a
        question of some megabytes, would wait for the garbage collector.
        """
        self._done = Deferred(self._give_up)
        return self._done

    def tell(self, outcome: Response | Failure) -> None:
        """Tell what has become of it, unless nobody waits any more."""
        done, self._done = self._done, None
        if done is not None:
            done.callback(outcome)

    def fail(self, error: Exception) -> None:
        """Tell of an *error*."""
        self.tell(Failure(error))

    def unheard(self, error: Exception) -> None:
        """Send it again, or tell of the *error* that came in place of an answer."""
        again, self.again = self.again, None
        if again is None:
            self.fail(error)
        else:
            again(self)

    def _give_up(self, _done: Deferred[Response]) -> None:
        self.fail(CancelledError())
        self.stop()


HEADS = 256
"""
How many heads are remembered.

They differ by route and by the credentials of clients, and a client alone in
its batch may have lines of its own.
"""

HTTP_PORT = 80
ANNOUNCING = frozenset({b"POST", b"PUT"})
"""Methods that say how long their body is even if there is none."""


def uri_of(url: str) -> URI:
    """
    Take *url* apart, to the letter.

    treq would also write what should not stand in a URL in another way, and
    refuse host names that DNS does not know, like those with an underscore.
    """
    uri: URI = URI.fromBytes(url.encode("ascii"))
    return uri


def _host_line(uri: URI) -> bytes:
    host: bytes = uri.host
    if isIPv6Address(host.decode("ascii")):
        host = b"[%b]" % host
    return host if uri.port == HTTP_PORT else b"%b:%d" % (host, uri.port)


@define(eq=False)
class RequestWriter:
    """Writes requests to one server."""

    base_url: str
    _head: Callable[[bytes, bytes, HeaderList], tuple[bytes, bytes]] = field(
        init=False, repr=False
    )

    def __attrs_post_init__(self) -> None:
        """Begin without any memory."""
        self._head = lru_cache(HEADS)(self._write_head)

    def write(self, request: UpstreamRequest) -> bytes:
        """
        Write head and body of *request*.

        Raises:
            ValueError: it cannot be written as HTTP.
        """
        body, method = request.body, request.method
        start, end = self._head(method, request.path, request.headers)
        if body or method in ANNOUNCING:
            return b"%bContent-Length: %d\r\n%b%b" % (start, len(body), end, body)
        return start + end

    def _write_head(
        self, method: bytes, path: bytes, lines: HeaderList
    ) -> tuple[bytes, bytes]:
        """Write what is before and after the line with the length."""
        url = self.base_url + path.decode("ascii")
        uri = uri_of(url)
        headers = as_headers(lines)
        # What was packed would have to be unpacked.
        headers.removeHeader(b"Accept-Encoding")
        if not headers.hasHeader(b"Host"):
            headers.addRawHeader(b"Host", _host_line(uri))
        target = target_of(url.encode("ascii"))
        Request(method, target, headers, None)  # raises what there is to raise
        written = write_lines(each_line(headers.getAllRawHeaders()))
        return b"%b %b HTTP/1.1\r\n" % (method, target), written + b"\r\n"


@define(eq=False)
class ConnectionPool:
    """The idle connections to one server."""

    clock: IReactorTime = field(repr=False)

    most: int
    """How many are kept."""

    _since: dict["Connection", float] = field(init=False, factory=dict, repr=False)
    """Since when each of them is idle, in that order; the clock's seconds."""

    _timer: IDelayedCall | None = field(init=False, default=None, repr=False)

    def put(self, connection: "Connection") -> None:
        """Keep *connection*, in the place of the oldest if there are too many."""
        self._since[connection] = self.clock.seconds()
        if len(self._since) > self.most:
            self._close(next(iter(self._since)))
        if self._timer is None:
            self._timer = self.clock.callLater(IDLE_S, self._look)

    def take(self) -> "Connection | None":
        """Give away the one that was put here last, if there is one."""
        return self._since.popitem()[0] if self._since else None

    def remove(self, connection: "Connection") -> None:
        """Forget *connection*, if it is here: it is closed."""
        self._since.pop(connection, None)

    def close(self) -> Deferred[None]:
        """Close them all; fires when they are closed."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        closed = gatherResults([self._close(each) for each in list(self._since)])
        return closed.addCallback(lambda _: None)

    def _close(self, connection: "Connection") -> Deferred[None]:
        self.remove(connection)
        return connection.leave()

    def _look(self) -> None:
        self._timer = None
        now = self.clock.seconds()
        for connection, since in list(self._since.items()):
            if since + IDLE_S > now:
                self._timer = self.clock.callLater(since + IDLE_S - now, self._look)
                break
            self._close(connection)


@define(eq=False)
class Connection(Protocol):
    """One connection."""

    idle: ConnectionPool = field(repr=False)
    write: Write = field(repr=False)
    max_bytes: int

    transport: Any = field(init=False, default=None)
    _exchange: Exchange | None = field(init=False, default=None)
    _answer: PlainResponse | TwistedResponse | None = field(init=False, default=None)
    _closed: Deferred[None] = field(init=False, factory=Deferred, repr=False)

    def connectionMade(self) -> None:
        """Let nothing be held back: a question is written whole."""
        if ITCPTransport.providedBy(self.transport):
            self.transport.setTcpNoDelay(True)

    def ask(self, exchange: Exchange) -> None:
        """Send the question of *exchange*, which gets the answer."""
        self._exchange = exchange
        exchange.stop = self._give_up
        self.write(self.transport, exchange.question)

    def leave(self) -> Deferred[None]:
        """Close the connection; fires when it is closed."""
        self.transport.loseConnection()
        return self._closed

    def dataReceived(self, data: bytes) -> None:
        """Take in a piece of an answer."""
        exchange = self._exchange
        if exchange is None:
            self._give_up()
            return
        try:
            answer = self._answer or self._begin(exchange, data)
            reply = answer.receive(data)
        except Exception as error:  # noqa: BLE001  whoever asked is told
            self._give_up()
            exchange.fail(error)
            return
        if reply is not None:
            self._be_free(may_be_followed=answer.may_be_followed)
            exchange.tell(reply)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Take in that the connection is closed, which may be an answer's end."""
        exchange, answer = self._exchange, self._answer
        self._forget()
        self._closed.callback(None)
        if exchange is None:
            return
        error: Any = reason.value
        if answer is None:
            exchange.unheard(error)
            return
        try:
            reply = answer.end(error)
        except Exception as told:  # noqa: BLE001  whoever asked is told
            exchange.fail(told)
        else:
            exchange.tell(reply)

    def _begin(
        self, exchange: Exchange, data: bytes
    ) -> PlainResponse | TwistedResponse:
        plain = None
        if exchange.method != b"HEAD":
            plain = begin_plain(data, self.max_bytes)
        self._answer = plain or TwistedResponse(exchange.method, self.max_bytes)
        return self._answer

    def _be_free(self, *, may_be_followed: bool) -> None:
        # Before the answer is told: what follows from it may be the next question.
        self._exchange = self._answer = None
        if has_unsent(self.transport):
            self.transport.abortConnection()
        elif may_be_followed:
            self.idle.put(self)
        else:
            self.transport.loseConnection()

    def _give_up(self) -> None:
        self._forget()
        self.transport.abortConnection()

    def _forget(self) -> None:
        self.idle.remove(self)
        self._exchange = self._answer = None


@define(eq=False)
class Connections(Factory):
    """Makes connections, which are no news for the log."""

    noisy = False
    idle: ConnectionPool
    write: Write
    max_bytes: int

    def buildProtocol(self, addr: Any) -> Connection:  # noqa: ARG002, N802
        """Make one."""
        return Connection(self.idle, self.write, self.max_bytes)
