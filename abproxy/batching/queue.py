"""
The queue: all parts that wait for one upstream.

Each part has its place in one queue over all lanes, in the order of arrival as
far as its client has its turn, and keeps it when the upstream takes no work,
unless that may be about this part only.  Of the lanes whose batch may leave, the
one with the first part is next; bulk ones stand behind all others for a while.
"""

from collections.abc import Callable, Collection, Sequence
from enum import Enum, auto

from attrs import define, evolve, field
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from abproxy.batching.admission import Admission
from abproxy.batching.joined import LargeCall, split_part
from abproxy.batching.lane import Lane
from abproxy.batching.part import (
    ANY_NUMBER,
    Caps,
    Part,
    Priority,
    end_of_part,
    reject,
    size_of,
    whole_part,
)
from abproxy.batching.quarantine import QUARANTINE_AFTER, Quarantine
from abproxy.batching.turns import ReadyLanes, Turns
from abproxy.dialects.call import Call, LaneKey, MayJoin, PartResult, may_join_all
from abproxy.errors import ProxyError

__all__ = ["HeldBy", "Queue"]

BULK_HANDICAP_S = 10.0
"""How much older another call counts than a bulk one that came with it."""


class HeldBy(Enum):
    """The reason to hold a lane."""

    BACKOFF = auto()
    """The upstream takes none of its work at the moment."""

    OUT = auto()
    """All that it sent failed: one part leaves at a time."""


@define(kw_only=True, eq=False)
class Queue:
    """
    The parts that wait, in lanes or in quarantine.

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

    may_join: MayJoin = field(repr=False)

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
    _ready: ReadyLanes = field(init=False, factory=ReadyLanes, repr=False)
    _ready_bulk: ReadyLanes = field(init=False, factory=ReadyLanes, repr=False)
    _turns: Turns = field(init=False, repr=False)
    quarantine: Quarantine = field(init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        self.lanes = self._lanes.values()
        self._turns = Turns(self.admission)
        self.quarantine = Quarantine(admission=self.admission, on_change=self.on_change)

    @property
    def oldest_arrived_at(self) -> float | None:
        """Return when the part arrived that has waited longest."""
        arrivals = [lane.oldest_arrived_at for lane in self._lanes.values()]
        arrivals.append(self.quarantine.oldest_arrived_at)
        return min((at for at in arrivals if at is not None), default=None)

    @property
    def has_full(self) -> bool:
        """Return whether a full batch waits."""
        return self._ready.has_full or self._ready_bulk.has_full

    @property
    def has_due(self) -> bool:
        """Return whether a batch waits that has waited long enough."""
        return self._ready.has_due or self._ready_bulk.has_due

    @property
    def has_held_back(self) -> bool:
        """Return whether parts wait in a lane that is held."""
        return bool(self._held_back)

    def next_lane(self, *, also_not_full: bool) -> Lane | None:
        """Return the lane whose batch leaves next."""
        lane = self._ready.first(also_not_full=also_not_full)
        bulk = self._ready_bulk.first(also_not_full=also_not_full)
        if lane is None or bulk is None:
            return lane or bulk
        is_bulk_next = bulk.first.arrived_at + BULK_HANDICAP_S < lane.first.arrived_at
        return bulk if is_bulk_next else lane

    def next_lane_by(self, turn_of: Callable[[LaneKey], int]) -> Lane | None:
        """Return the lane that may send and has the lowest turn; it looks at all."""

        def place(lane: Lane) -> tuple[int, bool, Priority | None]:
            return turn_of(lane.key), lane.key.is_bulk, lane.priority

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
        large = LargeCall(
            call=call,
            may_join=self.may_join,
            left_size=size,
            on_again=self._compute_again,
            on_stop=self.admission.forget_rest,
            collected=self.admission.collected,
        )
        return large.done, self.add(large.next_part(caps, now))

    def add(self, part: Part) -> bool:
        """Add *part* to its lane, and return whether it makes a batch full."""
        lane = self._lane_of(part.call.lane_key)
        part.priority = self._turns.place(part, lane.caps)
        gets_full = lane.add(part)
        if gets_full or lane.first is part:
            self._note(lane)
        return gets_full

    def take(self, lane: Lane, caps: Caps, *, alike: bool) -> list[Part]:
        """
        Remove and return the parts of the next batch of *lane*.

        Only now the next parts of their calls queue up.
        """
        clients = len(self.admission.of_clients)
        if self.held and HeldBy.OUT in self.held.get(lane.key, ()):
            parts = lane.take(evolve(caps, calls=1), alike=False)
        else:
            parts = lane.take(caps, alike=alike)
        self._turns.note_left(parts, lane.caps, clients)
        self._note(lane)
        for part in parts:
            call: LargeCall | None = part.rest_of
            part.rest_of = None
            if call is not None and call.left_items:
                self._add_next_part(call, lane)
        return parts

    def _add_next_part(self, call: LargeCall, lane: Lane) -> None:
        caps = self.admission.fit(lane.caps)
        part = call.next_part(caps, self.clock.seconds())
        self.admission.advance(part)
        self.add(part)

    def _compute_again(self, call: LargeCall) -> None:
        """Queue up a *call* whose parts are all made once more."""
        lane = self._lane_of(call.call.lane_key)
        part = call.next_part(self.admission.fit(lane.caps), self.clock.seconds())
        self.admission.enter(part)
        self.add(part)
        self.on_change()

    def split(self, part: Part, caps: Caps) -> list[Part]:
        """Make parts within *caps* that take the place of a *part*, and answer it."""
        # Those of a part of a large call are looked at together with its others.
        may_join = self.may_join if part.is_whole_call else may_join_all
        return split_part(part, caps, may_join, lambda part: self.requeue([part]))

    def requeue(self, parts: Sequence[Part], *, last: bool = False) -> None:
        """
        Queue *parts* of one lane again, which came back unsent, in their old places.

        Those whose caller has left meanwhile get none.
        """
        parts = [part for part in parts if not part.cancelled]
        self.quarantine.add(
            [p for p in parts if p.connection_failures >= QUARANTINE_AFTER]
        )
        others = [p for p in parts if p.connection_failures < QUARANTINE_AFTER]
        if not others:
            return
        lane = self._lane_of(others[0].call.lane_key)
        for part in others:
            self.admission.enter(part)
            if last:
                part.priority = self._turns.place_behind(
                    lane.last_priority, is_bulk=lane.key.is_bulk
                )
        lane.requeue(others)
        self._lane_changed(lane)

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
        reject(self.quarantine.take_if(is_expired), error)
        expired: list[Part] = []
        lanes = list(self._lanes.values()) if only is None else self._lane_if_any(only)
        for lane in lanes:
            expired += lane.take_if(is_expired)
            self._note(lane)
        self.on_change()
        reject(expired, error)

    def set_limits(self, caps: Caps, max_wait_s: float) -> None:
        """Apply new limits, also to what waits already."""
        self.caps, self.max_wait_s = caps, max_wait_s
        self._emptied = None
        for lane in self._lanes.values():
            lane.set_limits(self.caps_of(lane.key, caps), max_wait_s)
            self._note(lane)
        self.on_change()

    def set_limits_of(self, key: LaneKey) -> None:
        """Apply the limits of one lane, which have changed."""
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
        (self._ready_bulk if lane.key.is_bulk else self._ready).note(lane)
