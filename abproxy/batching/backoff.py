"""
Back-off: when the upstream takes no work, wait, try one batch, and wait longer.

A refusal concerns the lane that got it: a gateway says it of one model or one
tenant.  That lane pauses and then sends one batch at a time, until one is
answered; the others go on.  All lanes stop only if what they would meet is
proved: no connection can be made, TEI says that it has no permit left, or more
lanes were refused than requests are in flight, two at least, and nothing was
answered meanwhile.  Then one batch goes ahead after each pause, from another
lane each time.

The first pause is short, each further one twice as long up to a bound; what the
upstream asks for with `Retry-After` counts if it is longer.  An attempt that
takes long is no refusal: while it is not answered, one more may go each second.
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import count
from math import inf

from attrs import define, field
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from abproxy.batching.batch import Failed, log_failed, refused_together
from abproxy.batching.concurrency import Budget
from abproxy.batching.pace import Pace
from abproxy.batching.part import Part, reject
from abproxy.batching.quarantine import QUARANTINE_AFTER
from abproxy.batching.queue import HeldBy, Queue
from abproxy.batching.refusal import (
    RetryTimeouts,
    in_our_words,
    is_about_all,
    is_about_quota,
    is_about_room,
    is_size_possible,
    pause_asked_for_s,
)
from abproxy.dialects.call import LaneKey
from abproxy.errors import ProxyError
from abproxy.events import Cause, Observer

__all__ = ["FIRST_PAUSE_S", "LONGEST_PAUSE_S", "Backoff", "Pauses"]

FIRST_PAUSE_S = 0.05
LONGEST_PAUSE_S = 1.0

LONG_S = 1.0
"""After so many seconds without an answer an attempt takes long."""

KEPT_S = 10.0
"""For how long a lane is kept in mind after its last refusal."""

MOST_LANES, MOST_SIZE = 1000, 16_000_000
"""Lanes in trouble that are kept in mind, and the bytes of their keys."""


@define(kw_only=True, eq=False)
class Pauses:
    """The pauses of one lane, or of all, from a refusal to the next answer."""

    clock: IReactorTime = field(repr=False)
    on_end: Callable[[], None] = field(repr=False)
    began_at: float

    cause: Cause = field(repr=False)
    """What the last attempt met."""

    refused_at: float
    are_on: bool = field(default=False, init=False)
    """Whether nothing may be sent as a refusal is too recent."""

    is_own: bool = field(default=False, init=False)
    """Whether something else was answered since this began."""

    is_survived: bool = field(default=False, init=False)
    """Whether a refusal was seen to harm nothing of what was in flight with it."""

    _pause_s: float = field(default=0.0, init=False)
    _timer: IDelayedCall | None = field(default=None, init=False, repr=False)

    def refused(self, cause: Cause, retry_after_s: float) -> bool:
        """
        Note one more refusal, and pause.

        Those of one wave, which were in flight together, count as one: return
        whether it counts.
        """
        if self.are_on:
            return False
        self.cause, self.refused_at = cause, self.clock.seconds()
        self._pause_s = min(self._pause_s * 2, LONGEST_PAUSE_S) or FIRST_PAUSE_S
        self.are_on = True
        self._wait(max(self._pause_s, retry_after_s))
        return True

    def tried(self) -> None:
        """Pause until the attempt has an outcome, but for a second at most."""
        self._wait(LONG_S)

    def stop(self) -> None:
        """Cancel the timer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _wait(self, seconds: float) -> None:
        self.stop()
        self._timer = self.clock.callLater(seconds, self._end)

    def _end(self) -> None:
        self._timer = None
        self.are_on = False
        self.on_end()


@define(kw_only=True, eq=False)
class Backoff:
    """The lanes whose work the upstream refuses, or all of them."""

    clock: IReactorTime = field(repr=False)
    queue: Queue = field(repr=False)
    budget: Budget = field(repr=False)
    observer: Observer = field(repr=False)
    timeouts: Callable[[], RetryTimeouts] = field(repr=False)
    pace: Pace = field(repr=False)

    resume: Callable[[], None] = field(repr=False)
    """Called when the next attempt may be made."""

    is_any: bool = field(default=False, init=False)
    """Whether a lane is in trouble, or all are."""

    of_all: Pauses | None = field(default=None, init=False)
    """The pauses of all lanes; None if each may send."""

    tried_at: float = field(default=0.0, init=False)
    """When a batch was sent last."""

    _of_lanes: dict[LaneKey, Pauses] = field(init=False, factory=dict, repr=False)
    _size: int = field(default=0, init=False)
    _lately: dict[LaneKey, Pauses] = field(init=False, factory=dict, repr=False)
    """Lanes that were refused since the last answer."""

    _turns: dict[int, int] = field(init=False, factory=dict, repr=False)
    """Which lanes were tried since the last answer, by the hash of their keys."""

    _serial: "count[int]" = field(init=False, factory=lambda: count(1), repr=False)

    # What may be sent

    @property
    def may_send(self) -> bool:
        """Return whether a lane that does not pause itself may send a batch."""
        if self.of_all is None:
            return True
        if self.of_all.are_on:
            return False
        takes_long = self.clock.seconds() - self.tried_at >= LONG_S
        return takes_long or not self.budget.items_in_flight

    def pauses(self, key: LaneKey) -> bool:
        """Return whether the lane with *key* must not send, whatever the others do."""
        pauses = self._of_lanes.get(key)
        return pauses is not None and pauses.are_on

    def turn_of(self, key: LaneKey) -> int:
        """Return when a lane was tried since the last answer; 0 if it was not."""
        return self._turns.get(hash(key), 0)

    def note_sent(self, key: LaneKey) -> None:
        """Note that a batch has left: of a lane in trouble nothing follows it."""
        self._note_turn(key)
        pauses = self._of_lanes.get(key)
        if pauses is not None:
            self.queue.hold(key, HeldBy.BACKOFF, inf)
            pauses.tried()

    def _note_turn(self, key: LaneKey) -> None:
        self._turns.pop(hash(key), None)
        self._turns[hash(key)] = next(self._serial)
        if len(self._turns) > MOST_LANES:
            del self._turns[next(iter(self._turns))]

    def note_over(self, key: LaneKey) -> None:
        """Note that a batch is over, whatever came of it: the next one may follow."""
        pauses = self._of_lanes.get(key)
        if pauses is not None and not pauses.are_on:
            pauses.stop()
            self._may_try(key)

    @property
    def is_unanswered(self) -> bool:
        """Return whether the upstream was last heard to take no work."""
        return self.of_all is not None or bool(self._lately)

    def lanes(self) -> Mapping[LaneKey, Pauses]:
        """Return the lanes that were refused lately."""
        self._forget_old()
        return self._of_lanes

    # Answers

    def answered(self, key: LaneKey, sent_at: float) -> None:
        """Note that the upstream accepted a request of a lane: end the pauses."""
        for pauses in self._lately.values():
            pauses.is_own = True
            pauses.is_survived = pauses.is_survived or sent_at <= pauses.refused_at
        self._lately.clear()
        self._turns.clear()
        self._end_stop()
        if key in self._of_lanes:
            self._forget(key)

    def stop(self) -> None:
        """Cancel all timers."""
        for pauses in (*self._of_lanes.values(), *filter(None, [self.of_all])):
            pauses.stop()

    # Refusals

    def requeue(self, parts: list[Part], cause: Cause, *, shared: bool) -> None:
        """
        Return *parts* of one batch to the queue, as the upstream took no work.

        Those whose time to wait is over fail with it, also among those of the lane, or
        in a stop for all of any lane, that have not been tried: each wait has an
        end.  A response of the upstream reaches only callers who asked for it:
        that of a call that was alone in its request, or those who show the same
        credentials of their own in a *shared* one.
        """
        if not parts:
            return
        key = parts[0].call.lane_key
        theirs = in_our_words(cause) if shared and not key.is_personal else cause
        asked_s = pause_asked_for_s(cause)
        timeout_s = self.pace.patience_s(asked_s, self.timeouts().after(cause))
        if asked_s > timeout_s or is_about_quota(cause, key):
            reject(parts, theirs)
            return
        self.observer.batch_requeued(cause)
        self._refused(key, cause, asked_s)
        late_since = self.clock.seconds() - timeout_s

        def is_expired(part: Part) -> bool:
            key = part.call.lane_key
            return max(part.arrived_at, self._began_at(key)) <= late_since

        # It may be about one call only: then those that wait are next.
        self.queue.requeue(
            [part for part in parts if not is_expired(part)],
            last=not shared and is_size_possible(cause),
        )
        reject([part for part in parts if is_expired(part)], theirs)
        self.queue.expire(is_expired, in_our_words(cause), None if self.of_all else key)

    def wait_out(self, parts: list[Part], failed: Failed, *, shared: bool) -> None:
        """
        Return *parts* to the queue, as the upstream seems to be away behind a gateway.

        One of them may be what crashes it: so a part that has failed like this
        several times is at fault, if others got through meanwhile.  But where
        others are answered meanwhile, nothing has crashed.
        """
        key = parts[0].call.lane_key
        before = self._of_lanes.get(key)
        was_well = before is None and self.of_all is None
        if before is None or not before.is_survived:
            for part in parts:
                part.connection_failures += 1
        at_fault = [
            part
            for part in parts
            if was_well and part.connection_failures > QUARANTINE_AFTER
        ]
        if at_fault:
            log_failed(at_fault, failed.cause)
            reject(at_fault, refused_together(failed) if shared else failed.cause)
            self._refused(key, failed.cause, 0.0)  # the next would meet the same
        others = [part for part in parts if part not in at_fault]
        self.requeue(others, failed.cause, shared=shared)

    def _refused(self, key: LaneKey, cause: Cause, asked_s: float) -> None:
        """Pause the lane, or all lanes if the refusal is about all."""
        is_new_wave = self.of_all is None or not self.of_all.are_on
        if is_about_all(cause):
            if is_about_room(cause) and is_new_wave:
                self.budget.limit.refused()
            self._stop_all([key], cause, asked_s)
            return
        began_at = self._began_at(key)
        if self.of_all is not None and isinstance(self.of_all.cause, ProxyError):
            self._end_stop()  # it can be reached
        pauses = self._of_lanes.get(key) or self._begin(key, cause, began_at)
        if not pauses.refused(cause, asked_s):
            return
        self.queue.hold(key, HeldBy.BACKOFF, inf)
        self._lately.pop(key, None)
        self._lately[key] = pauses
        if self.of_all is not None or self._are_many_refused():
            if is_new_wave:
                self.budget.limit.refused()
            self._stop_all(list(self._lately), cause, asked_s)

    def _are_many_refused(self) -> bool:
        """
        Return whether what was refused since the last answer speaks for all lanes.

        A lane that has been in trouble while others were answered tells nothing new.
        And what is in flight may be answered yet.
        """
        lanes = sum([not pauses.is_own for pauses in self._lately.values()])
        return lanes > max(self.budget.batches_in_flight, 1)

    def _stop_all(
        self, refused: Sequence[LaneKey], cause: Cause, asked_s: float
    ) -> None:
        now = self.clock.seconds()
        if self.of_all is None:
            self.of_all = Pauses(
                clock=self.clock,
                on_end=self.resume,
                began_at=now,
                cause=cause,
                refused_at=now,
            )
            self.is_any = True
            for key in refused:
                self._note_turn(key)
        self.of_all.refused(cause, asked_s)

    def _end_stop(self) -> None:
        if self.of_all is not None:
            self.of_all.stop()
            self.of_all = None
            self.is_any = bool(self._of_lanes)

    def _began_at(self, key: LaneKey) -> float:
        """Return since when calls of a lane cannot be sent."""
        found = (self.of_all, self._of_lanes.get(key))
        began = [pauses.began_at for pauses in found if pauses is not None]
        return min(began, default=self.clock.seconds())

    # Lanes that are kept in mind

    def _begin(self, key: LaneKey, cause: Cause, began_at: float) -> Pauses:
        self._forget_old()
        self._of_lanes[key] = pauses = Pauses(
            clock=self.clock,
            on_end=lambda: self._may_try(key),
            began_at=began_at,
            cause=cause,
            refused_at=self.clock.seconds(),
        )
        self._size += key.size
        self.is_any = True
        while len(self._of_lanes) > MOST_LANES or self._size > MOST_SIZE:
            self._forget(next(iter(self._of_lanes)))
        return pauses

    def _may_try(self, key: LaneKey) -> None:
        """Allow one batch of a lane to be sent."""
        self.queue.hold(key, HeldBy.BACKOFF, self.clock.seconds())
        self.resume()

    def _forget_old(self) -> None:
        late_since = self.clock.seconds() - KEPT_S
        old = [
            key
            for key, pauses in self._of_lanes.items()
            if pauses.refused_at < late_since and not pauses.are_on
        ]
        for key in old:
            self._forget(key)

    def _forget(self, key: LaneKey) -> None:
        self._of_lanes.pop(key).stop()
        self._lately.pop(key, None)
        self._size -= key.size
        self.is_any = bool(self._of_lanes) or self.of_all is not None
        self.queue.release(key, HeldBy.BACKOFF)
