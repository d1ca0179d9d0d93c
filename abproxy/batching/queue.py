"""
The queue: all parts that wait for one upstream, oldest first.

Each part has its place in one queue over all lanes, and keeps it when the
upstream takes no work, unless that may be about this part only.  Of the lanes
whose batch may leave, the one with the oldest part is next.

A part that was in two requests whose connection broke may be what kills the
upstream.  It waits in quarantine, apart from the lanes, until it can be sent
alone, with nothing else in flight: then the next break is due to this part, and
harms no other.
"""

from collections import deque
from collections.abc import Callable, Collection, Sequence
from enum import Enum, auto
from functools import partial
from heapq import heapify, heappop, heappush
from itertools import count
from operator import attrgetter

from attrs import define, evolve, field
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from abproxy.batching.admission import Admission
from abproxy.batching.lane import Lane
from abproxy.batching.part import (
    ANY_NUMBER,
    Caps,
    LargeCall,
    Part,
    Priority,
    end_of_part,
    reject,
    size_of,
    whole_part,
)
from abproxy.dialects.call import Call, LaneKey, PartResult
from abproxy.errors import ProxyError

__all__ = ["QUARANTINE_AFTER", "HeldBy", "Queue"]

QUARANTINE_AFTER = 2
"""Broken connections after which a part is sent alone; after one more it fails."""

BULK_HANDICAP_S = 10.0
"""How much older another call counts than a bulk one that came with it."""

TIDY_OVER = 100
"""Entries of a heap that are not worth looking through."""

_Entry = tuple[Priority, int, Lane]


class HeldBy(Enum):
    """The reason to hold a lane."""

    BACKOFF = auto()
    """The upstream takes none of its work at the moment."""

    OUT = auto()
    """All that it sent failed: one part leaves at a time."""


@define(eq=False)
class _OldestFirst:
    """
    The lanes that fulfil a condition, the one with the oldest part first.

    It is a heap that tolerates change: an entry is left in it when its lane
    changes, and thrown away when it comes up and is no longer true, or when
    there are many of its kind.
    """

    _holds: Callable[[Lane], bool]
    _heap: list[_Entry] = field(init=False, factory=list)
    _listed: dict[Priority, Lane] = field(init=False, factory=dict)
    _serial: "count[int]" = field(init=False, factory=count)
    _tidy_over: int = field(init=False, default=TIDY_OVER)

    def note(self, lane: Lane) -> None:
        """Enter a *lane* that fulfils the condition, if it is not there already."""
        priority = lane.priority
        if priority is None or self._listed.get(priority) is lane:
            return
        self._listed[priority] = lane
        heappush(self._heap, (priority, next(self._serial), lane))
        if len(self._heap) > self._tidy_over:
            self._tidy()

    def first(self) -> Lane | None:
        """Return the lane whose oldest part is the oldest."""
        while self._heap:
            priority, _, lane = entry = self._heap[0]
            if self._is_true(entry):
                return lane
            heappop(self._heap)
            if self._listed.get(priority) is lane:
                del self._listed[priority]
        return None

    def _is_true(self, entry: _Entry) -> bool:
        priority, _, lane = entry
        return lane.priority == priority and self._holds(lane)

    def _tidy(self) -> None:
        """Throw away what is no longer true, before most of it is."""
        self._heap = list(filter(self._is_true, self._heap))
        heapify(self._heap)
        self._listed = {priority: lane for priority, _, lane in self._heap}
        self._tidy_over = max(TIDY_OVER, 2 * len(self._heap))


@define(kw_only=True, eq=False)
class Queue:
    """
    All parts that wait, in lanes or in quarantine.

    A lane exists as long as a part waits in it, so that a million different
    option sets leave no memory behind.  Only the one that emptied last is kept:
    its next call often comes soon.
    """

    clock: IReactorTime = field(repr=False)
    admission: Admission = field(repr=False)

    caps: Caps
    """What fits into a batch now."""

    max_wait_s: float

    on_change: Callable[[], None] = field(repr=False)
    """Called when a batch may have become ready, by itself or as a caller left."""

    caps_of: Callable[[LaneKey, Caps], Caps] = field(repr=False)
    """Return what fits into a batch of a lane, where that is less than elsewhere."""

    held: dict[LaneKey, dict[HeldBy, float]] = field(
        init=False, factory=dict, repr=False
    )
    """Lanes of which nothing leaves until then, whether parts wait in them or not."""

    _held_back: set[Lane] = field(init=False, factory=set, repr=False)
    """Those in which parts wait."""

    lanes: Collection[Lane] = field(init=False, repr=False)
    """The lanes in which parts wait."""

    _lanes: dict[LaneKey, Lane] = field(init=False, factory=dict, repr=False)
    _emptied: Lane | None = field(init=False, default=None, repr=False)
    _full: _OldestFirst = field(
        init=False, factory=partial(_OldestFirst, attrgetter("is_full")), repr=False
    )
    _due: _OldestFirst = field(
        init=False, factory=partial(_OldestFirst, attrgetter("is_due")), repr=False
    )
    _quarantined: deque[Part] = field(init=False, factory=deque, repr=False)
    _serial: "count[int]" = field(init=False, factory=count, repr=False)

    def __attrs_post_init__(self) -> None:
        self.lanes = self._lanes.values()

    @property
    def oldest_arrived_at(self) -> float | None:
        """Return when the part arrived that has waited longest."""
        arrivals = [lane.oldest_arrived_at for lane in self._lanes.values()]
        arrivals += [part.arrived_at for part in self._quarantined]
        return min((at for at in arrivals if at is not None), default=None)

    @property
    def has_full(self) -> bool:
        """Return whether a full batch waits."""
        return self._full.first() is not None

    @property
    def has_due(self) -> bool:
        """Return whether a batch waits that has waited long enough."""
        return self._due.first() is not None

    @property
    def has_quarantined(self) -> bool:
        """Return whether a part waits to be sent alone."""
        return bool(self._quarantined)

    @property
    def has_held_back(self) -> bool:
        """Return whether parts wait in a lane that is held."""
        return bool(self._held_back)

    def next_lane(self, *, also_not_full: bool) -> Lane | None:
        """Return the lane whose batch leaves next."""
        ready = [self._full.first()]
        if also_not_full:
            ready.append(self._due.first())
        return min(filter(None, ready), key=attrgetter("priority"), default=None)

    def next_lane_by(self, turn_of: Callable[[LaneKey], int]) -> Lane | None:
        """Return the lane that may send and has the lowest turn; it looks at all."""

        def place(lane: Lane) -> tuple[int, Priority | None]:
            return turn_of(lane.key), lane.priority

        ready = (lane for lane in self.lanes if lane.is_full or lane.is_due)
        return min(ready, key=place, default=None)

    def submit(
        self, call: Call, size: int, caps: Caps
    ) -> tuple[Deferred[list[PartResult]], bool]:
        """
        Queue *call* up, or the first part of it, if there is room.

        Args:
            call: what is to be sent.
            size: the bytes of its items.
            caps: what fits into a part of it.

        Returns:
            what fires with its results, and whether it makes a batch full.

        Raises:
            Overloaded: too much is waiting already.
            CallTooLarge: there never is room for it.
        """
        items, client, now = call.items.raw, call.client, self.clock.seconds()
        if caps.items < ANY_NUMBER:
            caps = self.admission.fit(caps)
        fits = len(items) <= caps.items and size <= caps.size
        if fits or call.lane_key.serial:
            self.admission.admit(client, len(items), size)
            whole = whole_part(call, size, now)
            return whole.waiter, self.add(whole)
        first = items[: end_of_part(items, 0, caps)]
        first_size = size_of(first)
        self.admission.admit(
            client,
            len(first),
            first_size,
            rest_items=len(items) - len(first),
            rest_size=size - first_size,
        )
        large = LargeCall(call=call, left_size=size, on_stop=self.admission.forget_rest)
        return large.done, self.add(large.next_part(caps, now))

    def add(self, part: Part) -> bool:
        """Add *part* at the end, and return whether it makes a batch full."""
        key = part.call.lane_key
        handicap_s = BULK_HANDICAP_S if key.is_bulk else 0.0
        part.priority = (self.clock.seconds() + handicap_s, next(self._serial))
        lane = self._lane_of(key)
        gets_full = lane.add(part)
        if gets_full or lane.calls == 1:
            self._note(lane)
        return gets_full

    def take(self, lane: Lane, caps: Caps, *, alike: bool) -> list[Part]:
        """
        Remove and return the parts of the next batch of *lane*.

        Only now the next parts of their calls queue up, at the end.
        """
        if self.held and HeldBy.OUT in self.held.get(lane.key, ()):
            parts = lane.take(evolve(caps, calls=1), alike=False)
        else:
            parts = lane.take(caps, alike=alike)
        self._note(lane)
        for part in parts:
            call, part.rest_of = part.rest_of, None
            if call is not None and call.left_items:
                self._add_next_part(call, lane)
        return parts

    def _add_next_part(self, call: LargeCall, lane: Lane) -> None:
        caps = self.admission.fit(lane.caps)
        part = call.next_part(caps, self.clock.seconds())
        self.admission.advance(part)
        self.add(part)

    def requeue(self, parts: Sequence[Part]) -> None:
        """Give *parts* of one lane, which came back unsent, their places again."""
        self.quarantine([p for p in parts if p.connection_failures >= QUARANTINE_AFTER])
        others = [p for p in parts if p.connection_failures < QUARANTINE_AFTER]
        if not others:
            return
        for part in others:
            self.admission.enter(part)
        lane = self._lane_of(others[0].call.lane_key)
        lane.requeue(others)
        self._lane_changed(lane)

    def quarantine(self, parts: Sequence[Part]) -> None:
        """Keep each of *parts* to be sent alone: it may be what breaks the upstream."""
        for part in parts:
            self.admission.enter(part)
            part.on_cancel = self._drop_quarantined
            self._quarantined.append(part)

    @property
    def first_quarantined(self) -> Part:
        """Return the next part that is to be sent alone."""
        return self._quarantined[0]

    def take_quarantined(self) -> Part:
        """Remove and return the next part that is to be sent alone."""
        part = self._quarantined.popleft()
        self.admission.leave((part,))
        return part

    def hold(self, key: LaneKey, by: HeldBy, until: float) -> None:
        """Hold the lane with *key* until then, and longer if another reason does."""
        self.held.setdefault(key, {})[by] = until
        lane = self._lanes.get(key)
        if lane is not None:
            self._hold(lane)
            if lane.calls:
                self._note(lane)

    def release(self, key: LaneKey, by: HeldBy) -> None:
        """End the hold of the lane with *key* for one reason."""
        reasons = self.held.get(key)
        if reasons is None or reasons.pop(by, None) is None:
            return
        if not reasons:
            del self.held[key]
        self._emptied = None
        lane = self._lanes.get(key)
        if lane is not None:
            self._hold(lane)
            self._lane_changed(lane)

    def _hold(self, lane: Lane) -> None:
        reasons = self.held.get(lane.key)
        if reasons is None:
            lane.hold(None)
            self._held_back.discard(lane)
        else:
            lane.hold(max(reasons.values()))
            self._held_back.add(lane)

    def take_if(self, key: LaneKey, is_taken: Callable[[Part], bool]) -> list[Part]:
        """Remove and return those parts of one lane for which *is_taken* is true."""
        parts: list[Part] = []
        for lane in self._lane_if_any(key):
            parts = lane.take_if(is_taken)
            self._note(lane)
        return parts

    def expire(
        self,
        is_expired: Callable[[Part], bool],
        error: ProxyError,
        only: LaneKey | None = None,
    ) -> None:
        """
        Reject all that have waited too long with *error*, or those of one lane *only*.

        It is an error of ours, as no reply of the upstream can be an answer to
        parts that still wait.
        """
        expired = [part for part in self._quarantined if is_expired(part)]
        for part in expired:
            self._quarantined.remove(part)
        self.admission.leave(expired)
        reject(expired, error)
        expired = []
        lanes = list(self._lanes.values()) if only is None else self._lane_if_any(only)
        for lane in lanes:
            expired += lane.take_if(is_expired)
            self._note(lane)
        self.on_change()
        reject(expired, error)

    def set_limits(self, caps: Caps, max_wait_s: float) -> None:
        """Apply other limits from now on, also to what waits already."""
        self.caps, self.max_wait_s = caps, max_wait_s
        self._emptied = None
        for lane in self._lanes.values():
            lane.set_limits(self.caps_of(lane.key, caps), max_wait_s)
            self._note(lane)
        self.on_change()

    def set_limits_of(self, key: LaneKey) -> None:
        """Apply the limits of one lane from now on, as they have changed."""
        self._emptied = None
        lane = self._lanes.get(key)
        if lane is not None:
            lane.set_limits(self.caps_of(key, self.caps), self.max_wait_s)
            self._lane_changed(lane)

    def _lane_of(self, key: LaneKey) -> Lane:
        lane = self._lanes.get(key)
        if lane is None:
            lane = self._emptied
            if lane is None or lane.key != key:
                lane = self._make_lane(key)
            self._lanes[key] = lane
            if self.held:
                self._hold(lane)
        return lane

    def _lane_if_any(self, key: LaneKey) -> list[Lane]:
        lane = self._lanes.get(key)
        return [] if lane is None else [lane]

    def _make_lane(self, key: LaneKey) -> Lane:
        return Lane(
            key=key,
            caps=self.caps_of(key, self.caps),
            clock=self.clock,
            admission=self.admission,
            max_wait_s=self.max_wait_s,
            on_change=self._lane_changed,
        )

    def _lane_changed(self, lane: Lane) -> None:
        self._note(lane)
        self.on_change()

    def _note(self, lane: Lane) -> None:
        if not lane.calls:
            del self._lanes[lane.key]
            self._held_back.discard(lane)
            self._emptied = lane
            return
        if lane.is_full:
            self._full.note(lane)
        if lane.is_due:
            self._due.note(lane)

    def _drop_quarantined(self, part: Part) -> None:
        self._quarantined.remove(part)
        self.admission.leave((part,))
        self.on_change()
