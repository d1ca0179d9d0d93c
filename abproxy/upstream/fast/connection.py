"""
Connections to the upstream: one request, one response, then the next.

What comes before a request, or after a response, closes the connection, so that
no caller can get the response of another.
"""

from collections.abc import Callable
from typing import Any

from attrs import define, field
from msgspec import Struct
from msgspec.structs import force_setattr
from twisted.internet.defer import CancelledError, Deferred, gatherResults
from twisted.internet.interfaces import (
    IDelayedCall,
    IHandshakeListener,
    IReactorTime,
    ISSLTransport,
    ITCPTransport,
)
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from abproxy.http.messages import Response
from abproxy.tuning import Write, has_unsent
from abproxy.upstream.connections import IDLE_S, IdleLimit, why_lost
from abproxy.upstream.fast.response import (
    PlainResponse,
    TwistedResponse,
    begin_response,
)
from abproxy.upstream.identity import Generations, Source

__all__ = [
    "Connection",
    "ConnectionPool",
    "Connections",
    "Exchange",
]


class Exchange(Struct, eq=False):
    """A request on its way, and who waits for the response."""

    method: bytes

    written: bytes
    """Head and body, as they are sent."""

    waiter: Deferred[Response] | None = None

    stop: Callable[[], object] = lambda: None
    """Called to stop what is being done for it."""

    again: "Callable[[Exchange], object] | None" = None
    """Sends it once more, if that is right when no byte of a response has come."""

    def __repr__(self) -> str:
        """Return its method, and nothing of what is in it."""
        return f"Exchange({self.method!r})"

    def tell(self, outcome: Response | Failure) -> None:
        """Fire the waiter with the *outcome*, if it was not cancelled."""
        # Let go at once: two that hold on to each other, and to a request of some
        # megabytes, would wait for the garbage collector.
        waiter, self.waiter = self.waiter, None
        if waiter is not None:
            waiter.callback(outcome)

    def fail(self, error: Exception) -> None:
        """Fire the waiter with an *error*."""
        self.tell(Failure(error))

    def not_answered(self, error: Exception) -> None:
        """Send it again, or fail with the *error* that came in place of a response."""
        again, self.again = self.again, None
        if again is None:
            self.fail(error)
        else:
            again(self)

    def cancel(self, _waiter: Deferred[Response]) -> None:
        """Fail at once, whatever becomes of the connection, and stop."""
        self.fail(CancelledError())
        self.stop()


@define(eq=False)
class ConnectionPool:
    """
    The idle connections to one server.

    The one that was used last is used first: it is the least likely to be closed
    by the server, and those that are not needed any more grow old.  One timer is
    enough for all.
    """

    clock: IReactorTime = field(repr=False)

    most: int
    """How many are kept."""

    keep_alive_s: float = IDLE_S
    """How long they are kept at first."""

    generations: Generations = field(factory=Generations, repr=False)
    """Of the server, told apart by its connections."""

    limit: IdleLimit = field(init=False, repr=False)
    """How long they are kept."""

    unfinished_bytes: int = field(init=False, default=0)
    """What has come of responses that are not whole yet, on all connections."""

    _since: "dict[Connection, float]" = field(init=False, factory=dict, repr=False)
    """Since when each of them is idle, in that order; the clock's seconds."""

    _timer: IDelayedCall | None = field(init=False, default=None, repr=False)

    def __attrs_post_init__(self) -> None:
        self.limit = IdleLimit(self.clock, self.keep_alive_s)

    def put(self, connection: "Connection") -> None:
        """Add *connection*, in the place of the oldest if there are too many."""
        now = self._since[connection] = self.clock.seconds()
        if len(self._since) > self.most:
            self._close(next(iter(self._since)))
        if now >= self.limit.forget_at:
            self.limit.forget()
        if self._timer is None:
            self._timer = self.clock.callLater(self.limit.seconds, self._close_old)

    def take(self) -> "Connection | None":
        """Return the one that was put here last, if there is one that is not old."""
        if not self._since:
            return None
        connection, since = self._since.popitem()
        if self.clock.seconds() - since < self.limit.seconds:
            return connection
        # The timer is late, as this process was busy: all others are older.
        self._since[connection] = since
        for each in list(self._since):
            self._close(each)
        return None

    def remove(self, connection: "Connection") -> None:
        """Remove *connection* if it is here: it is closed."""
        self._since.pop(connection, None)

    def lost(self, connection: "Connection") -> bool:
        """
        Remove *connection*; return whether it was here, so that the server closed it.

        Then it is learned when the server closes one.
        """
        since = self._since.pop(connection, None)
        if since is None:
            return False
        self.limit.closed_after(self.clock.seconds() - since)
        self._look_again()
        return True

    def apply_keep_alive(self, keep_alive: bytes) -> None:
        """Apply the `Keep-Alive` line of the server."""
        self.limit.apply(keep_alive)
        self._look_again()

    def _look_again(self) -> None:
        """Restart the timer: another limit is in force."""
        if self._timer is not None:
            self._timer.cancel()
            self._close_old()

    def close(self) -> Deferred[None]:
        """Close them all; fires when they are closed."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        closed = gatherResults([self._close(each) for each in list(self._since)])
        return closed.addCallback(lambda _: None)

    def _close(self, connection: "Connection") -> Deferred[None]:
        self.remove(connection)
        return connection.close()

    def _close_old(self) -> None:
        self._timer = None
        now, idle_s = self.clock.seconds(), self.limit.seconds
        for connection, since in list(self._since.items()):
            if since + idle_s > now:
                left_s = since + idle_s - now
                self._timer = self.clock.callLater(left_s, self._close_old)
                break
            self._close(connection)


@implementer(IHandshakeListener)
@define(eq=False)
class Connection(Protocol):
    """One connection."""

    pool: ConnectionPool = field(repr=False)
    write: Write = field(repr=False)
    max_bytes: int

    transport: Any = field(init=False, default=None)
    source: Source = field(init=False)
    """What it leads to."""

    has_answered: bool = field(init=False, default=False)
    """Whether an answer has come while that was the present one."""

    has_agreed: bool = field(init=False, default=False)
    """Whether the handshake is over, if there is TLS."""

    _exchange: Exchange | None = field(init=False, default=None)
    _response: PlainResponse | TwistedResponse | None = field(init=False, default=None)
    _unfinished_bytes: int = field(init=False, default=0)
    _closed: Deferred[None] = field(init=False, factory=Deferred, repr=False)

    def connectionMade(self) -> None:
        """Disable Nagle's algorithm: a request is written whole."""
        self.source = self.pool.generations.connected(self)
        if ITCPTransport.providedBy(self.transport):
            self.transport.setTcpNoDelay(True)

    def handshakeCompleted(self) -> None:  # noqa: N802
        """Note that the handshake is over."""
        self.has_agreed = True

    def send(self, exchange: Exchange) -> None:
        """Send the request of *exchange*, which gets the response."""
        self._exchange = exchange
        exchange.stop = self._abort
        self.write(self.transport, exchange.written)

    def close(self) -> Deferred[None]:
        """Close the connection; fires when it is closed."""
        self.pool.generations.lost(self.source, self)
        is_tls = ISSLTransport.providedBy(self.transport)
        self.transport.loseConnection()
        if is_tls:
            # What ends TLS is written, and need not be answered.
            self.transport.transport.loseConnection()
        return self._closed

    def dataReceived(self, data: bytes) -> None:
        """Add a piece to the response."""
        exchange, response = self._exchange, self._response
        if exchange is None:
            self._abort()
            return
        try:
            if response is None:
                response = begin_response(exchange.method, data, self.max_bytes)
                self._response = response
            whole = response.receive(data)
        except Exception as error:  # noqa: BLE001  the waiter is told
            self._abort()
            exchange.fail(error)
            return
        if whole is None:
            self._count(len(data))
            return
        if self.source.is_over and not self.has_answered:
            # It may have been made before or after that.
            self.source = self.pool.generations.of_answer(self.source)
        force_setattr(whole, "source", self.source)
        may_follow = response.may_be_followed
        if may_follow:
            # Before the waiter is told: the next request may follow at once.
            self._free(response, may_follow=True)
        # As `Exchange.tell`, with one function less on the way of each answer.
        waiter, exchange.waiter = exchange.waiter, None
        if waiter is not None:
            waiter.callback(whole)
        if not may_follow:
            # What a server says of its model is read before its generation ends.
            self._free(response, may_follow=False)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Note that the connection is closed, which may be a response's end."""
        exchange, response = self._exchange, self._response
        was_idle = self.pool.lost(self)
        self._forget()
        self._closed.callback(None)
        generations = self.pool.generations
        if exchange is None:
            generations.lost(self.source, self, by_server=was_idle)
            return
        error: Any = why_lost(self, reason).value
        if response is None:
            generations.broke(self.source, self)
            exchange.not_answered(error)
            return
        try:
            whole = response.end(error)
        except Exception as told:  # noqa: BLE001  the waiter is told
            generations.broke(self.source, self)
            exchange.fail(told)
        else:
            force_setattr(whole, "source", generations.of_answer(self.source))
            generations.lost(self.source, self)
            exchange.tell(whole)

    def _free(
        self, response: PlainResponse | TwistedResponse, *, may_follow: bool
    ) -> None:
        self._exchange = self._response = None
        if self._unfinished_bytes:
            self._count(-self._unfinished_bytes)
        if response.keep_alive:
            self.pool.apply_keep_alive(response.keep_alive)
        if has_unsent(self.transport):
            self.transport.abortConnection()
        elif may_follow and not self.source.is_over:
            self.has_answered = self.source.keeps_connections = True
            self.pool.put(self)
        else:
            self.pool.generations.lost(self.source, self)
            self.transport.loseConnection()

    def _abort(self) -> None:
        self._forget()
        self.pool.generations.lost(self.source, self)
        self.transport.abortConnection()

    def _forget(self) -> None:
        self.pool.remove(self)
        self._exchange = self._response = None
        self._count(-self._unfinished_bytes)

    def _count(self, more: int) -> None:
        self._unfinished_bytes += more
        self.pool.unfinished_bytes += more


@define(eq=False)
class Connections(Factory):
    """Makes connections, of which the log says nothing."""

    noisy = False
    pool: ConnectionPool
    write: Write
    max_bytes: int

    def buildProtocol(self, addr: Any) -> Connection:  # noqa: ARG002, N802
        """Return a new connection."""
        return Connection(self.pool, self.write, self.max_bytes)
