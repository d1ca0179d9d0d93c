"""
A limit that is fixed, and one that follows the upstream.

Too little in flight starves an upstream that merges all that waits; too much
only moves the queue to where nobody can reorder it.  So the limit is what the
upstream answers in about 100 ms, or what it takes in without slowing down,
whichever is more; never under two full batches, never over its permits.
"""

from attrs import define, field
from twisted.internet.interfaces import IReactorTime

from abproxy.batching.budget import Load
from abproxy.batching.rate import Rate

__all__ = ["FixedLimit", "FollowingLimit"]

HORIZON_S = 0.1
"""For how long the work in flight should last, in seconds."""

FASTER, SLOWER = 1.5, 2.2
"""
Times the best answer to a full batch: below the first the upstream takes in
more without slowing down, above the second it has too much.
"""


REMEMBERED_S = 10.0
"""
For how long the limit stays below where it was refused, in seconds.

The way up is short: without a memory every few answers would be paid for with
one more refusal, for as long as the upstream has less room than it says.
"""


@define(kw_only=True, eq=False)
class FixedLimit:
    """What the operator said; a refusal halves it until the next answer."""

    ceiling: int
    batch: int
    """Items in a full batch."""

    _now: int | None = field(default=None, init=False)

    @property
    def items(self) -> int:
        """The limit now."""
        return self.ceiling if self._now is None else min(self._now, self.ceiling)

    def answered(self, load: Load, took_s: float, *, full_wait: bool) -> None:  # noqa: ARG002
        """Grow back by one batch for each answer."""
        if self._now is not None:
            self._now += self.batch
            if self._now >= self.ceiling:
                self._now = None

    def refused(self) -> None:
        """Halve; one batch always remains."""
        self._now = max(self.items // 2, self.batch)


@define(kw_only=True, eq=False)
class FollowingLimit:
    """What experience with the upstream teaches."""

    clock: IReactorTime = field(repr=False)

    ceiling: int
    """Items that the upstream works on at once: its permits."""

    batch: int
    """Items in a full batch."""

    _grown: float = field(init=False)
    _best_s: float = field(default=float("inf"), init=False)
    _too_many: float = field(default=float("inf"), init=False)
    """The limit that was refused last."""

    _remembers_until: float = field(default=0.0, init=False)
    _rate: Rate = field(init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        """Begin with two full batches."""
        self._grown = 2 * self.batch
        self._rate = Rate(self.clock)

    @property
    def items(self) -> int:
        """The limit now."""
        wanted = max(self._grown, self._rate.per_second() * HORIZON_S)
        wanted = min(wanted, self._most)
        return min(max(int(wanted), 2 * self.batch), self.ceiling)

    @property
    def _most(self) -> float:
        is_remembered = self.clock.seconds() < self._remembers_until
        return self._too_many - self.batch if is_remembered else self.ceiling

    def answered(self, load: Load, took_s: float, *, full_wait: bool) -> None:
        """Compare the answer to a full batch with the best one."""
        self._rate.count(load.items)
        if load.slot or not full_wait:
            return
        self._best_s = min(self._best_s, took_s)
        if took_s < FASTER * self._best_s:
            self._grown = min(self._grown + self.batch, self._most)
        elif took_s > SLOWER * self._best_s:
            self._grown = max(self._grown - self.batch, 2 * self.batch)

    def refused(self) -> None:
        """Halve what was learnt, and forget how fast it was before."""
        self._too_many = self.items
        self._grown = max(self._too_many / 2, 2 * self.batch)
        self._remembers_until = self.clock.seconds() + REMEMBERED_S
        self._best_s = float("inf")
        self._rate = Rate(self.clock)
