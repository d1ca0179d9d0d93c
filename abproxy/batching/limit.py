"""
A limit that is fixed, and one that follows the upstream.

Too little in flight starves an upstream that merges all that waits; too much
only moves the queue to where nobody can reorder it.  So the limit is what the
upstream answers in about 100 ms, or what it takes in without slowing down,
whichever is more; never under two full batches, never over its permits.

A refusal halves it, below two batches and one as well: others may hold most of
the permits, and what they leave is found by trying with less each time.  From
there it doubles with every answer.
"""

from attrs import define, field
from twisted.internet.interfaces import IReactorTime

from abproxy.batching.budget import Load
from abproxy.batching.rate import Rate

__all__ = ["AdaptiveLimit", "FixedLimit"]

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
        """Grow back by one batch for each answer, or to twice as much."""
        if self._now is not None:
            self._now += min(self._now, self.batch)
            if self._now >= self.ceiling:
                self._now = None

    def refused(self) -> None:
        """Halve; one item always remains."""
        self._now = max(self.items // 2, 1)


@define(kw_only=True, eq=False)
class AdaptiveLimit:
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
    _is_refused: bool = field(default=False, init=False)
    """Whether nothing was answered since."""

    _left: float = field(default=float("inf"), init=False)
    """What refusals have left, until answers have made it grow again."""

    _rate: Rate = field(init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        """Begin with two full batches."""
        self._grown = 2 * self.batch
        self._rate = Rate(self.clock)

    @property
    def items(self) -> int:
        """The limit now."""
        wanted = max(self._grown, self._rate.per_second() * HORIZON_S, 2 * self.batch)
        return max(int(min(wanted, self._most, self._left)), 1)

    @property
    def _most(self) -> float:
        if self.clock.seconds() >= self._remembers_until:
            return self.ceiling
        less = max(self._too_many - self.batch, self._too_many / 2)
        return min(less, self.ceiling)

    def answered(self, load: Load, took_s: float, *, full_wait: bool) -> None:
        """Compare the answer to a full batch with the best one."""
        self._rate.count(load.items)
        self._is_refused = False
        self._left = 2 * self._left if self._left < self.batch else float("inf")
        if load.slot or not full_wait:
            return
        self._best_s = min(self._best_s, took_s)
        if took_s < FASTER * self._best_s:
            self._grown = min(self._grown + self.batch, self._most)
        elif took_s > SLOWER * self._best_s:
            self._grown = max(self._grown - self.batch, 2 * self.batch)

    def refused(self) -> None:
        """Halve what was learnt, and forget how fast it was before."""
        refused = self.items
        if not self._is_refused:
            self._too_many = refused
            self._remembers_until = self.clock.seconds() + REMEMBERED_S
        self._is_refused = True
        self._left = refused / 2
        self._grown = max(self._left, 2 * self.batch)
        self._best_s = float("inf")
        self._rate = Rate(self.clock)
