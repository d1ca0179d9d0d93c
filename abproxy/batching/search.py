"""
The search for the calls that make one shared request fail.

A probe of one call alone, and the halves of the others, show it.  These requests
are paced: what looks for the cause of a failure must not be what the upstream is
busy with.
"""

from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from math import ceil, log2

from attrs import define, evolve, field
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater

from abproxy.batching.backoff import Backoff
from abproxy.batching.batch import Batch, Failed
from abproxy.batching.lanes_out import LanesOut, is_twin, speaks_of_inputs
from abproxy.batching.learned import LearnedCaps, Offenders
from abproxy.batching.part import Part, reject
from abproxy.batching.queue import Queue
from abproxy.batching.refusal import is_no_answer
from abproxy.errors import ConnectionBroken, QueueTimeout
from abproxy.events import Observer

__all__ = [
    "PIECE",
    "PROBE",
    "RESEND",
    "ExtraRequests",
    "Search",
    "halves",
    "likely_good_first",
]

PROBE, PIECE, RESEND = "probe", "piece", "resend"
"""
Why a request is sent that is only due to a failed one.

One call alone, some of those that were refused together, or what has to be sent
again anyway, as its connection broke or its deadline passed.
"""

WINDOW_S = 10.0
ALWAYS_FREE = 10
SHARE = 0.2
"""Of the requests of the last ten seconds, these may be extra without a pause."""

PAUSE_S, LONGEST_PAUSE_S = 0.1, 1.0
"""How far apart extra requests are beyond that, and how long one waits at most."""


@define(kw_only=True, eq=False)
class ExtraRequests:
    """Sends, and paces, requests that are due to failed ones."""

    clock: IReactorTime = field(repr=False)
    observer: Observer = field(repr=False)

    call_timeout_s: Callable[[], float] = field(repr=False)
    """Return how old a part may be that is sent again."""

    answered: Callable[[Batch], None] = field(repr=False)
    """Called with each that was answered."""

    requests: int = field(init=False, default=0)
    """How many were sent that are no extra ones; their sender counts them."""

    _seen: list[tuple[float, int]] = field(init=False, factory=list)
    """How many there had been when extra ones were sent."""

    _next_at: float = field(init=False, default=0.0)

    async def send(
        self, batch: Batch, parts: Sequence[Part], reason: str
    ) -> tuple[Batch, Failed | None]:
        """Send those of *parts* that still wait, and may, as one more request."""
        if reason != RESEND:
            await self._wait_for_turn()
        late_since = self.clock.seconds() - self.call_timeout_s()
        late = [part for part in parts if part.arrived_at < late_since]
        within = f"within {self.call_timeout_s():g} seconds"
        reject(late, QueueTimeout(f"the call was not answered {within}"))
        left = [p for p in parts if not (p.cancelled or p in late)]
        child = evolve(batch, parts=left, sorts=False)
        if not child.parts:
            return child, None
        self.observer.extra_request(reason)
        failed = await child.attempt()
        if failed is None:
            self.answered(child)
        return child, failed

    async def _wait_for_turn(self) -> None:
        """Return when one more extra request may be sent."""
        now = self.clock.seconds()
        self._seen = [(at, n) for at, n in self._seen if at > now - WINDOW_S]
        lately = self.requests - self._seen[0][1] if self._seen else 0
        is_free = len(self._seen) < max(ALWAYS_FREE, SHARE * lately)
        self._seen.append((now, self.requests))
        if is_free:
            return
        after = max(self._next_at, now) + PAUSE_S
        self._next_at = min(after, now + LONGEST_PAUSE_S)
        await deferLater(self.clock, self._next_at - now)


@define(kw_only=True, eq=False)
class Search:
    """The search for the calls that make one shared request fail."""

    batch: Batch

    settle: Callable[[Batch, Failed], Awaitable[None]]
    """Give each part of a failed request its outcome."""

    extra: ExtraRequests
    backoff: Backoff
    lanes_out: LanesOut
    learned: LearnedCaps
    offenders: Offenders
    queue: Queue
    observer: Observer

    _passed: list[int] = field(init=False, factory=list)
    _refused: list[tuple[int, int]] = field(init=False, factory=list)
    """How many items requests had that succeeded or failed; of these, bytes, too."""

    _had_no_room: bool = field(init=False, default=False)
    _failed_alone: list[Part] = field(init=False, factory=list)

    async def run(self) -> None:
        """Search until each part has its outcome."""
        self._refused.append((self.batch.items, self.batch.size))
        parts = likely_good_first(self.batch.waiting)
        probe, others = parts[0], parts[1:]
        first, others = await self._probe(probe, others)
        if first is None:
            await self._send_halves(others)
        elif first.is_outage:
            self.backoff.wait_out([probe, *others], first, shared=True)
        elif is_no_answer(first, probe):
            self.backoff.requeue(others, first.cause, shared=True)
        elif others:
            await self._after_failed_probe(probe, others)
        self._learn()

    async def _after_failed_probe(self, probe: Part, others: list[Part]) -> None:
        second_probe = next((p for p in others if p.items != probe.items), others[0])
        others.remove(second_probe)
        second, others = await self._probe(second_probe, others)
        if second is None:
            await self._send(others)
        elif second.is_outage:
            self.backoff.wait_out([second_probe, *others], second, shared=True)
        elif is_no_answer(second, second_probe):
            self.backoff.requeue(others, second.cause, shared=True)
        else:
            await self._after_two_failed(others, second_probe, second)

    async def _after_two_failed(
        self, others: list[Part], probe: Part, second: Failed
    ) -> None:
        """Go on if the lane has worked lately; otherwise it is out."""
        if speaks_of_inputs(second):
            await self._send_halves(others)
            return
        key = probe.call.lane_key
        groups = deque([others] if others else [])
        if self.lanes_out.has_worked_lately(key):
            most = 2 * ceil(log2(len(self.batch.parts))) + 2
            groups = deque(halves(others))
            failures = 2
            while groups and failures < most:
                group = groups.popleft()
                if await self._try(group):
                    sent = [Deferred.fromCoroutine(self._send(g)) for g in groups]
                    await gatherResults(sent)
                    return
                failures += 1
                if len(group) > 1:
                    groups.extend(halves(group))
            if not groups:
                return
        left = [part for group in groups for part in group]
        if not second.is_no_room:
            self.learned.had_bad(key, 1)
        self.lanes_out.add(probe, second)
        if left:
            # Two bad calls may have been probed by chance: the next probe decides.
            self.queue.requeue(left)

    async def _probe(
        self, part: Part, others: list[Part]
    ) -> tuple[Failed | None, list[Part]]:
        """
        Send *part* alone; it has its own answer then, and so have its twins.

        Returns:
            how it failed, and which of the *others* have no outcome yet.
        """
        child, failed = await self.extra.send(self.batch, [part], PROBE)
        if failed is None:
            self._note_passed(child)
        elif not failed.is_outage:
            await self._settle_alone(child, failed)
            twins = [other for other in others if is_twin(other, part)]
            reject(twins, failed.cause)
            others = [other for other in others if other not in twins]
        return failed, others

    async def _send_halves(self, parts: list[Part]) -> None:
        self.observer.batch_split()
        sent = [Deferred.fromCoroutine(self._send(half)) for half in halves(parts)]
        await gatherResults(sent)

    async def _send(self, parts: list[Part]) -> None:
        if parts and not await self._try(parts) and len(parts) > 1:
            await self._send_halves(parts)

    async def _try(self, parts: list[Part]) -> bool:
        """Send *parts*, and return whether these need no more looking into."""
        child, failed = await self.extra.send(self.batch, parts, PIECE)
        if failed is None:
            self._note_passed(child)
            return True
        if not child.is_shared:
            await self._settle_alone(child, failed)
            return False
        if isinstance(failed.cause, ConnectionBroken) or is_no_answer(failed, parts[0]):
            await self.settle(child, failed)
            return True
        self._refused.append((child.items, child.size))
        return False

    async def _settle_alone(self, child: Batch, failed: Failed) -> None:
        part = child.parts[0]
        self._had_no_room = self._had_no_room or failed.is_no_room
        if not is_no_answer(failed, part):
            self._failed_alone.append(part)
        if failed.is_outage:
            # It has failed with others, too: next it is sent from quarantine.
            part.connection_failures = max(part.connection_failures, 1)
        await self.settle(child, failed)

    def _note_passed(self, child: Batch) -> None:
        if child.answered_after_s is not None:
            self._passed.append(child.items)

    def _learn(self) -> None:
        """Record whose items fail; or, if none fails alone, how many are too many."""
        if self._had_no_room or not self._passed:
            return
        for part in self._failed_alone:
            self.offenders.note(part)
        key = self.batch.parts[0].call.lane_key
        if bad := len(self._failed_alone):
            self.learned.had_bad(key, len(self.batch.parts) // (2 * bad))
            return
        refused, size = min(self._refused)
        passed = max((n for n in self._passed if n < refused), default=1)
        self.learned.too_many_items(key.path, refused, size, passed)


def halves(parts: list[Part]) -> list[list[Part]]:
    """Return two halves of *parts*, or fewer if there are fewer."""
    middle = (len(parts) + 1) // 2
    return [half for half in (parts[:middle], parts[middle:]) if half]


def likely_good_first(parts: list[Part]) -> list[Part]:
    """
    Order *parts* by how likely they are to succeed.

    Bad inputs are most often too long, or empty: so those of the usual length go
    first; and of those alike the ones in the middle, to begin somewhere.
    """
    middle = len(parts) // 2
    usual = sorted(part.size for part in parts)[middle]

    def unlikelihood(at: int) -> tuple[int, int]:
        return abs(parts[at].size - usual), abs(at - middle)

    return [parts[at] for at in sorted(range(len(parts)), key=unlikelihood)]
