"""
The hold: a batch that is not full waits for callers who are about to return.

Callers that share a batch are answered together, and clients that send one call
after another then call again within a moment.  The first of them would take the
only slot with a batch of one, and all others would wait until it is answered.
So as many calls are expected as a batch had callers, for a fraction of the time
that an answer takes; whether they come is counted, and where they do not, nothing
is held.

Disks are scheduled like this: see Iyer and Druschel, "Anticipatory scheduling",
SOSP 2001.
"""

from math import inf

from attrs import define

__all__ = ["Hold"]

PATIENCE = 1 / 8
"""For how long callers are waited for, in times of an answer."""

TRUSTED = 0.5
"""How often they have to have come, for the next to be waited for."""

SHORTEST_S = 1e-6
"""A hold that is not worth a timer."""

MEMORY = 8
"""Over how many answers a figure is made."""


@define(eq=False)
class Hold:
    """The callers of one lane who were answered last, and who of them is back."""

    expected: int = 0
    """How many of them have not called again."""

    _lane: object = None
    _until: float = -inf
    _trust: float = TRUSTED
    _answer_s: float = 0.0

    @property
    def is_trusted(self) -> bool:
        """Return whether those who were answered have called again soon, so far."""
        return self._trust > TRUSTED

    def answered(self, now: float, lane: object, callers: int, took_s: float) -> None:
        """Expect so many *callers* of one *lane*, whose batch *took_s*."""
        if lane != self._lane:
            self._lane, self.expected = lane, 0
        self._answer_s += (took_s - self._answer_s) / (MEMORY if self._answer_s else 1)
        if self.expected and now > self._until:
            self._trust -= self._trust / MEMORY
            self.expected = 0
        self.expected += callers
        self._until = now + PATIENCE * self._answer_s

    def called(self, now: float, lane: object) -> None:
        """Note a call, which may be of one who is expected."""
        if lane == self._lane:
            self.expected -= 1
            if not self.expected:
                self._trust += ((now <= self._until) - self._trust) / MEMORY

    def until(self, now: float, lane: object) -> float | None:
        """Return until when a batch of *lane* waits for others; None if it does not."""
        waits = self.expected and self.is_trusted and lane == self._lane
        return self._until if waits and self._until - now > SHORTEST_S else None
