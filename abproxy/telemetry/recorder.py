"""Count what is observed: metrics, totals, and the last batches and errors."""

import re
from collections.abc import Callable, Sequence
from typing import Any

from attrs import define, evolve, field
from twisted.internet.interfaces import IReactorTime

from abproxy.dialects.routes import ALIASES, ROUTES
from abproxy.errors import Overloaded, ProxyError, QueueFull
from abproxy.events import (
    BatchSent,
    BlockedBy,
    Cause,
    FlushReason,
    Observer,
    RequestInfo,
)
from abproxy.http.messages import Response
from abproxy.telemetry.history import BlockedTime, RecentLog, Totals, Window
from abproxy.telemetry.metrics import Buckets, Metrics
from abproxy.telemetry.sharing import OTHERS, RecentCounts, Sharing

__all__ = ["Recorder"]

CLIENT_LEFT = "499"
"""The status of a call whose client left before it was answered, as in nginx."""

BAD_REQUEST, SERVER_ERROR = 400, 500

NEARLY_EMPTY, NEARLY_FULL = 0.25, 0.75
"""How full batches are whose times are compared."""

_PLAIN_PATH = re.compile(rb"[/a-zA-Z0-9_.:-]{1,60}")
"""A path that may be shown."""

KNOWN = frozenset((*ROUTES, *ALIASES))
"""Paths that are labels; any other may be whatever a client sends."""


@define(kw_only=True, eq=False)
class Recorder(Observer):
    """Count requests, batches, and what is sent to the upstream."""

    clock: IReactorTime = field(repr=False)
    cpu_s: Callable[[], float] = field(repr=False)
    """Return how much CPU time this process has used."""

    metrics: Metrics = field(factory=Metrics, repr=False)
    recent: RecentLog = field(factory=RecentLog, repr=False)
    blocked_time: BlockedTime = field(init=False)
    window: Window = field(init=False)
    _totals: Totals = field(init=False, factory=Totals)
    _answered: dict[tuple[str, int], tuple[list[int], Buckets]] = field(
        init=False, factory=dict
    )
    """Where calls are counted that were answered, by route and status."""

    _apart: RecentCounts = field(init=False)
    _alone: RecentCounts = field(init=False)
    _relayed_to: RecentCounts = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._apart = RecentCounts(self.clock)
        self._alone = RecentCounts(self.clock)
        self._relayed_to = RecentCounts(self.clock)
        self.blocked_time = BlockedTime(clock=self.clock)
        self.window = Window(now=self.totals)

    def totals(self) -> Totals:
        """Return what has happened since the start."""
        kept = self.blocked_time.seconds
        metrics, answered = self.metrics, self._answered
        errors = (n[0] for (_, code), (n, _) in answered.items() if code >= BAD_REQUEST)
        return evolve(
            self._totals,
            at=self.clock.seconds(),
            calls=self._totals.cancelled + sum(n[0] for n, _ in answered.values()),
            errors=sum(errors),
            parts=int(metrics.batch_calls.sum),
            items=int(metrics.batch_items.sum),
            wait_s=metrics.wait_seconds.sum,
            cpu_s=self.cpu_s(),
            kept_by_slot_s=kept(BlockedBy.SLOT),
            kept_by_budget_s=kept(BlockedBy.BUDGET),
            kept_by_account_s=kept(BlockedBy.ACCOUNT),
            kept_by_upstream_s=kept(BlockedBy.UPSTREAM),
        )

    def sharing(self) -> Sharing:
        """Return what kept calls from sharing a batch lately."""
        counts = (self._apart, self._alone, self._relayed_to)
        return Sharing.of(*(each.lately() for each in counts))

    def cpu_s_per_call(self) -> float:
        """Return what a call has cost lately in CPU time, relayed ones among them."""
        return self.window.lately().cpu_s_per_call

    def request_ended(self, request: RequestInfo, *, gone: bool) -> None:
        """Count a request by what became of it."""
        now = self.clock.seconds()
        if now >= self.window.next_at:
            self.window.note(now)
        route = request.route
        if route is None:
            if request.is_relayed:
                self._relayed(request, CLIENT_LEFT if gone else str(request.status))
        elif gone:
            self._left(route)
        else:
            code = request.status
            answered = self._answered.get((route, code))
            if answered is None:
                answered = self._first_answered(route, code)
            answered[0][0] += 1
            took_s = now - request.began_at
            answered[1].observe(took_s)
            if request.elsewhere_s:
                self.metrics.overhead_seconds.observe(took_s - request.elsewhere_s)

    def _relayed(self, request: RequestInfo, status: str) -> None:
        self._totals.relayed += 1
        route = request.path.decode() if request.path in KNOWN else "other"
        self.metrics.relayed.add((route, status))
        if request.method == b"POST":
            plain = _PLAIN_PATH.fullmatch(request.path)
            self._relayed_to.add(request.path.decode() if plain else OTHERS)

    def _left(self, route: str) -> None:
        self._totals.cancelled += 1
        self.metrics.calls.add((route, CLIENT_LEFT))
        self.metrics.cancellations.add((route,))

    def _first_answered(self, route: str, code: int) -> tuple[list[int], Buckets]:
        """Return where calls of a route with this status are counted."""
        cell = self.metrics.calls.cell((route, str(code)))
        found = self._answered[route, code] = cell, self.metrics.call_seconds.of(route)
        return found

    def answered_with(self, error: ProxyError, model: str = "") -> None:  # noqa: ARG002
        """Count an answer of our own, and keep it among the last errors."""
        if error.status < SERVER_ERROR:
            self._totals.refused += 1
            self._totals.refused_for_room += isinstance(error, QueueFull)
            self.metrics.refusals.add((error.reason,))
        else:
            self._totals.failed += 1
            self.metrics.failures.add((error.reason,))
        # The message on a bad request may quote it.
        is_about_us = error.status >= SERVER_ERROR or isinstance(error, Overloaded)
        message = str(error) if is_about_us else ""
        self.recent.error(self.clock.seconds(), error.reason, message)

    def reused(
        self, source: str, items: int, trace: Any = None, others: Sequence[Any] = ()
    ) -> None:
        """Count inputs that the server need not compute."""
        del trace, others
        self._totals.reused += items
        self.metrics.reused.add((source,), items)

    def sampled(self, *, is_repeated: bool) -> None:
        """Count one input out of many, to tell whether a cache would help."""
        self._totals.sampled += 1
        self._totals.repeated += is_repeated

    def connection_cut(self, reason: str) -> None:
        """Count a connection that was cut."""
        self.metrics.cut.add((reason,))

    def batch_sent(self, batch: BatchSent) -> None:
        """Count a batch that leaves."""
        now = self.clock.seconds()
        if now >= self.window.next_at:
            self.window.note(now)
        metrics, route = self.metrics, batch.route
        metrics.batches.add((route, batch.reason))
        metrics.items.add((route,), batch.items)
        metrics.batch_calls.observe(batch.parts)
        metrics.batch_items.observe(batch.items)
        metrics.batch_fill.observe(batch.fill)
        metrics.wait_seconds.observe_all(batch.waits_s)
        self._add(batch)

    def _add(self, batch: BatchSent) -> None:
        totals = self._totals
        is_full = batch.reason is FlushReason.FULL
        totals.batches += 1
        totals.full += is_full
        totals.size += batch.size
        if batch.parts == 1 and batch.lanes_left and not is_full:
            totals.crowded_out += 1
            totals.crowded_out_by_key += batch.is_personal

    def batch_done(self, batch: BatchSent, took_s: float | None) -> None:
        """Keep a batch among the last, and add up what it cost the upstream."""
        self.recent.batch(self.clock.seconds(), batch, took_s)
        if took_s is not None:
            self._charge(batch, took_s / batch.in_flight)

    def _charge(self, batch: BatchSent, share_s: float) -> None:
        totals = self._totals
        if batch.parts == 1:
            totals.alone_batches += 1
            totals.alone_items += batch.items
            totals.alone_s += share_s
        else:
            totals.shared_batches += 1
            totals.shared_items += batch.items
            totals.shared_s += share_s
        if batch.fill >= NEARLY_FULL:
            totals.many_batches += 1
            totals.many_items += batch.items
            totals.many_s += share_s
        elif batch.fill <= NEARLY_EMPTY:
            totals.few_batches += 1
            totals.few_items += batch.items
            totals.few_s += share_s

    def batch_split(self) -> None:
        """Count a batch that is sent again as halves."""
        self.metrics.isolations.add()

    def extra_request(self, reason: str) -> None:
        """Count a request that is only due to a failed one."""
        self.metrics.extra_requests.add((reason,))

    def batch_resent(self) -> None:
        """Count a batch that is sent again."""
        self.metrics.resends.add()

    def rows_differed(self) -> None:
        """Count a call whose rows are of two models."""
        self.metrics.differing_rows.add()

    def batch_requeued(self, cause: Cause) -> None:
        """Count a batch that waits on."""
        why = "full" if isinstance(cause, Response) else "unreachable"
        self.metrics.put_backs.add((why,))

    def blocked(self, by: BlockedBy) -> None:
        """Note what blocks batches from now on."""
        self.blocked_time.change(by)

    def kept_apart(self, names: Sequence[str]) -> None:
        """Count in what calls differ."""
        for name in names:
            self._apart.add(name)

    def went_alone(self, name: str) -> None:
        """Count why a call goes alone."""
        self._alone.add(name)

    def upstream_request_ended(self, outcome: str, took_s: float) -> None:
        """Count a request to the upstream."""
        self._totals.requests += 1
        self.metrics.upstream_requests.add((outcome,))
        self.metrics.upstream_seconds.observe(took_s)
