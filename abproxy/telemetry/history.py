"""
History: totals since the start, figures of the last hour, and recent events.

`Totals` only grow.  What happened lately is the difference to a copy that was
put aside; one is put aside every minute in which something happens, or the
numbers are looked at.

The last batches and errors are short lists: longer series belong to what
collects the metrics.  They hold no text that a client sent.
"""

from collections import deque
from collections.abc import Callable, Iterator
from itertools import count

import attrs
from attrs import define, field, frozen
from twisted.internet.interfaces import IReactorTime

from abproxy.events import BatchSent, BlockedBy

__all__ = [
    "OFTEN",
    "SHARED_FROM",
    "BlockedTime",
    "RecentBatch",
    "RecentError",
    "RecentLog",
    "Totals",
    "Window",
]

COPY_EVERY_S = 60.0
"""How old the latest copy is before another is put aside, in seconds."""

ENOUGH_BATCHES = 20
"""Fewer batches of a kind give no figure for it."""

SHARED_FROM = 1.2
"""Calls per request from which on calls count as sharing requests."""

OFTEN = 0.2
"""The share of time, or of batches, from which on something is reported."""

LATELY_S = 3600.0
"""How far back "lately" reaches, in seconds."""

BATCHES = 256
ERRORS = 50
"""How many of each are kept."""


@define(kw_only=True)
class Totals:
    """Counts and sums of seconds, since the start or over a time."""

    at: float = 0.0
    """When these numbers were true, or over how many seconds they were counted."""

    cpu_s: float = 0.0
    """CPU time of this process."""

    calls: int = 0
    """Batched calls that are over, answered or not."""

    errors: int = 0
    """Those of them that were answered with a status of 400 or more."""

    relayed: int = 0
    refused: int = 0
    refused_for_room: int = 0
    """Those of them that were refused because the queue was full."""

    failed: int = 0
    cancelled: int = 0
    parts: int = 0
    """Calls, or parts of large ones, that left."""

    items: int = 0
    size: int = 0
    """Bytes of these items."""

    reused: int = 0
    """Items that were not computed again."""

    sampled: int = 0
    repeated: int = 0
    """Of the items that were sampled those that were asked for before."""

    batches: int = 0
    full: int = 0
    """Batches that were full when they left."""

    wait_s: float = 0.0
    """How long the parts had waited, added up."""

    requests: int = 0
    """Requests to the upstream, with those that find a bad input or try again."""

    alone_batches: int = 0
    alone_items: int = 0
    alone_s: float = 0.0
    """
    The upstream's time for batches of one part.

    Where several requests were in flight at once, each is charged its share.
    """

    shared_batches: int = 0
    shared_items: int = 0
    shared_s: float = 0.0
    """The same for batches of several parts."""

    few_batches: int = 0
    few_items: int = 0
    few_s: float = 0.0
    """The same for batches that were nearly empty."""

    many_batches: int = 0
    many_items: int = 0
    many_s: float = 0.0
    """The same for batches that were nearly full."""

    kept_by_slot_s: float = 0.0
    """For how long a batch was ready, and no slot free."""

    kept_by_budget_s: float = 0.0
    kept_by_account_s: float = 0.0
    kept_by_upstream_s: float = 0.0

    crowded_out: int = 0
    """Batches of one call that left while others waited that could not share it."""

    crowded_out_by_key: int = 0
    """Those of them that went with the client's own credentials."""

    @property
    def calls_per_request(self) -> float:
        """Return the calls, or parts of large ones, per request."""
        return self.parts / max(1, self.requests)

    @property
    def shares_requests(self) -> bool:
        """Return whether calls share requests."""
        return self.calls_per_request >= SHARED_FROM

    @property
    def is_crowded_out(self) -> bool:
        """Return whether calls often leave alone although others wait."""
        return self.crowded_out > OFTEN * self.batches

    @property
    def cpu_s_per_call(self) -> float:
        """Return the CPU time of a call, relayed ones included."""
        return self.cpu_s / max(1, self.calls + self.relayed)

    @property
    def alone_ms_per_item(self) -> float | None:
        """Return the upstream's time for an input in a request of one call."""
        if self.alone_batches < ENOUGH_BATCHES:
            return None
        return 1000 * self.alone_s / self.alone_items

    @property
    def shared_ms_per_item(self) -> float | None:
        """Return the upstream's time for an input in a request of several calls."""
        if self.shared_batches < ENOUGH_BATCHES:
            return None
        return 1000 * self.shared_s / self.shared_items

    @property
    def few(self) -> tuple[float, float] | None:
        """Return the inputs of a request that was nearly empty, and its time in ms."""
        return _mean(self.few_batches, self.few_items, self.few_s)

    @property
    def many(self) -> tuple[float, float] | None:
        """Return the same for one that was nearly full."""
        return _mean(self.many_batches, self.many_items, self.many_s)

    def share_of_time(self, seconds: float) -> float:
        """Return which share of the whole time *seconds* are."""
        return seconds / self.at if self.at > 0 else 0.0

    def minus(self, earlier: "Totals") -> "Totals":
        """Return what has happened since *earlier*."""
        names = [each.name for each in attrs.fields(Totals)]
        since = {name: getattr(self, name) - getattr(earlier, name) for name in names}
        return Totals(**since)


def _mean(batches: int, items: int, seconds: float) -> tuple[float, float] | None:
    if batches < ENOUGH_BATCHES:
        return None
    return items / batches, 1000 * seconds / batches


@define(kw_only=True, eq=False)
class Window:
    """The last hour: the copies that were put aside, the oldest first."""

    now: Callable[[], Totals] = field(repr=False)
    """Return the numbers as they are."""

    next_at: float = field(init=False, default=0.0)
    """Before that there is nothing to note."""

    _copies: deque[Totals] = field(init=False, factory=deque, repr=False)

    def __attrs_post_init__(self) -> None:
        self._copies.append(self.now())

    def note(self, at: float) -> None:
        """Copy the totals if a copy is due; to be called before they change."""
        if at - self._copies[-1].at >= COPY_EVERY_S:
            self._copies.append(self.now())
        # What came after so old a copy came within a minute, or after the next.
        too_old = at - LATELY_S - COPY_EVERY_S
        while self._copies[0].at <= too_old:
            self._copies.popleft()
        self.next_at = min(
            self._copies[-1].at + COPY_EVERY_S,
            self._copies[0].at + LATELY_S + COPY_EVERY_S,
        )

    def lately(self) -> Totals:
        """Return what has happened in the last hour, or since the start if shorter."""
        self.note(self.now().at)
        return self.now().minus(self._copies[0])


@frozen(kw_only=True)
class RecentBatch:
    """One batch that is over."""

    serial: int
    at: float
    """When it came back, by the clock of all timers."""

    route: str
    reason: str
    calls: int
    items: int
    wait_ms: float
    """How long its oldest part had waited when it was sent."""

    upstream_ms: float | None
    """How long the upstream took; None if it gave no good answer."""


@frozen(kw_only=True)
class RecentError:
    """One kind of error, as often as it came in a row."""

    at: float
    """When it came last."""

    reason: str
    message: str
    times: int


@define(eq=False)
class RecentLog:
    """The last batches and the last errors."""

    _batches: deque[tuple[int, float, BatchSent, float | None]] = field(
        init=False, factory=lambda: deque(maxlen=BATCHES)
    )
    errors: deque[RecentError] = field(init=False, factory=lambda: deque(maxlen=ERRORS))
    _serials: Iterator[int] = field(init=False, factory=lambda: count(1))

    def batch(self, at: float, batch: BatchSent, took_s: float | None) -> None:
        """Note a batch that came back *at* this moment."""
        self._batches.append((next(self._serials), at, batch, took_s))

    def batches(self, since: int = 0) -> Iterator[RecentBatch]:
        """List the batches after a serial, the oldest first."""
        for serial, at, batch, took_s in self._batches:
            if serial > since:
                yield _recent_batch(serial, at, batch, took_s)

    def error(self, at: float, reason: str, message: str) -> None:
        """Note an error; one that repeats itself takes one line."""
        times = 1
        if self.errors and self.errors[-1].reason == reason:
            times += self.errors.pop().times
        error = RecentError(at=at, reason=reason, message=message, times=times)
        self.errors.append(error)


def _recent_batch(
    serial: int, at: float, batch: BatchSent, took_s: float | None
) -> RecentBatch:
    return RecentBatch(
        serial=serial,
        at=at,
        route=batch.route,
        reason=batch.reason.value,
        calls=batch.parts,
        items=batch.items,
        wait_ms=round(max(batch.waits_s) * 1000, 3),
        upstream_ms=None if took_s is None else round(took_s * 1000, 3),
    )


@define(kw_only=True, eq=False)
class BlockedTime:
    """The cause that blocks batches now, and for how long each cause has so far."""

    clock: IReactorTime = field(repr=False)
    blocked_by: BlockedBy = field(init=False, default=BlockedBy.NOTHING)
    _since: float = field(init=False)
    _seconds: dict[BlockedBy, float] = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._since = self.clock.seconds()
        self._seconds = dict.fromkeys(BlockedBy, 0.0)

    def change(self, blocked_by: BlockedBy) -> None:
        """Note that batches are blocked by something else from now on."""
        now = self.clock.seconds()
        self._seconds[self.blocked_by] += now - self._since
        self._since = now
        self.blocked_by = blocked_by

    def seconds(self, blocked_by: BlockedBy) -> float:
        """Return for how long this has blocked batches, up to now."""
        is_current = blocked_by is self.blocked_by
        passed_s = self.clock.seconds() - self._since if is_current else 0.0
        return self._seconds[blocked_by] + passed_s
