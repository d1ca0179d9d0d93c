"""
The memory that is held for clients: requests that arrive, answers for them.

What is here counts, whatever a client has announced: to announce costs nothing.  A
request that is here as a whole at once, and an answer that the kernel takes, are
never counted.  Over the limit no larger body is begun, and the slowest clients make
room: first those that do not read their answers, then those whose requests make the
least progress.  What is left of the others is not read for a moment.  Answers that
are not whole yet count as well: they become calls' answers, or make room elsewhere.
"""

import sys
from collections.abc import Callable, Iterable
from typing import Any

from attrs import define, field
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from abproxy.errors import MemoryFull
from abproxy.events import Observer
from abproxy.tuning import unsent_bytes

__all__ = ["Memory", "memory_full"]

GRACE_S = 1.0
"""For how long a client is not judged: it may just have begun."""

BEGUN_S = 0.1
"""By then the system has taken what it keeps for a client, who has not read it yet."""

SOON_S = 10.0
"""An answer that is read within so many seconds is not a slow reader's."""

ENOUGH = 0.75
"""
How full the memory may be, once room was made.

Slow readers make room from here on: it takes a second to see that one is slow, and
meanwhile more come.
"""

ENOUGH_UNREAD = 0.5
"""How full it may be, once slow readers have made room."""

FAR_OVER = 1.25
"""So far over the limit whole answers are cut, however fast they are read."""


def memory_full() -> MemoryFull:
    """Return the error for a request that there is no memory for."""
    return MemoryFull("clients hold too much memory: try again later")


@define(eq=False)
class _Arrival:
    """A request that arrives, or waits for its answer."""

    since: float
    size: int = 0
    is_paused: bool = False

    def speed(self, now: float) -> float:
        """Return how many bytes have come in a second."""
        return self.size / max(now - self.since, 1e-3)


@define(eq=False)
class _Unread:
    """An answer that waits in our buffer to be read."""

    seen_at: float
    size: int
    left: int
    left_s: float = 0.0
    """In how many seconds it is read, if its reader goes on as lately."""

    beginning: IDelayedCall | None = None
    """When its reader is judged for the first time."""

    @property
    def is_read(self) -> bool:
        """Return whether its reader was seen to go on."""
        return 0 < self.left_s <= SOON_S

    def look(self, size: int, left: int, now: float) -> None:
        """Measure the speed of its reader by what is *left*, if it is time to."""
        self.size = size
        passed_s = now - self.seen_at
        if passed_s >= GRACE_S:
            speed = (self.left - left) / passed_s
            self.left_s = left / speed if speed > 0 else float("inf")
            self.seen_at, self.left = now, left


@define(kw_only=True, eq=False)
class Memory:
    """The memory that all connections hold."""

    clock: IReactorTime = field(repr=False)
    max_bytes: int = sys.maxsize
    observer: Observer = field(factory=Observer, repr=False)

    coming: Callable[[], int] = field(default=lambda: 0, repr=False)
    """Return how many bytes there are of answers that are not whole yet."""

    arriving: int = field(init=False, default=0)
    """Bytes of requests."""

    unread: int = field(init=False, default=0)
    """Bytes of answers."""

    _arrivals: dict[Any, _Arrival] = field(init=False, factory=dict, repr=False)
    _answers: dict[Any, _Unread] = field(init=False, factory=dict, repr=False)
    _is_making_room: bool = field(init=False, default=False)

    @property
    def held(self) -> int:
        """Return how many bytes are held."""
        return self.arriving + self.unread + self.coming()

    @property
    def figures(self) -> tuple[int, int, int]:
        """Return bytes of requests and of answers, and what both may have together."""
        return self.arriving, self.unread + self.coming(), self.max_bytes

    @property
    def is_full(self) -> bool:
        """Return whether no larger body is begun."""
        return self.held >= self.max_bytes

    def receive(self, connection: Any, size: int) -> None:
        """Note that *connection* holds *size* bytes of requests now."""
        arrival = self._arrivals.get(connection)
        if arrival is None:
            if not size:
                return
            arrival = _Arrival(self.clock.seconds())
            self._arrivals[connection] = arrival
        self.arriving += size - arrival.size
        arrival.size = size
        if not size:
            del self._arrivals[connection]
            self._go_on()
        elif self.is_full:
            self._make_room()
            self._pause(connection)

    def send(self, connection: Any) -> None:
        """Note that more is to be written to *connection* than it takes."""
        size, left = unsent_bytes(connection.transport)
        answer = self._answers.get(connection)
        if answer is None:
            answer = _Unread(self.clock.seconds(), 0, left)
            self._answers[connection] = answer
            answer.beginning = self.clock.callLater(
                BEGUN_S, self._note_begun, connection, answer
            )
        answer.left += max(size - answer.size, 0) if answer.size else 0
        self.unread += size - answer.size
        answer.size = size
        if self.held >= ENOUGH * self.max_bytes:
            self._make_room()

    def _note_begun(self, connection: Any, answer: _Unread) -> None:
        """Measure the speed of the reader of *answer* from now on."""
        answer.beginning = None
        answer.seen_at = self.clock.seconds()
        _, answer.left = unsent_bytes(connection.transport)

    def sent(self, connection: Any) -> None:
        """Note that all was written to *connection*."""
        answer = self._answers.pop(connection, None)
        if answer is not None:
            if answer.beginning is not None:
                answer.beginning.cancel()
            self.unread -= answer.size
            self._go_on()

    def forget(self, connection: Any) -> None:
        """Note that *connection* is closed."""
        self.receive(connection, 0)
        self.sent(connection)

    def make_room(self) -> bool:
        """Make room if there is none, and return whether there is some."""
        if self.is_full:
            self._make_room()
        return not self.is_full

    def look(self) -> None:
        """Make room, and resume clients, as far as needed; called regularly."""
        if self._answers or self.is_full:
            self._make_room()
        self._go_on()

    def _make_room(self) -> None:
        if self._is_making_room:
            return
        self._is_making_room = True
        try:
            now = self.clock.seconds()
            self._look_at_answers(now)
            if self.held >= ENOUGH * self.max_bytes:
                self._cut_slow_readers()
            if self.is_full:
                self._refuse_slow_senders(now)
            if self.held > FAR_OVER * self.max_bytes:
                self._cut_others()
        finally:
            self._is_making_room = False

    def _look_at_answers(self, now: float) -> None:
        for connection, answer in list(self._answers.items()):
            size, left = unsent_bytes(connection.transport)
            self.unread += size - answer.size
            answer.look(size, left, now)
            if not left:
                self.sent(connection)

    def _cut_slow_readers(self) -> None:
        slow = [each for each, it in self._answers.items() if it.left_s > SOON_S]
        slow.sort(key=lambda each: -self._answers[each].left_s)
        self._cut(slow, ENOUGH_UNREAD)

    def _cut_others(self) -> None:
        """
        Cut answers that were not seen to be slow: the last to come first.

        Those that were seen to be read come last.  The largest stays: it may be
        larger than all that is allowed.
        """
        answers = self._answers
        others = sorted(answers, key=lambda each: answers[each].size)[:-1]
        newest = [each for each in reversed(answers) if each in others]
        self._cut(sorted(newest, key=lambda each: answers[each].is_read), ENOUGH)

    def _cut(self, connections: Iterable[Any], enough: float) -> None:
        for connection in connections:
            if self.held <= enough * self.max_bytes:
                return
            self.sent(connection)
            self.observer.connection_cut("slow_reader")
            connection.cut()

    def _refuse_slow_senders(self, now: float) -> None:
        arrivals = self._arrivals
        may_go = [each for each in arrivals if each.may_be_refused]
        slow = sorted(may_go, key=lambda each: arrivals[each].speed(now))
        # The fastest always goes on: room is no use to none.
        for connection in slow[:-1]:
            if self.held <= ENOUGH * self.max_bytes:
                return
            if now - arrivals[connection].since >= GRACE_S:
                connection.refuse_arriving(memory_full())

    def _pause(self, connection: Any) -> None:
        """Stop reading from *connection* for a moment, unless it is the only one."""
        arrival = self._arrivals.get(connection)
        if arrival is None or not self.is_full or not connection.may_be_refused:
            return
        if sum(each.may_be_refused for each in self._arrivals) > 1:
            arrival.is_paused = True
            connection.pause_reading()

    def _go_on(self) -> None:
        """Resume the connections that were paused, as there is room."""
        paused = [each for each, it in self._arrivals.items() if it.is_paused]
        for connection in paused:
            if self.is_full and len(paused) > 1:
                return
            self._arrivals[connection].is_paused = False
            connection.resume_reading()
