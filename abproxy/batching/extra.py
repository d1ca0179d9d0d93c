"""
Requests that are sent only because others have failed.

They are paced: what looks for the cause of a failure must not be what the
upstream is busy with.
"""

from collections.abc import Callable, Sequence

from attrs import define, evolve, field
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater

from abproxy.batching.batch import Batch, Failed
from abproxy.batching.part import Part, reject
from abproxy.errors import QueueTimeout
from abproxy.events import Observer

__all__ = ["PIECE", "PROBE", "RESEND", "ExtraRequests"]

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
