"""
The one rule: when a batch leaves.

> A full batch leaves as soon as the budget has room for it.  A batch that is
> not full leaves when its oldest part has waited `max_wait` and a slot is free.

Among those that may leave, the one with the oldest part goes first, and none
overtakes it.  Arrival, answer, timer and departure all call `dispatch`.
"""

from collections.abc import Callable, Sequence

from attrs import define, evolve, field
from msgspec.structs import replace
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorTime

from abproxy.batching.account import NO_RATES, Accounts, Rates
from abproxy.batching.admission import Admission
from abproxy.batching.backoff import Backoff
from abproxy.batching.batch import Count
from abproxy.batching.concurrency import Budget
from abproxy.batching.isolation import Isolation
from abproxy.batching.lane import Lane
from abproxy.batching.lanes_out import LanesOut
from abproxy.batching.learned import LearnedCaps, Offenders
from abproxy.batching.pace import Pace
from abproxy.batching.part import Caps, size_of
from abproxy.batching.queue import Queue
from abproxy.batching.refusal import RetryTimeouts
from abproxy.batching.sender import QuarantineSender, Sender
from abproxy.dialects.call import Call, LaneKey, MayJoin, PartResult, may_join_all
from abproxy.errors import QueueTimeout
from abproxy.events import BlockedBy, FlushReason, Observer
from abproxy.http.messages import Send
from abproxy.timer import Timer

__all__ = ["BatchCollector"]

EXPIRE_EVERY_S = 1.0
"""How often calls are looked for that have waited too long, in seconds."""


def _unknown() -> Deferred[bool | None]:
    return succeed(None)


@define(kw_only=True, eq=False)
class BatchCollector:
    """
    Collects calls into batches for one upstream, and sends these by the one rule.

    `submit` a call, and its Deferred fires with its own part of a batch's answer.
    """

    clock: IReactorTime = field(repr=False)
    send: Send = field(repr=False)
    caps: Caps
    budget: Budget
    admission: Admission
    max_wait_s: float

    splits: bool = True
    """Whether a call larger than a batch is split and joined again."""

    packs: bool = True
    """Whether calls of similar length leave together when many wait."""

    retry_timeouts: RetryTimeouts = field(factory=RetryTimeouts)

    rates: Rates = NO_RATES
    """What the account at the upstream may have in a minute."""

    accounts: Accounts = field(factory=Accounts, repr=False)
    """What is known of it, and of others; several models may have the same."""

    is_alive: Callable[[], Deferred[bool | None]] = field(default=_unknown, repr=False)
    """Asks whether the upstream answers; never fails, and None if it is not certain."""

    may_join: MayJoin = field(default=may_join_all, repr=False)

    call_timeout_s: float = 300.0
    """How long a call may wait in the queue, or to be sent again after a failure."""

    count: Count | None = field(default=None, repr=False)
    """Counts what the items of a batch cost; without it characters are counted."""

    observer: Observer = field(factory=Observer, repr=False)

    learned: LearnedCaps = field(init=False, repr=False)
    offenders: Offenders = field(init=False, repr=False)
    queue: Queue = field(init=False, repr=False)
    pace: Pace = field(init=False, repr=False)
    backoff: Backoff = field(init=False, repr=False)
    isolation: Isolation = field(init=False, repr=False)
    sender: Sender = field(init=False, repr=False)
    quarantine: QuarantineSender = field(init=False, repr=False)

    _turn_end: Timer = field(init=False, repr=False)
    _hold_end: Timer = field(init=False, repr=False)
    _next_expiry: Timer = field(init=False, repr=False)
    """When calls are looked for that have waited too long, if any wait."""

    _flushes: bool = field(init=False, default=False)
    """Whether the proxy is going to stop, whatever the settings say."""

    _dispatching: bool = field(init=False, default=False, repr=False)
    _blocked_by: BlockedBy = field(init=False, default=BlockedBy.NOTHING)
    """What kept batches from leaving when last looked at."""

    def __attrs_post_init__(self) -> None:
        self._turn_end = Timer(self.clock, self.dispatch)
        self._hold_end = Timer(self.clock, self.dispatch)
        self._next_expiry = Timer(self.clock, self._expire)
        self.learned = LearnedCaps(
            self.clock, self._apply_limits, self._apply_limits_of
        )
        self.offenders = Offenders(self.clock)
        self.pace = Pace(
            self.clock, self.dispatch, self._apply_limits, self.rates, self.accounts
        )
        self.queue = Queue(
            caps_of=self._caps_of,
            may_join=self.may_join,
            clock=self.clock,
            admission=self.admission,
            caps=self.caps,
            max_wait_s=self.max_wait_s,
            on_change=self.dispatch,
        )
        self.backoff = Backoff(
            clock=self.clock,
            queue=self.queue,
            budget=self.budget,
            observer=self.observer,
            timeouts=lambda: self.retry_timeouts,
            pace=self.pace,
            resume=self.dispatch,
        )
        self.isolation = Isolation(
            clock=self.clock,
            queue=self.queue,
            backoff=self.backoff,
            budget=self.budget,
            observer=self.observer,
            learned=self.learned,
            offenders=self.offenders,
            lanes_out=LanesOut(clock=self.clock, queue=self.queue),
            splits=lambda: self.splits,
            call_timeout_s=lambda: self.call_timeout_s,
        )
        self.sender = Sender(
            clock=self.clock,
            send_request=self.send,
            pace=self.pace,
            count=self.count,
            admission=self.admission,
            queue=self.queue,
            backoff=self.backoff,
            isolation=self.isolation,
            budget=self.budget,
            observer=self.observer,
            on_over=self._over,
        )
        self.quarantine = QuarantineSender(
            sender=self.sender,
            is_alive=self.is_alive,
            on_change=self.dispatch,
        )

    # What callers use

    def submit(self, call: Call) -> Deferred[list[PartResult]]:
        """
        Accept *call*; fires with a result for each of its parts, in order.

        If the upstream refuses one part, its response is the only result.
        Cancelling the Deferred cancels the call, and harms no other.

        A call that finds the upstream idle, or makes a batch full, leaves at
        once.  Any other leaves at the end of the reactor's turn, which costs no
        time: what has arrived meanwhile is read first, and shares the batch.

        Raises:
            Overloaded: too much is waiting already, or its account is used up.
            CallTooLarge: there never is room for it.
        """
        caps = self.caps
        is_paced = self.pace.is_active
        if self.offenders.is_any and self.offenders.suspects(call):
            one_by_one = replace(call.lane_key, one_by_one=True)
            call = replace(call, lane_key=one_by_one)
        if self.learned.is_any or is_paced or call.lane_key.one_by_one:
            self.learned.refresh(caps)
            caps = self._caps_of(call.lane_key, caps)
        size, now = size_of(call.items.raw), self.clock.seconds()
        if is_paced:
            self.pace.admit(call, size, caps, self.queue)
        here = self.admission.queued + self.budget.calls_in_flight + 1
        others_come = self.budget.slots.arrived(now, here, call.lane_key)
        if not others_come and self._leaves_at_once(call, size, caps):
            return self.sender.send_alone(call, size, now)
        results, is_full = self.queue.submit(call, size, caps)
        if is_full or not self.budget.batches_in_flight:
            self.dispatch()
        else:
            self._turn_end.set(0)
        return results

    def takes(self, items: Sequence[bytes]) -> bool:
        """Return whether *items* fit into one batch, or may be split to fit."""
        if self.splits:
            return True
        return len(items) <= self.caps.items and size_of(items) <= self.caps.size

    def learn(self, caps: Caps, ceiling: int, servers: int = 1) -> None:
        """
        Apply new limits: the upstream has changed its own.

        Args:
            caps: what one batch may hold.
            ceiling: items that may be in flight, at all servers together.
            servers: how many there are.
        """
        self.caps = caps
        self.budget.resize(ceiling, caps.items, servers)
        self.learned.forget()
        self.offenders.forget()
        self.pace.forget()
        self._apply_limits()

    def flush(self) -> None:
        """Send batches without waiting from now on: the proxy is going to stop."""
        self._flushes = True
        self._apply_limits()

    def _apply_limits(self) -> None:
        self.queue.set_limits(self.caps, self._wait_s)

    def _caps_of(self, key: LaneKey, caps: Caps) -> Caps:
        """Return what fits into a batch of one lane, of what *caps* allow."""
        if self.pace.is_active:
            caps = self.pace.fit(key, caps)
        return self.learned.apply(key, caps)

    def _apply_limits_of(self, key: LaneKey) -> None:
        self.queue.set_limits_of(key)

    def stop(self) -> None:
        """Cancel all timers."""
        self.backoff.stop()
        self.pace.stop()
        for timer in (self._turn_end, self._hold_end, self._next_expiry):
            timer.cancel()

    # When a batch leaves

    def _leaves_at_once(self, call: Call, size: int, caps: Caps) -> bool:
        """
        Return whether *call* leaves as it comes, without queueing up.

        With nothing in flight and nothing before it there is room and a slot for
        it: the rule would send it as well, after it was counted in and out again.
        It gets no place in the queue: if it comes back unsent, it is the oldest.
        """
        return not (
            self.admission.items
            or self.budget.batches_in_flight
            or self.pace.is_active
            or self.max_wait_s
            or self._flushes
            or self.backoff.of_all is not None
            or (self.queue.held and call.lane_key in self.queue.held)
            or call.lane_key.is_bulk
            or call.lane_key.dialect.translates
            or caps.are_reached(1, len(call.items.raw), size)
            # There is always room for one.
            or (1 < len(call.items.raw) > self.budget.most_items)
        )

    def dispatch(self) -> None:
        """
        Send every batch that may leave now.

        An answer can arrive while its request is still being sent.  Then this
        runs already, and its loop sees what has changed.
        """
        if self._dispatching:
            return
        self._dispatching = True
        blocked_by = None
        try:
            while blocked_by is None:
                waits = self.admission.items
                blocked_by = self._dispatch_one() if waits else BlockedBy.NOTHING
        finally:
            self._dispatching = False
        if self._hold_end.pending and blocked_by is not BlockedBy.CALLERS:
            self._hold_end.cancel()
        if blocked_by is not self._blocked_by:
            if self._blocked_by is BlockedBy.ACCOUNT:
                self.pace.stop()
            self._blocked_by = blocked_by
            self.observer.blocked(blocked_by)
        # One timer for all that wait, and none for what leaves at once.
        if self.admission.items:
            self._next_expiry.set(EXPIRE_EVERY_S)
        elif self._next_expiry.pending:
            self._next_expiry.cancel()

    def _dispatch_one(self) -> BlockedBy | None:
        """Send the batch that is next, or return what keeps it from leaving."""
        if not self.backoff.may_send or self.quarantine.keeps_others:
            return BlockedBy.UPSTREAM
        if self.quarantine.is_next:
            self.quarantine.send_next()
            return None
        lane = self._next_lane()
        if isinstance(lane, BlockedBy):
            return lane
        if self.backoff.of_all is not None:
            lane = self.queue.next_lane_by(self.backoff.turn_of) or lane
        if self.pace.is_active:
            paced = self.pace.choose(self._ready_lanes(lane))
            if paced is None:
                return BlockedBy.ACCOUNT
            lane = paced
        if not self.budget.admits(lane.next_items):
            return BlockedBy.BUDGET
        self._send_from(lane)
        return None

    def _next_lane(self) -> Lane | BlockedBy:
        """Return the lane whose batch leaves next, or what all of them wait for."""
        slot_free = self.budget.slot_free
        lane = self.queue.next_lane(also_not_full=slot_free)
        if lane is None:
            return self._why_no_lane(slot_free=slot_free)
        if lane.is_full or not self._is_held(lane):
            return lane
        return self.queue.next_lane(also_not_full=False) or BlockedBy.CALLERS

    def _ready_lanes(self, only: Lane) -> Sequence[Lane]:
        """Return the lanes that may send a batch; in trouble *only* one."""
        if self.backoff.of_all is not None:
            return [only]
        slot = self.budget.slot_free
        return [e for e in self.queue.lanes if e.is_full or (slot and e.is_due)]

    def _is_held(self, lane: Lane) -> bool:
        """Return whether the batch of *lane* waits for callers about to return."""
        now = self.clock.seconds()
        until = self.budget.slots.held_until(now, lane.key)
        if until is None or self._flushes:
            return False
        self._hold_end.set(until - now)
        return True

    def _why_no_lane(self, *, slot_free: bool) -> BlockedBy:
        if not slot_free and self.queue.has_due:
            self.budget.slots.ran_out()
            return BlockedBy.SLOT
        # A lane that is refused while others are answered keeps nothing else.
        is_held = self.queue.has_held_back or self.queue.quarantine.first
        if is_held and self.backoff.is_unanswered:
            return BlockedBy.UPSTREAM
        return BlockedBy.NOTHING

    @property
    def _wait_s(self) -> float:
        return 0.0 if self._flushes else self.max_wait_s

    # A batch leaves, and is over

    def _send_from(self, lane: Lane) -> None:
        reason = self._reason(lane)
        caps = self._caps_now(lane)
        alike = self.packs and lane.items > caps.items
        waiting = self.admission.items + self.admission.rest_items
        fair = self.budget.share_of(caps, waiting)
        parts = self.queue.take(lane, fair, alike=alike)
        is_whole = lane.key.serial or self.learned.is_alone(lane.key.path)
        may_split = self.splits and not is_whole
        if may_split and len(parts[0].items) > caps.items:
            self.queue.requeue(self.queue.split(parts[0], caps))
            return
        if self.backoff.is_any:
            self.backoff.note_sent(lane.key)
        if self.isolation.lanes_out.is_any:
            self.isolation.lanes_out.note_sent(lane.key)
        if self.pace.is_active:
            self.pace.note_left(lane.key)
        self.sender.send(parts, reason, sorts=alike)
        # The next parts of large calls have queued up.
        here = self.admission.queued + self.budget.calls_in_flight
        self.budget.slots.note(self.clock.seconds(), here)

    def _caps_now(self, lane: Lane) -> Caps:
        """Return what fits into a batch, if the upstream has less room than that."""
        room = self.budget.most_items
        return lane.caps if room >= lane.caps.items else evolve(lane.caps, items=room)

    def _reason(self, lane: Lane) -> FlushReason:
        if lane.is_full:
            return FlushReason.FULL
        if self._flushes:
            return FlushReason.DRAIN
        return FlushReason.TIMER if self.max_wait_s else FlushReason.FREE

    def _over(self) -> None:
        if self.quarantine.is_sending:
            self.quarantine.note_over()
        self.dispatch()

    def _expire(self) -> None:
        within = f"within {self.call_timeout_s:g} seconds"
        late_since = self.clock.seconds() - self.call_timeout_s
        self.queue.expire(
            lambda part: part.arrived_at < late_since,
            QueueTimeout(f"the call was not sent {within}"),
        )
        self.dispatch()
