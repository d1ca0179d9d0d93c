"""
A batch leaves, and is over: what is in flight, what is counted and what is learnt.

A call that is alone has a way of its own, as short as it can be: its request is the
client's own and its answer the upstream's own, so nothing is put together and taken
apart.  After a pause each function and object on it is one that the CPU has to fetch
from memory first; so what can be done later is done when the request has left, or
when the client has its answer.
"""

from collections.abc import Callable, Sequence
from functools import partial

from attrs import define, field
from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from abproxy.batching.admission import Admission
from abproxy.batching.backoff import Backoff
from abproxy.batching.batch import OK, Batch, Count
from abproxy.batching.concurrency import Budget
from abproxy.batching.isolation import Isolation
from abproxy.batching.pace import Pace
from abproxy.batching.part import Part, whole_part
from abproxy.batching.queue import Queue
from abproxy.batching.slots import Load
from abproxy.dialects.call import Call, PartResult
from abproxy.errors import CannotConnect
from abproxy.events import BatchSent, FlushReason, Observer
from abproxy.http.messages import Response, Send

__all__ = ["QuarantineSender", "Sender"]


@define(kw_only=True, eq=False)
class Sender:
    """Sends batches, and keeps account of them."""

    clock: IReactorTime = field(repr=False)
    send_request: Send = field(repr=False)
    pace: Pace = field(repr=False)
    count: Count | None = field(repr=False)
    admission: Admission = field(repr=False)
    queue: Queue = field(repr=False)
    backoff: Backoff = field(repr=False)
    isolation: Isolation = field(repr=False)
    budget: Budget = field(repr=False)
    observer: Observer = field(repr=False)

    on_over: Callable[[], None] = field(repr=False)
    """Called when a batch is over, and its room free again."""

    def send(
        self, parts: Sequence[Part], reason: FlushReason, *, sorts: bool = False
    ) -> None:
        """Send *parts* as one request."""
        load = Load(
            items=sum([len(part.items) for part in parts]),
            slot=reason is not FlushReason.FULL,
            lane=parts[0].call.lane_key,
            calls=len(parts),
            callers=sum([len(p.items) == len(p.call.items.raw) for p in parts]),
        )
        self.budget.take(load)
        batch = self._batch(parts, sorts=sorts)
        sent = self._record(parts, reason, load)
        self.backoff.tried_at = self.clock.seconds()
        sending = Deferred.fromCoroutine(self.isolation.send(batch))
        # Counted while the upstream works already.
        self.observer.batch_sent(sent)
        sending.addBoth(self._over, batch, load, sent)

    def send_alone(
        self, call: Call, size: int, now: float
    ) -> Deferred[list[PartResult]]:
        """
        Send *call*, of that *size*, which has come just *now*.

        What only its answer needs is made when it is on its way.
        """
        try:
            sending = self.send_request(call.alone)
        except Exception:  # noqa: BLE001  a bug, as if it came with the Deferred
            sending = fail(Failure())
        part = whole_part(call, size, now)
        part.sends, part.on_cancel = 1, lambda _part: sending.cancel()
        load = Load(items=len(part.items), slot=True, lane=call.lane_key, callers=1)
        self.budget.take(load)
        self.backoff.tried_at = now
        sent = self._record((part,), FlushReason.FREE, load)
        self.observer.batch_sent(sent)
        waiter = part.waiter
        sending.addBoth(self._answered_alone, part, load, sent)
        return waiter

    def _answered_alone(
        self, outcome: Response | Failure, part: Part, load: Load, sent: BatchSent
    ) -> None:
        """Fire with a good answer; leave any other to isolation."""
        part.on_cancel = None  # it refers to what refers to the part
        if isinstance(outcome, Failure) or outcome.status != OK:
            if isinstance(outcome, Response):
                self.pace.look_at(outcome, part.call.lane_key)
            batch = self._batch((part,))
            batch.sent_at = part.arrived_at
            again = Deferred.fromCoroutine(self.isolation.send(batch, outcome))
            again.addBoth(self._over, batch, load, sent)
            return
        took_s = self.clock.seconds() - part.arrived_at
        if not part.cancelled:
            part.waiter.fire([PartResult(response=outcome, upstream_s=took_s)])
        self.isolation.extra.requests += 1
        try:
            self.isolation.note_answer((part,), part.arrived_at)
        finally:
            self._end(load, sent, took_s)

    def _batch(self, parts: Sequence[Part], *, sorts: bool = False) -> Batch:
        return Batch(
            parts=list(parts),
            clock=self.clock,
            send=partial(self.pace.send, self.send_request, parts[0].call.lane_key),
            count=self.count,
            sorts=sorts,
        )

    def _record(
        self, parts: Sequence[Part], reason: FlushReason, load: Load
    ) -> BatchSent:
        now, key = self.clock.seconds(), parts[0].call.lane_key
        size = sum([part.size for part in parts])
        return BatchSent(
            route=key.dialect.path.decode(),
            reason=reason,
            parts=len(parts),
            items=load.items,
            size=size,
            fill=self.queue.caps.fill(len(parts), load.items, size),
            waits_s=[now - part.arrived_at for part in parts],
            in_flight=load.in_flight,
            lanes_left=len(self.queue.lanes),
            is_personal=key.is_personal,
        )

    def _over(
        self, _nothing: object, batch: Batch, load: Load, sent: BatchSent
    ) -> None:
        self._end(load, sent, batch.answered_after_s)

    def _end(self, load: Load, sent: BatchSent, took_s: float | None) -> None:
        """Free the budget of a batch that was answered after *took_s*, or not."""
        self.budget.give_back(load)
        try:
            self.observer.batch_done(sent, took_s)
            self._learn(load, took_s)
        finally:
            # A bug in what is learnt must not keep those that wait.
            self.on_over()

    def _learn(self, load: Load, took_s: float | None) -> None:
        now, budget = self.clock.seconds(), self.budget
        here = self.admission.queued + budget.calls_in_flight
        if took_s is None:
            budget.slots.note(now, here)
            return
        budget.slots.answered(now, here, budget.calls_in_flight, load, took_s)
        full_wait = bool(self.admission.items) and self.queue.has_full
        budget.answered(load, took_s, full_wait=full_wait)


@define(kw_only=True, eq=False)
class QuarantineSender:
    """Sends the parts in quarantine, one after the other, with nothing beside them."""

    sender: Sender = field(repr=False)

    is_alive: Callable[[], Deferred[bool | None]] = field(repr=False)
    """Asks whether the upstream answers; never fails, and None if it is not certain."""

    on_change: Callable[[], None] = field(repr=False)
    """Called when a part was sent, or cannot be."""

    is_sending: bool = field(init=False, default=False)
    """Whether one is in flight, or about to be: nothing joins it."""

    @property
    def is_next(self) -> bool:
        """Return whether one waits that may be sent as soon as nothing is in flight."""
        part = self.sender.queue.quarantine.first
        return part is not None and not self.sender.backoff.pauses(part.call.lane_key)

    @property
    def keeps_others(self) -> bool:
        """Return whether nothing else may be sent: it could break with a part."""
        return self.is_sending or (self.is_next and not self.sender.budget.is_idle)

    def send_next(self) -> None:
        """Send the next one, if there is an upstream that it could crash."""
        self.is_sending = True
        self.is_alive().addCallback(self._send)

    def note_over(self) -> None:
        """Note that a batch is over: the part, if nothing is in flight now."""
        self.is_sending = not self.sender.budget.is_idle

    def _send(self, is_alive: bool | None) -> None:  # noqa: FBT001
        """
        Send the next one, unless the upstream is away.

        Behind a port that stays open while a server restarts, connections
        break as well, and no call is to blame.  A server that certainly lives is no
        longer in trouble: what fails now is due to the part that is sent.
        """
        quarantine, backoff = self.sender.queue.quarantine, self.sender.backoff
        if is_alive and quarantine.first is not None:
            key = quarantine.first.call.lane_key
            backoff.answered(key, self.sender.clock.seconds())
        waits = quarantine.first is not None
        self.is_sending = waits and is_alive is not False
        if self.is_sending:
            self.sender.send([quarantine.take()], FlushReason.SUSPECT)
        elif waits:
            away = CannotConnect("the inference server does not answer")
            backoff.requeue([quarantine.take()], away, shared=False)
        self.on_change()
