"""
All workers listen on the one socket that the foreman has opened.

With sockets of their own (SO_REUSEPORT) connections that wait to be accepted
by a worker would be lost with it, and a port that another proxy has would not
be in use.  On a shared socket what waits is lost with nobody, and whoever has
time accepts.  By itself one worker then often takes a whole crowd, as it looks
first, and keeps it as long as connections are kept.  So a worker takes one at
a time, and leaves it to those who have fewer for as long as they take any: only
when a moment has passed and none of them came, it takes one itself.
"""

import socket
from collections.abc import Callable
from typing import Any

from attrs import define, field
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IListeningPort
from twisted.internet.tcp import Port

from abproxy.workers.counts import Counts

__all__ = ["AdoptedSocket"]

MOMENT_S = 0.001
"""For how long a connection is left to the others, in seconds."""


@define(kw_only=True, eq=False)
class AdoptedSocket:
    """A socket of the foreman's, under its number in this process."""

    reactor: Any
    number: int
    name: str
    """Who we are among the workers."""

    counts: Counts
    opened: Callable[[], None] = lambda: None
    """Called when clients are let in."""

    def listen(self, factory: Any) -> Deferred[IListeningPort]:
        """Begin to let clients in."""
        with socket.socket(fileno=self.number) as theirs:
            family = theirs.family
            port: Any = self.reactor.adoptStreamPort(self.number, family, factory)
        turns = _Turns(self, port, factory.channels)
        self.counts.set(self.name, 0)
        port.doRead = turns.accept
        self.opened()
        return succeed(port)


@define(eq=False)
class _Turns:
    """Whose turn it is to accept."""

    ours: AdoptedSocket
    port: Any
    connections: Any
    _left_in_vain: list[int] = field(factory=list)
    """How many those have who did not come for the last one."""

    def accept(self) -> None:
        """Accept one connection, unless others should."""
        counts, name = self.ours.counts, self.ours.name
        has = len(self.connections)
        counts.set(name, has)
        fewer = counts.fewer(has)
        if fewer and fewer != self._left_in_vain:
            self.port.stopReading()
            self.ours.reactor.callLater(MOMENT_S, self._look_again, fewer)
            return
        # By itself it would take more at once after each time that many came.
        self.port.numberAccepts = 1
        Port.doRead(self.port)
        counts.set(name, len(self.connections))
        self._left_in_vain = []

    def _look_again(self, fewer: list[int]) -> None:
        """Take one of those that still wait, if the others took none."""
        self._left_in_vain = fewer
        # For one look, however long that takes: what comes later is left to them.
        self.ours.reactor.callLater(0, self._has_looked)
        if self.port.connected and not self.port.disconnecting:
            self.port.startReading()

    def _has_looked(self) -> None:
        self._left_in_vain = []
