"""
One lane's batch while it fills.

The first part starts the timer and later ones never extend it; a full batch
does not wait for it.  With a wait of 0 there is no timer at all.  Which batch
leaves next is for the departures to say; a collector knows whether its own is
full or due, and gives up its parts.
"""

from collections import deque
from collections.abc import Callable, Sequence
from operator import attrgetter

from attrs import define, field, frozen
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from abproxy.batching.admission import Admission
from abproxy.batching.packing import WINDOW_BATCHES, choose
from abproxy.batching.part import Caps, Part, Turn
from abproxy.dialects.call import LaneKey

__all__ = ["Lane", "TakenParts"]


@frozen(kw_only=True)
class TakenParts:
    """The parts that leave together."""

    parts: list[Part]

    is_packed: bool
    """Whether they were chosen by length."""


@define(kw_only=True, eq=False)
class Lane:
    """The parts of one lane that wait, oldest first."""

    lane: LaneKey = field(repr=False)
    caps: Caps
    clock: IReactorTime = field(repr=False)
    room: Admission = field(repr=False)

    max_wait_s: float
    """How long a part may be held for company."""

    changed: Callable[["Lane"], None] = field(repr=False)
    """Called when the batch may have become full or due, or empty."""

    is_due: bool = field(default=False, init=False)
    """Whether the oldest part has been held long enough."""

    is_full: bool = field(default=False, init=False)
    """Whether a cap is reached."""

    items: int = field(default=0, init=False)
    size: int = field(default=0, init=False)
    calls: int = field(default=0, init=False)
    _queue: deque[Part] = field(init=False, factory=deque)
    _timer: IDelayedCall | None = field(init=False, default=None, repr=False)

    @property
    def is_empty(self) -> bool:
        """Whether nobody waits here."""
        return not self._queue

    @property
    def oldest_arrived_at(self) -> float | None:
        """When the one whose turn is next came."""
        return self._queue[0].arrived_at if self._queue else None

    @property
    def turn(self) -> Turn | None:
        """The place of the oldest part in the queue of all lanes."""
        return self._queue[0].turn if self._queue else None

    @property
    def next_items(self) -> int:
        """How many items the next batch holds at most."""
        return min(self.items, self.caps.items)

    def submit(self, part: Part) -> bool:
        """Add *part* at the end of the queue, and say whether it makes a batch full."""
        is_first, was_full = not self._queue, self.is_full
        part.holder = self
        self._queue.append(part)
        self.items += len(part.items)
        self.size += part.size
        self.calls += 1
        if is_first:
            self._arm()
        gets_full = not was_full and self._reaches_a_cap()
        if is_first or gets_full:
            self.is_full = was_full or gets_full
            self.changed(self)
        return gets_full

    def put_back(self, parts: list[Part]) -> None:
        """Take *parts* in again, each where it was in the queue."""
        for part in parts:
            part.holder = self
        self._count(parts, +1)
        waiting = sorted([*parts, *self._queue], key=attrgetter("turn"))
        self._queue = deque(waiting)
        self._clear_head()
        self._arm()
        self.changed(self)

    def take(self, caps: Caps, *, packs: bool) -> TakenParts:
        """
        Give up the parts of one batch, at least the oldest part.

        Args:
            caps: what fits into the batch.
            packs: whether parts of similar length leave together if many wait.
        """
        many = packs and self.items > caps.items
        parts = self._take_alike(caps) if many else self._take_oldest(caps)
        self._leave(parts)
        self._arm()
        self.changed(self)
        return TakenParts(parts=parts, is_packed=many)

    def drop(self, part: Part) -> None:
        """
        Forget *part*, whose caller has left.

        It stays in the queue as an empty seat, so that leaving costs the same
        however long the queue is.  But no queue is mostly empty seats: behind
        a head that waits long, callers may come and go without end.
        """
        self._leave((part,))
        if self._queue[0] is part:
            self._clear_head()
            self._arm()
        elif len(self._queue) > 2 * self.calls:
            self._queue = deque(one for one in self._queue if not one.gone)
        self.changed(self)

    def give_up(self, has_waited_too_long: Callable[[Part], bool]) -> list[Part]:
        """Take out the parts that have waited too long."""
        waiting = [part for part in self._queue if not part.gone]
        overdue = [part for part in waiting if has_waited_too_long(part)]
        self._leave(overdue)
        leaving = set(overdue)
        self._queue = deque(part for part in waiting if part not in leaving)
        self._arm()
        self.changed(self)
        return overdue

    def go_by(self, caps: Caps, max_wait_s: float) -> None:
        """
        Go by other limits from now on, those who wait already among them.

        Nobody is told: other lanes may have to hear of the limits first.
        """
        self.caps = caps
        self.max_wait_s = max_wait_s
        self._count((), 0)
        self._arm()

    def _take_oldest(self, caps: Caps) -> list[Part]:
        queue, batch = self._queue, list[Part]()
        items = size = 0
        while queue and len(batch) < caps.calls:
            part = queue[0]
            items += len(part.items)
            size += part.size
            if batch and (items > caps.items or size > caps.size):
                break
            batch.append(queue.popleft())
            if queue and queue[0].gone:
                self._clear_head()
        return batch

    def _take_alike(self, caps: Caps) -> list[Part]:
        width = min(len(self._queue), WINDOW_BATCHES * caps.items)
        window = [self._queue.popleft() for _ in range(width)]
        window = [part for part in window if not part.gone]
        batch = choose(window, caps)
        leaving = set(batch)
        stay = [part for part in window if part not in leaving]
        self._queue.extendleft(reversed(stay))
        self._clear_head()
        return batch

    def _clear_head(self) -> None:
        while self._queue and self._queue[0].gone:
            self._queue.popleft()

    def _leave(self, parts: Sequence[Part]) -> None:
        self._count(parts, -1)
        self.room.leave(parts)

    def _count(self, parts: Sequence[Part], sign: int) -> None:
        for part in parts:
            self.items += sign * len(part.items)
            self.size += sign * part.size
        self.calls += sign * len(parts)
        self.is_full = self._reaches_a_cap()

    def _reaches_a_cap(self) -> bool:
        caps = self.caps
        return (
            self.items >= caps.items
            or self.calls >= caps.calls
            or self.size >= caps.size
        )

    def _arm(self) -> None:
        self._disarm()
        if not self._queue:
            return
        left_s = self._queue[0].arrived_at + self.max_wait_s - self.clock.seconds()
        self.is_due = left_s <= 0
        if not self.is_due:
            self._timer = self.clock.callLater(left_s, self._ring)

    def _disarm(self) -> None:
        self.is_due = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _ring(self) -> None:
        self._timer = None
        self.is_due = True
        self.changed(self)
