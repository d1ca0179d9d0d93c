"""
Everything that decides *when* a batch leaves.

A full batch leaves as soon as the budget has room for it.  A batch that is
not full leaves when its oldest part has waited `max_wait` and a slot is free.
Among those that may leave, the one with the oldest part goes first, and none
overtakes it.  Arrival, answer, timer and departure all call one method.
"""

from collections.abc import Callable, Sequence

from attrs import define, evolve, field
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from abproxy.batching.admission import Admission
from abproxy.batching.backoff import Backoff
from abproxy.batching.batch import Batch, Count, by_length
from abproxy.batching.concurrency import Budget, Load
from abproxy.batching.gathering import gather, in_pieces
from abproxy.batching.lane import Lane
from abproxy.batching.lanes import Lanes
from abproxy.batching.part import Caps, Part, chain, size_of
from abproxy.batching.platform import Platform, tell
from abproxy.batching.quarantine import Quarantine
from abproxy.batching.refusal import (
    RetryTimeouts,
    in_our_words,
    is_for_all,
    pause_asked_for_s,
)
from abproxy.dialects.call import Call, LaneKey, PartResult
from abproxy.errors import CannotConnect, QueueTimeout
from abproxy.events import (
    BatchSent,
    BlockedBy,
    Cause,
    FlushReason,
    Observer,
)
from abproxy.http.messages import Response, Send

__all__ = ["BatchCollector"]

LOOK_EVERY_S = 1.0
"""How often calls are looked for that have waited too long, in seconds."""


def _always() -> Deferred[bool]:
    return succeed(True)


@define(kw_only=True, eq=False)
class BatchCollector:
    """All lanes to one upstream."""

    clock: IReactorTime = field(repr=False)
    send: Send = field(repr=False)
    caps: Caps
    budget: Budget
    room: Admission
    max_wait_s: float

    splits: bool = True
    """Whether a call larger than a batch is cut and joined again."""

    packs: bool = True
    """Whether calls of similar length leave together when many wait."""

    gathers: bool = True
    """Whether calls of one reactor turn leave together if the upstream is busy."""

    patience: RetryTimeouts = field(factory=RetryTimeouts)

    is_alive: Callable[[], Deferred[bool]] = field(default=_always, repr=False)
    """Ask whether the upstream answers at all; never fails."""

    call_timeout_s: float = 300.0
    """How long a call may wait for its turn."""

    count: Count = by_length
    """Count what each item of a batch cost."""

    observer: Observer = field(factory=Observer, repr=False)

    platform: Platform = field(init=False, repr=False)
    _trouble: Backoff = field(init=False)
    _next_look: IDelayedCall | None = field(init=False, default=None, repr=False)
    """When calls are looked for that have waited too long, if any wait."""

    _turn_end: IDelayedCall | None = field(init=False, default=None, repr=False)
    _arriving: bool = field(init=False, default=False, repr=False)
    _hurries: bool = field(init=False, default=False)
    """Whether the proxy is going to stop, whatever the settings say."""

    _planning: bool = field(init=False, default=False, repr=False)
    _alone: bool = field(init=False, default=False)
    """Whether a suspect is in flight, which nobody may join."""

    _obstacle: BlockedBy = field(init=False, default=BlockedBy.NOTHING)
    """What kept batches from leaving when they were last looked at."""

    def __attrs_post_init__(self) -> None:
        """Begin with nobody waiting and no trouble."""
        self.platform = Platform(
            clock=self.clock,
            room=self.room,
            lanes=Lanes(make=self._open_lane, changed=self._lane_changed),
            suspects=Quarantine(room=self.room, changed=self.replan),
        )
        self._trouble = Backoff(clock=self.clock, resume=self.replan)

    def submit(self, call: Call) -> Deferred[list[PartResult]]:
        """
        Take in *call*; fires with a result for each of its parts, in order.

        If the upstream refuses one part, its response is the only result.
        Cancelling takes the call's work along and harms nobody else.

        Raises:
            Overloaded: too much is waiting already.
        """
        parts = chain(call, self.caps, self.clock.seconds())
        self.room.admit(parts)
        results = gather(parts)
        self._arriving = True
        is_full = self.platform.enqueue(parts[0])
        self._arriving = False
        self._arrived(is_full=is_full)
        return results

    def takes(self, items: Sequence[bytes]) -> bool:
        """Whether *items* fit into one batch, or may be cut so that they do."""
        return self.splits or self._fits(items)

    def _fits(self, items: Sequence[bytes]) -> bool:
        return len(items) <= self.caps.items and size_of(items) <= self.caps.size

    def learn(self, caps: Caps, ceiling: int) -> None:
        """Go by other limits from now on: the upstream has changed its own."""
        self.caps = caps
        self.budget.limit.ceiling = ceiling
        self.budget.limit.batch = caps.items
        self.platform.lanes.go_by(caps, self._held_s)
        self.replan()

    def hurry(self) -> None:
        """Hold nobody for company from now on: the proxy is going to stop."""
        self._hurries = True
        self.platform.lanes.go_by(self.caps, self._held_s)

    def stop(self) -> None:
        """Leave no timer behind."""
        self._trouble.stop()
        self._look_no_more()
        if self._turn_end is not None:
            self._turn_end.cancel()
            self._turn_end = None

    def replan(self) -> None:
        """
        Let every batch leave that may leave now.

        An answer can arrive while its request is still being sent.  The plan
        is then under way already, and its loop sees what has changed.
        """
        if self._planning:
            return
        self._planning = True
        try:
            while (obstacle := self._one_leaves()) is None:
                pass
        finally:
            self._planning = False
        if obstacle is not self._obstacle:
            self._obstacle = obstacle
            self.observer.blocked(obstacle)
        self._look_if_somebody_waits()

    def _lane_changed(self) -> None:
        if not self._arriving:
            self.replan()

    def _arrived(self, *, is_full: bool) -> None:
        """
        Let a call leave, with those that arrive in the same turn.

        Who finds the upstream idle, or makes a batch full, leaves at once.
        Any other leaves at the end of the reactor's turn, which costs no time:
        what has arrived meanwhile is read first, and travels along.
        """
        if not self.gathers or is_full or not self.budget.batches_in_flight:
            self.replan()
        elif self._turn_end is None:
            self._turn_end = self.clock.callLater(0, self._end_turn)

    def _end_turn(self) -> None:
        self._turn_end = None
        self.replan()

    @property
    def _held_s(self) -> float:
        return 0.0 if self._hurries else self.max_wait_s

    def _may_leave(self) -> bool:
        if self._trouble.pauses or self._alone:
            return False
        if not self.budget.items_in_flight:
            return True
        # A suspect waits until nobody is left who could go down with it; and
        # after trouble one batch goes ahead to see whether it is over.
        is_over = self._trouble.began_at is None
        return not self.platform.suspects and (is_over or self._trouble.takes_long)

    def _one_leaves(self) -> BlockedBy | None:
        """Let the batch leave whose turn it is, or say why none does."""
        if not self.room.items:
            return BlockedBy.NOTHING
        if not self._may_leave():
            return BlockedBy.UPSTREAM
        if self.platform.suspects:
            self._alone = True
            self.is_alive().addCallback(self._try_suspect)
            return None
        slot_free = self.budget.slot_free
        lane = self.platform.lanes.next(also_not_full=slot_free)
        if lane is None:
            waits = not slot_free and self.platform.lanes.has_due
            return BlockedBy.SLOT if waits else BlockedBy.NOTHING
        if not self.budget.admits(lane.next_items):
            return BlockedBy.BUDGET
        self._leave(lane)
        return None

    def _try_suspect(self, is_alive: bool) -> None:  # noqa: FBT001
        """
        Send a suspect, if there is an upstream that it could kill.

        Behind a port that stays open while a server restarts, connections
        break as well, and nobody is to blame.
        """
        self._alone = is_alive and bool(self.platform.suspects)
        if self._alone:
            trip = Batch(parts=[self.platform.suspects.take()], road=self)
            self._depart(trip, FlushReason.SUSPECT)
        elif self.platform.suspects:
            away = CannotConnect("the inference server does not answer")
            self.put_back([self.platform.suspects.take()], away, shared=False)
        self.replan()

    def _leave(self, lane: Lane) -> None:
        reason = self._reason(lane)
        caps = self._caps_now(lane)
        batch = lane.take(caps, packs=self.packs)
        for part in batch.parts:
            if part.rest is not None and not part.rest.gone:
                self.platform.enqueue(part.rest)
            part.rest = None
        if self.splits and len(batch.parts[0].items) > caps.items:
            self.platform.take_in_again(in_pieces(batch.parts[0], caps))
            return
        trip = Batch(parts=batch.parts, road=self, sorts=batch.is_packed)
        self._depart(trip, reason)

    def _caps_now(self, lane: Lane) -> Caps:
        """Say what fits into a batch, if the upstream has less room than that."""
        room = self.budget.limit.items
        return lane.caps if room >= lane.caps.items else evolve(lane.caps, items=room)

    def _reason(self, lane: Lane) -> FlushReason:
        if lane.is_full:
            return FlushReason.FULL
        if self._hurries:
            return FlushReason.DRAIN
        return FlushReason.TIMER if self.max_wait_s else FlushReason.FREE

    def _depart(self, trip: Batch, reason: FlushReason) -> None:
        items = sum([len(part.items) for part in trip.parts])
        load = Load(items=items, slot=reason is not FlushReason.FULL)
        self.budget.take(load)
        departure = self._departure(trip, reason, load)
        self.observer.batch_sent(departure)
        self._trouble.tried()
        trip.start().addBoth(self._returned, trip, load, departure)

    def _departure(self, trip: Batch, reason: FlushReason, load: Load) -> BatchSent:
        now = self.clock.seconds()
        lane = trip.parts[0].call.lane
        size = sum([part.size for part in trip.parts])
        return BatchSent(
            route=lane.dialect.path.decode(),
            reason=reason,
            items=load.items,
            size=size,
            fill=self.caps.fill(len(trip.parts), load.items, size),
            waits_s=[now - part.arrived_at for part in trip.parts],
            in_flight=load.in_flight,
            lanes_left=len(self.platform.lanes),
            is_personal=lane.is_personal,
        )

    def _returned(
        self, _nothing: object, trip: Batch, load: Load, departure: BatchSent
    ) -> None:
        self.budget.give_back(load)
        if not self.budget.items_in_flight:
            self._alone = False
        try:
            self.observer.batch_done(departure, trip.answered_after_s)
            self._learn(trip, load)
        finally:
            # A bug in what is learnt must not keep those who wait.
            self.replan()

    def _learn(self, trip: Batch, load: Load) -> None:
        if trip.answered_after_s is not None:
            full_wait = self.platform.lanes.has_full
            self.budget.answered(load, trip.answered_after_s, full_wait=full_wait)

    def _look_if_somebody_waits(self) -> None:
        """Keep one timer for all who wait, and none for who leaves at once."""
        if not self.room.items:
            self._look_no_more()
        elif self._next_look is None:
            self._next_look = self.clock.callLater(LOOK_EVERY_S, self._look)

    def _look_no_more(self) -> None:
        if self._next_look is not None:
            self._next_look.cancel()
            self._next_look = None

    def _look(self) -> None:
        """Give an answer to those who have waited too long for their turn."""
        self._next_look = None
        error = QueueTimeout(f"no turn within {self.call_timeout_s:g} seconds")
        late_since = self.clock.seconds() - self.call_timeout_s

        def is_late(part: Part) -> bool:
            return part.arrived_at < late_since

        self.platform.give_up(is_late, error)
        self.replan()

    def caps_for_cutting(self) -> Caps | None:
        """What fits into a batch now; None if nothing may be cut."""
        return self.caps if self.splits else None

    def got_through(self) -> None:
        """The upstream has answered: whatever the trouble was, it is over."""
        self._trouble.is_over()

    def put_back(self, parts: list[Part], cause: Cause, *, shared: bool) -> None:
        """
        Let *parts* wait on, as the upstream took no work.

        Those whose patience is at its end hear why, also among those that have
        not been tried: nobody waits for ever.  A reply of the upstream reaches
        only who asked for it: a call that was alone in its request, or those
        in it who show the same credentials of their own.
        """
        if not parts:
            return
        lane = parts[0].call.lane
        theirs = in_our_words(cause) if shared and not lane.is_personal else cause
        patience_s = self.patience.with_(cause)
        asked_s = pause_asked_for_s(cause)
        if asked_s > patience_s or not is_for_all(cause, lane):
            tell(parts, theirs)
            return
        self.observer.batch_requeued(cause)
        if isinstance(cause, Response) and not self._trouble.pauses:
            # What was in flight together is refused together: that is once.
            self.budget.limit.refused()
        self._trouble.strike(asked_s)

        def has_lost_patience(part: Part) -> bool:
            return self._trouble.has_lasted(part.arrived_at, patience_s)

        self.platform.take_in_again([p for p in parts if not has_lost_patience(p)])
        tell([part for part in parts if has_lost_patience(part)], theirs)
        self.platform.give_up(has_lost_patience, in_our_words(cause))

    def quarantine(self, parts: list[Part]) -> None:
        """Let each of *parts* travel alone: it may be what breaks the upstream."""
        self.platform.set_apart(parts)

    def _open_lane(self, lane: LaneKey, changed: Callable[[Lane], None]) -> Lane:
        return Lane(
            lane=lane,
            caps=self.caps,
            clock=self.clock,
            room=self.room,
            max_wait_s=self._held_s,
            changed=changed,
        )
