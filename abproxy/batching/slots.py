"""
How many batches may be in flight without being full.

An upstream that has enough to do makes every batch wait for all those before
it: with twice as many in flight an answer takes twice as long.  If it takes
clearly less, the upstream works on several at a time, and one more may be in
flight; if not, small batches only stand in each other's way, and there are
fewer.  A few tell nothing, as one may be computed while the others travel, so
one more is tried once in a while.

Beside many full batches one more that is not full hardly stands in the way,
and whoever is left over would wait for a whole round: so these make room for
it.
"""

from typing import Protocol

from attrs import define, field, frozen

__all__ = ["LEAST", "AdaptiveSlots", "FixedSlots", "Slots", "make_slots"]

LEAST, MOST = 2, 512

FULL_FOR_ONE = 4
"""Full batches in flight that make room for one more that is not full."""

PARALLEL, SERIAL = 0.75, 0.8
"""Times the share with half as many in flight: below the first, above the second."""

TELLING = 4
"""Fewer in flight tell nothing: one may be computed while the others travel."""

CURIOSITY, LEAST_CURIOSITY = 1 / 8, 1 / 128
"""How much of a slot an answer adds that tells nothing, and after bad experience."""

MEMORY = 8
"""Over how many answers a figure is made."""


class Slots(Protocol):
    """How many slots there are, as experience teaches."""

    @property
    def count(self) -> int:
        """How many there are now."""

    def beside(self, full: int) -> int:
        """How many there are while so many *full* batches are in flight."""

    def answered(self, in_flight: int, took_s: float) -> None:
        """Learn from a batch that left as the last of so many *in_flight*."""


@frozen
class FixedSlots:
    """As many as the operator said."""

    count: int

    def beside(self, full: int) -> int:  # noqa: ARG002
        """How many there are, whatever else is in flight."""
        return self.count

    def answered(self, in_flight: int, took_s: float) -> None:
        """Learn nothing."""


@define(eq=False)
class AdaptiveSlots:
    """What the answers to batches that were not full teach."""

    least: int = LEAST
    _now: float = field(init=False)
    _shares_s: dict[int, float] = field(factory=dict, init=False)
    """The time of an answer over the batches in flight, by the size of their number."""

    _curiosity: float = field(default=CURIOSITY, init=False)

    def __attrs_post_init__(self) -> None:
        """Begin with few."""
        self._now = self.least

    @property
    def count(self) -> int:
        """How many slots there are now."""
        return int(self._now)

    def beside(self, full: int) -> int:
        """How many there are while so many *full* batches are in flight."""
        return self.count + full // FULL_FOR_ONE

    def answered(self, in_flight: int, took_s: float) -> None:
        """Learn from a batch that left as the last of so many *in_flight*."""
        size = _size(in_flight)
        share_s = self._learn(size, took_s / in_flight)
        half_s = self._shares_s.get(size - 2)
        if in_flight < TELLING or half_s is None:
            self._now = max(self._now, min(self._now + self._curiosity, in_flight + 1))
        elif share_s < PARALLEL * half_s:
            self._now = min(self._now + 1, MOST)
            self._curiosity = CURIOSITY
        elif share_s > SERIAL * half_s:
            self._now = max(self._now - 2, self.least)
            self._curiosity = max(self._curiosity / 2, LEAST_CURIOSITY)

    def _learn(self, size: int, share_s: float) -> float:
        known_s = self._shares_s.get(size, share_s)
        self._shares_s[size] = known_s + (share_s - known_s) / MEMORY
        return self._shares_s[size]


def _size(number: int) -> int:
    """Sort numbers by size: two sizes down, they are about half as large."""
    return (number * number).bit_length()


def make_slots(count: int | None, least: int = LEAST) -> Slots:
    """Make so many slots, or as many as the upstream can use, but some at *least*."""
    return AdaptiveSlots(least) if count is None else FixedSlots(count)
