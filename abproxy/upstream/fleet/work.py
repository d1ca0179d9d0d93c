"""
What is in flight at an inference server, and how fast that gets done.

Speed is measured: the work of good answers by the time in which there was any.  An
error is no speed, however fast it comes, and a server that is late is taken to be
as slow as it is late, before it has answered.
"""

from math import exp, inf

from attrs import define, field
from msgspec import Struct
from twisted.internet.interfaces import IReactorTime

from abproxy.http.messages import UpstreamRequest

__all__ = [
    "ENOUGH",
    "LATE_S",
    "OUTLIER",
    "SILENT_S",
    "TRUSTED_AFTER",
    "TWICE",
    "Attempt",
    "Work",
    "work_of",
]

REQUEST_BYTES = 100
"""
As how many bytes of inputs a request counts by itself.

Played with servers of all kinds, bytes tell more than inputs where lengths differ,
and hardly less where they do not; much more than this for the request itself lets
servers that merge requests wait.
"""

MEMORY_S = 1.0
"""Over how long speed is measured at least, in seconds in which there is work."""

MEMORY_ANSWERS = 8
"""Over how many answers it is measured at least."""

TRUSTED_AFTER = 100
"""After so many answers a speed is what was measured, and nothing else."""

ENOUGH = 16
"""Answers after which a server can be compared with others."""

SHORTEST_S = 1e-6
"""Less time than that is none, but a rounding error."""

LATE_S, SILENT_S = 1.0, 3.0
"""After so long without an answer a server is asked, and is compared by that."""

OUTLIER, TWICE = 4.0, 2.0
"""Times as long as others for its work, and to answer: the limits of being alike."""

LATE = 2.0
"""Times the expected time after which a request is late."""


def work_of(request: UpstreamRequest) -> float:
    """Return how much work *request* is; what one unit takes is measured."""
    return REQUEST_BYTES + len(request.body)


class Attempt(Struct, eq=False):
    """One request at one server, as its work is counted."""

    work: float

    items: int
    """Inputs in it, which take permits."""

    sent_at: float = 0.0

    ahead: float = 0.0
    """The work in flight when it had been sent, its own included."""


@define(kw_only=True, eq=False)
class Work:
    """What is in flight at one server, and how fast that gets done."""

    clock: IReactorTime = field(repr=False)
    weight: float = 1.0
    """Its speed beside that of others, as the operator expects it."""

    in_flight: float = field(default=0.0, init=False)
    items: int = field(default=0, init=False)
    """Inputs in flight."""

    answers: int = field(default=0, init=False)
    """Good ones since its speed is measured."""

    share: float = field(default=0.0, init=False)
    """Its part of the requests that were sent lately, from 0 to 1."""

    _open: dict[Attempt, None] = field(init=False, factory=dict, repr=False)
    """The oldest first."""

    _noted_at: float = field(default=0.0, init=False)
    """Until when its time was counted; the clock's seconds."""

    _done: float = field(default=0.0, init=False)
    _done_items: float = field(default=0.0, init=False)
    _busy_s: float = field(default=0.0, init=False)
    _took_s: float = field(default=0.0, init=False)
    _lost: float = field(default=0.0, init=False)
    """Work that was answered with errors, and counts until it could have been done."""

    _lost_at: float = field(default=0.0, init=False)
    _answered_at: float = field(default=0.0, init=False)
    """When its last good answer came; the clock's seconds."""

    @property
    def requests(self) -> int:
        """Return how many requests are in flight."""
        return len(self._open)

    def begin(self, attempt: Attempt) -> None:
        """Count a request that is sent."""
        now = self.clock.seconds()
        if not self._open:
            self._noted_at = now
        self.in_flight += attempt.work
        self.items += attempt.items
        attempt.sent_at, attempt.ahead = now, self.in_flight
        self._open[attempt] = None

    def late_at(self, attempt: Attempt) -> float:
        """
        Return when *attempt* has taken far longer than expected; infinite if unknown.

        By then its answer may be lost on the way, whatever the server answers others.
        """
        if self.answers < ENOUGH or not self.measured:
            return inf
        expected_s = max(attempt.ahead / self.measured, self._took_s)
        return attempt.sent_at + max(SILENT_S, OUTLIER * TWICE * expected_s)

    def end(self, attempt: Attempt, *, is_good: bool, is_error: bool = False) -> None:
        """
        Count a request that is over.

        Args:
            attempt: the request.
            is_good: whether it was computed.
            is_error: whether it was answered with something else, or broke off.
        """
        now = self.clock.seconds()
        took_s = now - attempt.sent_at
        del self._open[attempt]
        # Exactly nothing when nothing is open, whatever was rounded.
        self.in_flight = self.in_flight - attempt.work if self._open else 0.0
        self.items -= attempt.items
        self._let_pass(now, max(MEMORY_S, MEMORY_ANSWERS * took_s))
        if is_good:
            self._done += attempt.work
            self._done_items += attempt.items
            self.answers += 1
            self._answered_at = now
            known = self._took_s or took_s
            self._took_s = known + (took_s - known) / MEMORY_ANSWERS
        elif is_error:
            if not self._lost:
                self._lost_at = now
            self._lost += attempt.work

    def _let_pass(self, now: float, memory_s: float) -> None:
        passed_s, self._noted_at = now - self._noted_at, now
        kept = exp(-passed_s / memory_s)
        self._busy_s = self._busy_s * kept + passed_s
        self._done *= kept
        self._done_items *= kept

    def forget_speed(self) -> None:
        """Measure anew: it may be another machine by now."""
        self.answers, self._took_s, self._lost = 0, 0.0, 0.0
        self._done, self._done_items, self._busy_s = 0.0, 0.0, 0.0

    @property
    def measured(self) -> float:
        """Return the measured speed, in work a second; 0 if nothing was answered."""
        return self._done / self._busy_s if self._busy_s > 0 else 0.0

    @property
    def at_best(self) -> float:
        """Return its speed if all that it has in flight were done now."""
        open_s = self.clock.seconds() - self._noted_at if self._open else 0.0
        return (self._done + self.in_flight) / max(self._busy_s + open_s, SHORTEST_S)

    @property
    def inputs_per_s(self) -> float:
        """Return the measured speed in inputs a second; 0 if nothing was answered."""
        return self._done_items / self._busy_s if self._busy_s > 0 else 0.0

    @property
    def silent_s(self) -> float:
        """
        Return for how long it has answered nothing, though it has work; else 0.

        One that answers others meanwhile is not slow: what it has not answered yet
        may just be long, and its sender would have all servers left out.
        """
        oldest = next(iter(self._open), None)
        if oldest is None:
            return 0.0
        return self.clock.seconds() - max(oldest.sent_at, self._answered_at)

    @property
    def took_s(self) -> float:
        """Return how long answers take lately, or one that is late by now."""
        return max(self._took_s, self.silent_s)

    def expected_s(self, speed: float) -> float:
        """Return how long the oldest request would take at such a *speed*."""
        oldest = next(iter(self._open), None)
        return 0.0 if oldest is None or speed <= 0 else oldest.ahead / speed

    def speed(self, usual: float) -> float:
        """
        Return how fast it is now, in work a second.

        Args:
            usual: the speed of a server of weight 1, which counts in the place of
                what is not measured yet.
        """
        known = min(self.answers / TRUSTED_AFTER, 1.0)
        speed = known * self.measured + (1 - known) * self.weight * usual
        return speed / self.late_by(speed)

    def late_by(self, speed: float) -> float:
        """Return how many times later it is than at such a *speed*; 1 if it is not."""
        expected_s = self.expected_s(speed)
        if not expected_s:
            return 1.0
        return max(self.silent_s / (LATE * max(expected_s, self._took_s)), 1.0)

    def takes_s(self, more: float, usual: float) -> float:
        """Return how long it would take for what is in flight and *more* work."""
        speed = self.speed(usual)
        if speed <= 0:
            return inf
        if self._lost:
            now = self.clock.seconds()
            passed_s, self._lost_at = now - self._lost_at, now
            self._lost = max(self._lost - speed * passed_s, 0.0)
        return (self.in_flight + self._lost + more) / speed
