"""
Concurrency: the work that may be in flight upstream.

The budget counts items, as TEI counts its permits.  A slot is the right to
have one batch in flight that was not full when it left.  Both are taken and
given back in `Budget` and nowhere else: a leak would freeze the proxy.

How large the budget is, and how many slots there are, the operator says, or
the upstream's answers teach.
"""

from collections.abc import Callable

from attrs import define, evolve, field
from twisted.internet.interfaces import IReactorTime

from abproxy.batching.part import Caps
from abproxy.batching.slots import Load, Slots

__all__ = [
    "AdaptiveLimit",
    "Budget",
    "DeadlineLimit",
    "FixedLimit",
    "Limit",
    "Rate",
]

PERIOD_S = 0.5
"""How long is counted before there is a new rate, in seconds."""


@define(eq=False)
class Rate:
    """
    A count by the second, over the last period that is complete.

    A period ends with the first count after its time: what is rare is
    measured over as long as it takes.
    """

    _clock: IReactorTime
    period_s: float = PERIOD_S
    _since: float = field(init=False)
    _counted: int = field(init=False)
    per_second: float = field(init=False)
    """The latest rate; 0 if there is none yet."""

    def __attrs_post_init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        """Reset the count, and begin a period now."""
        self._since = self._clock.seconds()
        self._counted = 0
        self.per_second = 0.0

    def count(self, number: int) -> None:
        """Add *number* to what happened; with nothing added, no period ends."""
        if not number:
            return
        self._counted += number
        passed = self._clock.seconds() - self._since
        if passed >= self.period_s:
            self.per_second = self._counted / passed
            self._since += passed
            self._counted = 0


# Items in flight
#
# Too little in flight leaves an upstream idle that merges all that waits; too much
# only moves the queue to where it cannot be reordered.  So the limit is what the
# upstream answers in about 100 ms, or what it takes in without slowing down,
# whichever is more; never under two full batches, never over its permits.
#
# A refusal halves it, below two batches and one as well: others may hold most of
# the permits, and what they leave is found by trying with less each time.  From
# there it doubles with every answer.

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
    """The operator's limit; a refusal halves it until the next answer."""

    ceiling: int
    batch: int
    """Items in a full batch for each server."""

    _now: int | None = field(default=None, init=False)

    @property
    def items(self) -> int:
        """Return how many items may be in flight now."""
        return self.ceiling if self._now is None else min(self._now, self.ceiling)

    def answered(self, load: Load, took_s: float, *, full_wait: bool) -> None:  # noqa: ARG002
        """Raise the limit by one batch, or to twice as much if that is less."""
        if self._now is not None:
            self._now += min(self._now, self.batch)
            if self._now >= self.ceiling:
                self._now = None

    def refused(self) -> None:
        """Halve the limit, down to one item."""
        self._now = max(self.items // 2, 1)


@define(kw_only=True, eq=False)
class AdaptiveLimit:
    """A limit that follows the speed and the refusals of the upstream."""

    clock: IReactorTime = field(repr=False)

    ceiling: int
    """Items that the upstream works on at once: its permits."""

    batch: int
    """Items in a full batch for each server."""

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
        self._grown = 2 * self.batch
        self._rate = Rate(self.clock, HORIZON_S)

    @property
    def items(self) -> int:
        """Return how many items may be in flight now."""
        wanted = max(self._grown, self._rate.per_second * HORIZON_S, 2 * self.batch)
        return max(int(min(wanted, self._most, self._left)), 1)

    @property
    def _most(self) -> float:
        if self.clock.seconds() >= self._remembers_until:
            return self.ceiling
        less = max(self._too_many - self.batch, self._too_many / 2)
        return min(less, self.ceiling)

    def answered(self, load: Load, took_s: float, *, full_wait: bool) -> None:
        """
        Learn from an answer, given while a full batch waited or not.

        The answer to a full batch is compared with the best one.
        """
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
        """Halve the limit, and forget how fast the upstream was."""
        refused = self.items
        if not self._is_refused:
            self._too_many = refused
            self._remembers_until = self.clock.seconds() + REMEMBERED_S
        self._is_refused = True
        self._left = refused / 2
        self._grown = max(self._left, 2 * self.batch)
        self._best_s = float("inf")
        self._rate = Rate(self.clock, HORIZON_S)


Limit = FixedLimit | AdaptiveLimit
"""How many items may be in flight."""


# Items that are answered in time
#
# A request that runs into a deadline was computed for nothing.  So after one,
# only so much is in flight as is answered in half of that time; answers tell how
# much that is, and the limit is gone when it would bind no more.

NO_LIMIT = float("inf")


@define(eq=False)
class DeadlineLimit:
    """The number of items that are answered well within the deadline of a request."""

    items: float = field(default=NO_LIMIT, init=False)
    _deadline_s: float = field(default=0.0, init=False)

    def missed(self, items: int, deadline_s: float) -> None:
        """Note that so many *items* in flight were too many for *deadline_s*."""
        self._deadline_s = deadline_s
        self.items = max(min(self.items, items) // 2, 1)

    def met(self, items: int, took_s: float) -> None:
        """Note that so many *items* in flight were answered after *took_s*."""
        in_half = self._deadline_s / 2 * items / max(took_s, 1e-6)
        self.items = max(min(in_half, 2 * self.items), 1)


@define(kw_only=True, eq=False)
class Budget:
    """Items and slots in flight."""

    limit: Limit
    slots: Slots
    servers: int = 1
    """How many servers take part: each has as many slots."""

    left_out: Callable[[], tuple[int, int]] = field(default=lambda: (0, 0), repr=False)
    """
    Returns how many items and batches are in flight where no more is sent now.

    They take nothing from the others, though their end is waited for.
    """

    in_time: DeadlineLimit = field(factory=DeadlineLimit, init=False)

    batches_in_flight: int = field(default=0, init=False)
    items_in_flight: int = field(default=0, init=False)
    calls_in_flight: int = field(default=0, init=False)
    slots_taken: int = field(default=0, init=False)

    @property
    def most_items(self) -> int:
        """Return how many items may be in flight now."""
        return int(min(self.limit.items, self.in_time.items))

    def missed_deadline(self, deadline_s: float) -> None:
        """Learn from a request that took as long as *deadline_s* without an answer."""
        self.in_time.missed(self.items_in_flight, deadline_s)

    @property
    def slot_free(self) -> bool:
        """Return whether a batch that is not full may leave."""
        full, left_out = self.batches_in_flight - self.slots_taken, self.left_out()[1]
        most = self.slots.beside(full)
        if self.servers > 1:
            one = self.slots.count
            # Where full ones wait at all servers, what is not full may still fill up.
            behind = max(full - left_out - one * self.servers, 0)
            most = max(one * self.servers - behind, most - one, one)
        return self.slots_taken < most + left_out

    @property
    def is_idle(self) -> bool:
        """Return whether nothing is in flight at servers that take part."""
        return self.items_in_flight <= self.left_out()[0]

    def share_of(self, caps: Caps, waiting: int) -> Caps:
        """
        Return *caps* for a batch of which the other servers have as much.

        Calls that were once in one batch would stay together for ever otherwise, and
        the others would have hardly any.

        Args:
            caps: what one batch may hold.
            waiting: how many items wait, with those of the batch.
        """
        if self.servers == 1:
            return caps
        here = waiting + self.items_in_flight - self.left_out()[0]
        share = -(-here // self.servers)
        return caps if share >= caps.items else evolve(caps, items=max(share, 1))

    def resize(self, ceiling: int, batch: int, servers: int) -> None:
        """
        Apply new limits.

        Args:
            ceiling: items that may be in flight, at all servers together.
            batch: items in a full batch.
            servers: how many take part.
        """
        self.servers = servers
        self.limit.ceiling = ceiling
        self.limit.batch = batch * servers

    def admits(self, items: int) -> bool:
        """
        Return whether *items* more may be in flight, or as many as ever may.

        With nothing in flight there is always room: a batch larger than the
        whole budget would wait for ever otherwise.
        """
        if not self.items_in_flight:
            return True
        most = self.most_items
        return min(items, most) <= most - (self.items_in_flight - self.left_out()[0])

    def met_deadline(self, items: int, took_s: float) -> None:
        """Learn from an answer that came in time, with *items* in flight."""
        self.in_time.met(items, took_s)
        if self.in_time.items >= self.limit.ceiling:
            self.in_time.items = NO_LIMIT

    def take(self, load: Load) -> None:
        """Add a batch that is sent to what is in flight."""
        self.items_in_flight += load.items
        self.batches_in_flight += 1
        self.calls_in_flight += load.calls
        load.in_flight = self.batches_in_flight
        load.items_in_flight = self.items_in_flight
        self.slots_taken += load.slot

    def give_back(self, load: Load) -> None:
        """Subtract a batch that has ended from what is in flight."""
        self.items_in_flight -= load.items
        self.batches_in_flight -= 1
        self.calls_in_flight -= load.calls
        self.slots_taken -= load.slot

    def answered(self, load: Load, took_s: float, *, full_wait: bool) -> None:
        """Learn from a batch that was answered while a full one waited, or not."""
        self.limit.answered(load, took_s, full_wait=full_wait)
        if self.in_time.items != NO_LIMIT:
            self.met_deadline(load.items_in_flight, took_s)
