"""
Isolation: after a shared request has failed, each call gets what it gets alone.

A failure of a shared request tells nothing for certain about any one call: it
may be due to one item, to the size, to being shared at all, or to the upstream.
Its status does not decide, a probe does: one call is sent alone.

- The probe succeeds: the others are sent in halves, until what fails is one call.
- The probe fails: a second one is sent.  If that succeeds, the others go on.  If
  both fail, it depends on whether the lane has worked lately: then halves are
  sent until one succeeds or enough have failed; if not, the lane is out: the
  others wait, and one call a second is sent alone until one succeeds.

A call that was sent alone gets its own answer.  The others get that answer only
if probes with different items got the same, byte for byte; otherwise an error
of ours, as the upstream's words may quote the request that they are about.

With k bad calls among n this takes at most k (2 log2 n + 2) more requests, and
never more than 2 n.
"""

from collections.abc import Callable, Sequence

from attrs import define, evolve, field
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from abproxy.batching.backoff import Backoff
from abproxy.batching.batch import (
    Batch,
    Failed,
    fail_for_a_bug,
    log_failed,
    refused_together,
)
from abproxy.batching.concurrency import Budget
from abproxy.batching.lanes_out import LanesOut
from abproxy.batching.learned import LearnedCaps, Offenders
from abproxy.batching.part import (
    Caps,
    Part,
    reject,
)
from abproxy.batching.quarantine import QUARANTINE_AFTER
from abproxy.batching.queue import Queue
from abproxy.batching.refusal import is_no_answer, is_size_possible
from abproxy.batching.search import (
    PROBE,
    RESEND,
    ExtraRequests,
    Search,
    halves,
    likely_good_first,
)
from abproxy.errors import (
    CannotConnect,
    ConnectionBroken,
    HandshakeFailed,
)
from abproxy.events import Observer
from abproxy.http.messages import Response

__all__ = ["Isolation"]


@define(kw_only=True, eq=False)
class Isolation:
    """Sends batches to one upstream, and settles what failed requests leave."""

    clock: IReactorTime = field(repr=False)
    queue: Queue = field(repr=False)
    backoff: Backoff = field(repr=False)
    budget: Budget = field(repr=False)
    observer: Observer = field(repr=False)
    learned: LearnedCaps
    offenders: Offenders
    lanes_out: LanesOut

    splits: Callable[[], bool] = field(repr=False)
    """Return whether a part may be split."""

    call_timeout_s: Callable[[], float] = field(repr=False)
    """Return how old a part may be that is sent again."""

    extra: ExtraRequests = field(init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        self.extra = ExtraRequests(
            clock=self.clock,
            observer=self.observer,
            call_timeout_s=self.call_timeout_s,
            answered=self._note_success,
        )

    async def send(
        self, batch: Batch, outcome: Response | Failure | None = None
    ) -> None:
        """
        Send *batch*; returns when each part has its outcome, or waits again.

        Args:
            batch: what is to be sent.
            outcome: what its request got, if it was sent already, but a good answer.
        """
        self.extra.requests += 1
        try:
            attempt = batch.look_at(outcome) if outcome else batch.attempt()
            failed = await attempt
            if failed is None:
                self._note_success(batch)
            else:
                await self.settle(batch, failed)
        except Exception:  # noqa: BLE001  a bug must not starve the callers
            fail_for_a_bug(batch.parts)
        if self.backoff.is_any:
            self.backoff.note_over(batch.parts[0].call.lane_key)
        if self.lanes_out.is_any:
            self.lanes_out.hold_again(batch.parts[0].call.lane_key)

    def _note_success(self, batch: Batch) -> None:
        """Note that *batch* was answered, or that its callers have left."""
        if batch.answered_after_s is not None:
            self.note_answer(batch.parts, batch.sent_at)

    def note_answer(self, parts: Sequence[Part], sent_at: float) -> None:
        """Note that *parts* of one request, sent at that time, have their rows."""
        key = parts[0].call.lane_key
        if self.backoff.is_any:
            self.backoff.answered(key, sent_at)
        self.lanes_out.note_success(key)
        if len(parts) > 1 or self.learned.is_any:
            self.learned.passed(parts, self.queue.caps)
        if key.one_by_one:
            self.offenders.note_good(parts[0])

    async def settle(self, batch: Batch, failed: Failed) -> None:
        """Give each part of a *batch* that *failed* its outcome, or let it wait."""
        cause, parts = failed.cause, batch.waiting
        if not parts:
            return
        if not isinstance(cause, Response | CannotConnect | ConnectionBroken):
            log_failed(parts, cause)
        key = parts[0].call.lane_key
        alone = failed.is_no_room and not batch.is_shared
        if alone or is_no_answer(failed, parts[0]):
            # Those of one wave, which were in flight together, tell the same.
            is_first = not self.backoff.pauses(key)
            self.backoff.requeue(parts, cause, shared=batch.is_shared)
            is_one_call = not batch.is_shared and parts[0].is_whole_call
            if is_first and is_size_possible(cause) and not is_one_call:
                self.learned.try_less(key.path, batch.items, batch.size)
        elif isinstance(cause, HandshakeFailed):
            # Nothing was sent, and no other call would fare better.
            reject(parts, cause)
        elif isinstance(cause, ConnectionBroken):
            await self._settle_broken(batch, parts, cause)
        elif failed.is_unsplittable:
            self.backoff.answered(key, batch.sent_at)
            self.learned.cannot_be_split(key.path)
            self.observer.went_alone(f"the answers of {key.path.decode()}")
            await self._send_whole(batch, parts)
        elif not batch.is_shared:
            await self._settle_one(batch, parts[0], failed)
        elif failed.is_deadline:
            self.backoff.answered(key, self.clock.seconds())
            self.budget.missed_deadline(failed.took_s)
            await self._settle_late(batch, failed)
        else:
            await self._search(batch).run()

    def _search(self, batch: Batch) -> Search:
        return Search(
            batch=batch,
            settle=self.settle,
            extra=self.extra,
            backoff=self.backoff,
            lanes_out=self.lanes_out,
            learned=self.learned,
            offenders=self.offenders,
            queue=self.queue,
            observer=self.observer,
        )

    # One part

    async def _settle_one(self, batch: Batch, part: Part, failed: Failed) -> None:
        """Settle a part that has failed alone: what it got is its own answer."""
        if failed.is_outage:
            self.backoff.wait_out([part], failed, shared=False)
            return
        self.backoff.answered(part.call.lane_key, batch.sent_at)
        if (caps := self._caps_for_pieces(part, failed)) is not None:
            await self._send_pieces(batch, part, caps, failed)
            return
        self.learned.had_bad_alone(part.call.lane_key)
        self.lanes_out.note_failed(part, failed)
        if part.call.lane_key.one_by_one:
            self.offenders.note(part)
        reject([part], failed.cause)

    def _caps_for_pieces(self, part: Part, failed: Failed) -> Caps | None:
        """Return what pieces of *part* may hold if it was too large; else None."""
        key, items, caps = part.call.lane_key, len(part.items), self.queue.caps
        if not self.splits() or key.serial or items == 1:
            return None
        if self.learned.is_alone(key.path):
            return None  # pieces would have to be sent whole again
        if failed.is_too_many and items > caps.items:
            # The upstream has just said so, and the caps say the same by now.
            return caps
        if part.is_whole_call or not (failed.is_too_large or failed.is_deadline):
            return None
        return evolve(caps, items=(items + 1) // 2)

    async def _send_pieces(
        self, batch: Batch, part: Part, caps: Caps, failed: Failed
    ) -> None:
        groups = [[piece] for piece in self.queue.split(part, caps)]
        if failed.is_deadline:
            self.budget.missed_deadline(failed.took_s)
            await self._send_in_turn(batch, groups)
        else:
            await self._send_groups(batch, groups)

    async def _send_whole(self, batch: Batch, parts: Sequence[Part]) -> None:
        """Send the calls of *parts* one by one, as their clients sent them."""
        for part in parts:
            part.items, part.lengths = part.call.items.raw, part.call.items.lengths
        await self._send_groups(batch, [[part] for part in parts])

    # Connections, outages and deadlines

    async def _settle_broken(
        self, batch: Batch, parts: list[Part], error: ConnectionBroken
    ) -> None:
        """
        Send again what need not have been the cause of a broken connection.

        An embedding is the same for every caller, each time.  First as
        halves, as the connection may have been an idle one just closing;
        after a second break each call alone, as one of them may be what crashes
        the upstream; after a third there is no doubt left.
        """
        # There was a connection, so the pauses before it are over.
        self.backoff.answered(parts[0].call.lane_key, self.clock.seconds())
        for part in parts:
            part.connection_failures += 1
        at_fault = [p for p in parts if p.connection_failures > QUARANTINE_AFTER]
        if at_fault:
            log_failed(at_fault, error)
            reject(at_fault, error)
        self.queue.quarantine.add(
            [p for p in parts if p.connection_failures == QUARANTINE_AFTER]
        )
        others = [p for p in parts if p.connection_failures < QUARANTINE_AFTER]
        if others:
            self.observer.batch_resent()
            await self._send_groups(batch, halves(others))

    async def _settle_late(self, batch: Batch, failed: Failed) -> None:
        """
        Send parts again whose request took too long, fewer at a time.

        First one alone, and a second if that is too late as well: if then nothing
        was answered since, the upstream is silent, and no other call waits for it.
        """
        others = likely_good_first(batch.waiting)
        for _ in range(min(2, len(others))):
            _, again = await self._send_late(batch, [others.pop(0)], PROBE)
            if again is None or not again.is_deadline:
                break
        else:
            key, sent_at = batch.parts[0].call.lane_key, batch.sent_at
            if not self.lanes_out.has_worked_since(key, sent_at):
                reject(others, refused_together(failed))
                return
        await self._send_in_turn(batch, halves(others))

    async def _send_in_turn(self, batch: Batch, groups: Sequence[list[Part]]) -> None:
        """Send *groups* one after the other, as the upstream was too slow for all."""
        for group in groups:
            child, again = await self._send_late(batch, group, RESEND)
            if again is not None and again.is_deadline and child.is_shared:
                await self._send_in_turn(batch, halves(child.waiting))

    async def _send_late(
        self, batch: Batch, parts: list[Part], reason: str
    ) -> tuple[Batch, Failed | None]:
        """Send *parts* again; if several are too late again, these have no outcome."""
        child, failed = await self.extra.send(batch, parts, reason)
        if failed is None:
            if child.answered_after_s is not None:
                self.budget.met_deadline(child.items, child.answered_after_s)
        elif failed.is_deadline and child.is_shared:
            self.budget.in_time.missed(child.items, failed.took_s)
        else:
            await self.settle(child, failed)
        return child, failed

    # Sending again

    async def _send_groups(self, batch: Batch, groups: Sequence[list[Part]]) -> None:
        """Send each of *groups* as a request of its own, all at once."""

        async def send(group: list[Part]) -> None:
            child, failed = await self.extra.send(batch, group, RESEND)
            if failed is not None:
                await self.settle(child, failed)

        sent = [Deferred.fromCoroutine(send(group)) for group in groups if group]
        await gatherResults(sent)
