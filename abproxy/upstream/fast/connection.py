"""
One connection to the upstream: one question, one answer, then the next.

What comes unasked, or after an answer, is nobody's: the connection is closed
rather than that one caller could get the answer of another.
"""

from typing import Any

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import ITCPTransport
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure

from abproxy.upstream.fast.exchange import Answer, Exchange
from abproxy.upstream.fast.idle import ConnectionPool
from abproxy.upstream.fast.plain import begin_plain
from abproxy.upstream.fast.unusual import TwistedResponse
from abproxy.writing import Write, has_unsent

__all__ = ["Connection", "Connections"]


@define(eq=False)
class Connection(Protocol):
    """One connection."""

    idle: ConnectionPool = field(repr=False)
    write: Write = field(repr=False)
    max_bytes: int

    transport: Any = field(init=False, default=None)
    _exchange: Exchange | None = field(init=False, default=None)
    _answer: Answer | None = field(init=False, default=None)
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

    def _begin(self, exchange: Exchange, data: bytes) -> Answer:
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
