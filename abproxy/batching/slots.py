"""
Slots: how many batches may be in flight that were not full when they left.

The operator says how many, or they are learnt: from the mean stay of a call, in
the queue and at the server, while one rung of the ladder is in force or another.
By Little's law the mean stay is the integral of how many calls are here over
time, divided by how many were answered.
"""

from math import inf, log

from attrs import define, field, frozen
from msgspec import Struct

from abproxy.batching.hold import Hold
from abproxy.batching.ladder import LEAST_CALLS, RUNGS, Ladder, Rung, Turn

__all__ = ["FixedSlots", "LearnedSlots", "Load", "Slots", "make_slots"]

FULL_FOR_ONE = 4
"""Full batches in flight that make room for one more that is not full."""

LOOK_BATCHES = 8
"""Answers in a look at least."""

LOOK_TURNS, MOST_OF_TURNS = 2, 1024
"""
How often in a look all who are here have been answered, and how many they are at most.

Those who are answered together come back together, some cohorts one after the other;
in a look of one turn or less their times would be taken for those of a rung.
"""


class Load(Struct, kw_only=True, eq=False):
    """One batch, as slots and budget count it."""

    items: int

    slot: bool
    """Whether it was not full when it left."""

    lane: object = None

    calls: int = 1
    """How many calls share it, or parts of large ones."""

    callers: int = 0
    """How many of them have all that they asked for when it is answered."""

    in_flight: int = 1
    """How many batches were in flight when it had left, itself among them."""

    items_in_flight: int = 0
    """How many items were, its own among them."""


@frozen
class FixedSlots:
    """As many as the operator said."""

    count: int

    def beside(self, full: int) -> int:  # noqa: ARG002
        """Return how many there are, whatever else is in flight."""
        return self.count

    def held_until(self, now: float, lane: object) -> None:
        """Return None: no batch is held."""

    def ran_out(self) -> None:
        """Learn nothing."""

    def arrived(self, now: float, here: int, lane: object) -> bool:  # noqa: ARG002
        """Return False: no callers are waited for."""
        return False

    def note(self, now: float, here: int) -> None:
        """Learn nothing."""

    def answered(
        self, now: float, here: int, in_flight: int, load: Load, took_s: float
    ) -> None:
        """Learn nothing."""


@define(eq=False)
class LearnedSlots:
    """
    A number of slots that is learned from the stay of calls.

    Time is an argument, and so is how many calls are *here*, waiting or in
    flight: nothing is counted that could leak.
    """

    ladder: Ladder = field(factory=Ladder)
    hold: Hold = field(factory=Hold)
    rung: Rung = field(init=False)
    """The rung in force."""

    _here: int = field(default=0, init=False)
    _usually: float = field(default=0.0, init=False)
    """How many calls were here, on average of the last look."""

    _left_out: int = field(default=0, init=False)
    """
    Calls that are answered before the look begins.

    They were in flight when the rung changed, and tell of the one before.
    """

    _lost_s: float = field(default=inf, init=False)
    """The mean stay at which a trial is broken off."""

    _ran_out: bool = field(default=False, init=False)
    """Whether a batch had to wait for a slot, or for callers."""

    _noted_at: float = field(default=0.0, init=False)
    _began_at: float = field(default=0.0, init=False)
    _stays_s: float = field(default=0.0, init=False)
    _answers: int = field(default=0, init=False)
    _batches: int = field(default=0, init=False)

    def __attrs_post_init__(self) -> None:
        self.rung = RUNGS[self.ladder.on]

    @property
    def count(self) -> int:
        """Return how many slots there are now."""
        return self.rung.slots

    @property
    def holds(self) -> bool:
        """Return whether batches that are not full wait for callers to return."""
        return self.rung.holds and self.hold.is_trusted

    def beside(self, full: int) -> int:
        """
        Return how many there are while so many *full* batches are in flight.

        One more request hardly stands in the way of many full ones, and calls that
        are left over would wait until those are answered.
        """
        return self.rung.slots + full // FULL_FOR_ONE

    def held_until(self, now: float, lane: object) -> float | None:
        """Return until when a batch of *lane* waits for callers, or None."""
        until = self.hold.until(now, lane) if self.rung.holds else None
        self._ran_out = self._ran_out or until is not None
        return until

    def ran_out(self) -> None:
        """Note that a batch has to wait for a slot."""
        self._ran_out = True

    def arrived(self, now: float, here: int, lane: object) -> bool:
        """
        Note that a call came, and that so many are *here* with it.

        Returns:
            Whether its batch may be held for others.
        """
        self._stays_s += self._here * (now - self._noted_at)
        self._noted_at, self._here = now, here
        hold = self.hold
        if not hold.expected:
            return False
        hold.called(now, lane)
        return self.rung.holds and hold.expected > 0

    def note(self, now: float, here: int) -> None:
        """Note that so many calls are *here* from now on."""
        self._stays_s += self._here * (now - self._noted_at)
        self._noted_at, self._here = now, here

    def answered(
        self, now: float, here: int, in_flight: int, load: Load, took_s: float
    ) -> None:
        """
        Learn from a batch that was answered.

        Args:
            now: what time it is.
            here: how many calls, or parts of large ones, are still here.
            in_flight: how many of them are in flight.
            load: the batch.
            took_s: how long the server took.
        """
        self._stays_s += self._here * (now - self._noted_at)
        self._noted_at, self._here = now, here
        self.hold.answered(now, load.lane, load.callers, took_s)
        self._answers += load.calls
        self._batches += 1
        # Calls stay too long, even if those of a whole turn were answered now.
        turn = max(self._usually, LEAST_CALLS)
        if self._stays_s > self._lost_s * (self._answers + turn):
            self._look(now, in_flight)
        elif self._left_out:
            if self._answers >= self._left_out:
                self._begin(now, 0)
        elif self._batches >= LOOK_BATCHES and self._answers >= self._enough:
            self._look(now, in_flight)

    @property
    def _enough(self) -> float:
        turns = LOOK_TURNS * max(self._usually, self._here)
        return max(self.ladder.calls, min(turns, MOST_OF_TURNS))

    def _look(self, now: float, in_flight: int) -> None:
        stays_s, passed_s = max(self._stays_s, 1e-9), now - self._began_at
        self._usually = stays_s / passed_s if passed_s > 0 else 0.0
        before, stay = self.rung, log(stays_s / self._answers)
        self.ladder.look(stay, binds=self._ran_out, may_leap=self.hold.is_trusted)
        self.rung, self._lost_s = RUNGS[self.ladder.on], self.ladder.lost_s
        self._begin(now, 0 if self.rung is before else in_flight)

    def _begin(self, now: float, left_out: int) -> None:
        self._left_out, self._began_at = left_out, now
        self._usually = max(self._usually, self._here)
        self._stays_s, self._answers, self._batches = 0.0, 0, 0
        self._ran_out = False


Slots = FixedSlots | LearnedSlots


def make_slots(count: int | None, turn: Turn | None = None) -> Slots:
    """Return so many slots, or as many as trials, made in *turn*, show to be best."""
    if count is not None:
        return FixedSlots(count)
    return LearnedSlots(ladder=Ladder(turn=turn or Turn()))
