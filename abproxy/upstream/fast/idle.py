"""
Connections that have nothing to do, until one is needed or their time is over.

The one that was used last is used first: it is the least likely to be closed
by the server, and those that are not needed any more grow old.  One timer
watches over all of them.
"""

from typing import Protocol

from attrs import define, field
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from abproxy.upstream.agent import IDLE_S
from abproxy.upstream.fast.exchange import Exchange

__all__ = ["ConnectionPool"]


class Idler(Protocol):
    """A connection, as far as it is kept here."""

    def ask(self, exchange: Exchange) -> None:
        """Be of use again."""

    def leave(self) -> Deferred[None]:
        """Close the connection; fires when it is closed."""


@define(eq=False)
class ConnectionPool:
    """The idle connections to one server."""

    clock: IReactorTime = field(repr=False)

    most: int
    """How many are kept."""

    _since: dict[Idler, float] = field(init=False, factory=dict, repr=False)
    """Since when each of them is idle, in that order; the clock's seconds."""

    _timer: IDelayedCall | None = field(init=False, default=None, repr=False)

    def put(self, connection: Idler) -> None:
        """Keep *connection*, in the place of the oldest if there are too many."""
        self._since[connection] = self.clock.seconds()
        if len(self._since) > self.most:
            self._close(next(iter(self._since)))
        if self._timer is None:
            self._timer = self.clock.callLater(IDLE_S, self._look)

    def take(self) -> Idler | None:
        """Give away the one that was put here last, if there is one."""
        return self._since.popitem()[0] if self._since else None

    def remove(self, connection: Idler) -> None:
        """Forget *connection*, if it is here: it is closed."""
        self._since.pop(connection, None)

    def close(self) -> Deferred[None]:
        """Close them all; fires when they are closed."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        closed = gatherResults([self._close(each) for each in list(self._since)])
        return closed.addCallback(lambda _: None)

    def _close(self, connection: Idler) -> Deferred[None]:
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
