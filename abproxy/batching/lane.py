"""
One lane: the parts that may share a batch, while they wait for it.

The part that came first starts the timer and later ones never extend it; a full
batch does not wait for it.  With a wait of 0 there is no timer at all.  Which lane
sends the next batch is for the collector to say; a lane knows whether its own
is full or due, and which of its parts go together.
"""

from bisect import bisect
from collections import deque
from collections.abc import Callable, Sequence
from itertools import islice
from math import inf
from operator import attrgetter

from attrs import define, field
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from abproxy.batching.admission import Admission
from abproxy.batching.part import Caps, Part, Priority
from abproxy.dialects.call import LaneKey

__all__ = ["MAX_OVERTAKEN", "Lane", "choose_alike"]

MAX_OVERTAKEN = 4
"""How many batches may leave with younger parts before a part goes first."""

WINDOW_BATCHES = 8
"""How many batches' worth of parts, from the oldest on, are looked at."""


@define(kw_only=True, eq=False)
class Lane:
    """The parts of one lane that wait, in the order of their places."""

    key: LaneKey = field(repr=False)
    caps: Caps
    clock: IReactorTime = field(repr=False)
    admission: Admission = field(repr=False)

    max_wait_s: float
    """How long a part may wait for others to share its batch."""

    on_change: Callable[["Lane"], None] = field(repr=False)
    """Called when the batch has become due, or when a caller has left."""

    is_due: bool = field(default=False, init=False)
    """Whether the oldest part has waited long enough."""

    is_full: bool = field(default=False, init=False)
    """Whether a cap is reached."""

    items: int = field(default=0, init=False)
    size: int = field(default=0, init=False)
    calls: int = field(default=0, init=False)
    """How many parts wait; the lane is empty without one."""

    _held_until: float | None = field(default=None, init=False)
    """Until when nothing leaves, as its requests fail."""

    _parts: deque[Part] = field(init=False, factory=deque)
    """Cancelled ones among them, but never as the first."""

    _timer: IDelayedCall | None = field(init=False, default=None, repr=False)

    @property
    def first(self) -> Part:
        """Return the part that is next, of a lane in which one waits."""
        return self._parts[0]

    @property
    def oldest_arrived_at(self) -> float | None:
        """Return when the part arrived that has waited longest."""
        arrivals = (part.arrived_at for part in self._parts if not part.cancelled)
        return min(arrivals, default=None)

    @property
    def priority(self) -> Priority | None:
        """Return the place of the first part in the queue over all lanes."""
        return self._parts[0].priority if self._parts else None

    @property
    def last_priority(self) -> Priority | None:
        """Return the place of the last part in the queue over all lanes."""
        return self._parts[-1].priority if self._parts else None

    @property
    def next_items(self) -> int:
        """Return how many items the next batch holds at most."""
        return min(self.items, self.caps.items)

    def add(self, part: Part) -> bool:
        """Insert *part* in its place, and return whether it makes a batch full."""
        part.on_cancel = self._drop
        waiting = self._parts
        if waiting and part.priority < waiting[-1].priority:
            # Mostly near the start: there is the turn of those with one call.
            at = bisect(waiting, part.priority, key=attrgetter("priority"))
            waiting.insert(at, part)
        else:
            waiting.append(part)
        self.items += len(part.items)
        self.size += part.size
        self.calls += 1
        self.admission.queued += 1
        if waiting[0] is part:
            self._set_timer()
        gets_full = not self.is_full and self._reaches_a_cap()
        self.is_full = self.is_full or gets_full
        return gets_full

    def hold(self, until: float | None) -> None:
        """Hold all parts *until* then; None ends that."""
        self._held_until = until
        self.is_full = self._reaches_a_cap()
        self._set_timer()

    def requeue(self, parts: list[Part]) -> None:
        """Add *parts* again, each where it was."""
        for part in parts:
            part.on_cancel = self._drop
        self._count(parts, +1)
        waiting = sorted([*parts, *self._parts], key=attrgetter("priority"))
        self._parts = deque(waiting)
        self._clear_head()
        self._set_timer()

    def take(self, caps: Caps, *, alike: bool) -> list[Part]:
        """
        Remove and return the parts of one batch, at least the oldest part.

        Args:
            caps: what fits into the batch.
            alike: whether those of similar length go together.
        """
        parts = self._take_alike(caps) if alike else self._take_oldest(caps)
        self._account_for_leaving(parts)
        self._set_timer()
        return parts

    def take_if(self, is_taken: Callable[[Part], bool]) -> list[Part]:
        """Remove and return those parts for which *is_taken* is true."""
        waiting = [part for part in self._parts if not part.cancelled]
        taken = [part for part in waiting if is_taken(part)]
        self._account_for_leaving(taken)
        leaving = set(taken)
        self._parts = deque(part for part in waiting if part not in leaving)
        self._set_timer()
        return taken

    def set_limits(self, caps: Caps, max_wait_s: float) -> None:
        """Apply new limits, also to what waits already."""
        self.caps = caps
        self.max_wait_s = max_wait_s
        self.is_full = self._reaches_a_cap()
        self._set_timer()

    def _drop(self, part: Part) -> None:
        """
        Remove *part*, whose caller has left.

        It stays among the others, so that leaving costs the same however many
        there are.  But most of them are never cancelled ones: behind a first
        part that waits long, callers may come and go without end.
        """
        self._account_for_leaving((part,))
        if self._parts[0] is part:
            self._clear_head()
            self._set_timer()
        elif len(self._parts) > 2 * self.calls:
            self._parts = deque(each for each in self._parts if not each.cancelled)
        self.on_change(self)

    def _take_oldest(self, caps: Caps) -> list[Part]:
        waiting, batch = self._parts, list[Part]()
        items = size = 0
        while waiting and len(batch) < caps.calls:
            part = waiting[0]
            items += len(part.items)
            size += part.size
            if batch and (items > caps.items or size > caps.size):
                break
            batch.append(waiting.popleft())
            if waiting and waiting[0].cancelled:
                self._clear_head()
        return batch

    def _take_alike(self, caps: Caps) -> list[Part]:
        width = min(len(self._parts), WINDOW_BATCHES * caps.items)
        window = [self._parts.popleft() for _ in range(width)]
        window = [part for part in window if not part.cancelled]
        batch = choose_alike(window, caps)
        leaving = set(batch)
        stay = [part for part in window if part not in leaving]
        self._parts.extendleft(reversed(stay))
        self._clear_head()
        return batch

    def _clear_head(self) -> None:
        while self._parts and self._parts[0].cancelled:
            self._parts.popleft()

    def _account_for_leaving(self, parts: Sequence[Part]) -> None:
        self._count(parts, -1)
        self.admission.leave(parts)

    def _count(self, parts: Sequence[Part], sign: int) -> None:
        for part in parts:
            self.items += sign * len(part.items)
            self.size += sign * part.size
        self.calls += sign * len(parts)
        self.admission.queued += sign * len(parts)
        self.is_full = self._reaches_a_cap()

    def _reaches_a_cap(self) -> bool:
        if self._held_until is not None and self._held_until > self.clock.seconds():
            return False
        return self.caps.are_reached(self.calls, self.items, self.size)

    def _set_timer(self) -> None:
        """Start the wait of the part that is to leave earliest."""
        self.is_due = False
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self._parts:
            return
        due_at = self._due_at()
        if self._held_until is not None:
            due_at = max(due_at, self._held_until)
            if due_at == inf:
                return
        left_s = due_at - self.clock.seconds()
        self.is_due = left_s <= 0
        if not self.is_due:
            self._timer = self.clock.callLater(left_s, self._becomes_due)

    def _due_at(self) -> float:
        """Return until when the first part waits, or one that came before it."""
        first = self._parts[0]
        if not (self.max_wait_s and first.may_be_held):
            return first.arrived_at
        # More parts than that are a full batch.
        window = islice(self._parts, self.caps.items)
        came_at = min([part.arrived_at for part in window if not part.cancelled])
        return came_at + self.max_wait_s

    def _becomes_due(self) -> None:
        self._timer = None
        self.is_due = True
        self.on_change(self)


# Packing
#
# An upstream that pads computes every input as if it were the longest beside
# it.  So the oldest part leaves with those closest to it in length.  No part
# pays with waiting for ever: one that has been overtaken by a few batches goes
# first, whatever its length.


def choose_alike(window: Sequence[Part], caps: Caps) -> list[Part]:
    """
    Choose the parts of the next batch, and count for the others who overtakes them.

    Args:
        window: waiting parts, the oldest first.
        caps: what fits into a batch.

    Returns:
        The parts, by length; at least the oldest one.
    """
    oldest = window[0]

    def reluctance(part: Part) -> tuple[bool, float]:
        may_wait = part is not oldest and part.overtaken < MAX_OVERTAKEN
        return may_wait, may_wait * abs(part.mean_size - oldest.mean_size)

    batch = _as_many_as_fit(sorted(window, key=reluctance), caps)
    _count_overtaken(window, batch)
    return sorted(batch, key=lambda part: part.mean_size)


def _as_many_as_fit(wanted: Sequence[Part], caps: Caps) -> list[Part]:
    batch: list[Part] = []
    items = size = 0
    for part in wanted[: caps.calls]:
        items += len(part.items)
        size += part.size
        if batch and (items > caps.items or size > caps.size):
            break
        batch.append(part)
    return batch


def _count_overtaken(window: Sequence[Part], batch: Sequence[Part]) -> None:
    leaving = set(batch)
    youngest = max(part.priority for part in batch)
    for part in window:
        if part.priority < youngest and part not in leaving:
            part.overtaken += 1
