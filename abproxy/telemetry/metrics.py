"""
Counters and histograms for Prometheus, one line for each figure.

Names carry their unit, and labels have few values: routes that are batched,
statuses, and reasons out of fixed lists.  What can be read at the moment of a
scrape is no counter: see `gauges`.

The library's own counters and histograms take locks for threads that we do not
have; with several figures for each batch and two for each call that is felt.
Ours take a fraction of a microsecond, and are written by the library.
"""

import re
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate
from typing import Any

from attrs import define, field
from prometheus_client import (
    CollectorRegistry,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.core import (
    CounterMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

from abproxy.errors import ProxyError

__all__ = ["Buckets", "Counter", "Histogram", "Metrics", "write_metrics"]

COUNTS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
FILLS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
SECONDS = (
    *(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5),
    *(1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0),
)

SHORT_SECONDS = (
    *(0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005),
    *(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0),
)

SERVER_ERROR = 500

OPENMETRICS = "application/openmetrics-text; version=1.0.0"
_WANTS_IT = re.compile(rb"application/openmetrics-text *; *version=1\.")
"""The library takes any version that a client names, or fails on it."""


def write_metrics(registry: Any, accepted: bytes) -> tuple[bytes, bytes]:
    """Return what *registry* collects: content type for an `Accept` line, and body."""
    write, kind = choose_encoder(OPENMETRICS if _WANTS_IT.search(accepted) else "")
    return kind.encode(), write(registry)


@define(kw_only=True, eq=False)
class Counter(Collector):
    """Counts events by the values of their labels."""

    name: str
    about: str
    labels: Sequence[str] = ()
    _cells: dict[tuple[str, ...], list[int]] = field(init=False, factory=dict)

    def add(self, values: tuple[str, ...] = (), number: int = 1) -> None:
        """Add a *number* to the count for these *values* of the labels."""
        try:
            self._cells[values][0] += number
        except KeyError:
            self.cell(values)[0] += number

    def cell(self, values: tuple[str, ...]) -> list[int]:
        """Return the only number of a list, to be added to, for these *values*."""
        cell = self._cells.get(values)
        if cell is None:
            cell = self._cells[values] = [0]
        return cell

    def collect(self) -> Iterator[Metric]:
        """Return all for a scrape."""
        family = CounterMetricFamily(self.name, self.about, labels=self.labels)
        for values, cell in self._cells.items():
            family.add_metric(values, cell[0])
        yield family


@define(eq=False)
class Buckets:
    """The buckets of one histogram."""

    bounds: Sequence[float]
    """The largest value of each bucket; what is over has one of its own."""

    sum: float = field(init=False, default=0.0)
    _counts: list[int] = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._counts = [0] * (len(self.bounds) + 1)

    def observe(self, value: float) -> None:
        """Count a *value*."""
        self._counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    def observe_all(self, values: Sequence[float]) -> None:
        """Count all *values*."""
        bounds, counts = self.bounds, self._counts
        least = bisect_left(bounds, min(values, default=0.0))
        # Those of one batch nearly always fall into one bucket.
        if least == bisect_left(bounds, max(values, default=0.0)):
            counts[least] += len(values)
        else:
            for value in values:
                counts[bisect_left(bounds, value)] += 1
        self.sum += sum(values)

    def cumulated(self) -> list[tuple[str, float]]:
        """Return how many values were not over each bound."""
        names = [*map(floatToGoString, self.bounds), "+Inf"]
        return list(zip(names, accumulate(self._counts), strict=True))


@define(kw_only=True, eq=False)
class Histogram(Collector):
    """The buckets of one figure, or those of each route."""

    name: str
    about: str
    bounds: Sequence[float]
    by_route: bool = False
    _buckets: dict[str, Buckets] = field(init=False, factory=dict)

    def of(self, route: str = "") -> Buckets:
        """Return the buckets of a *route*."""
        buckets = self._buckets.get(route)
        if buckets is None:
            buckets = self._buckets[route] = Buckets(self.bounds)
        return buckets

    def collect(self) -> Iterator[Metric]:
        """Return all for a scrape."""
        labels = ["route"] if self.by_route else []
        family = HistogramMetricFamily(self.name, self.about, labels=labels)
        for route, buckets in self._buckets.items():
            values = [route] if self.by_route else []
            family.add_metric(values, buckets.cumulated(), buckets.sum)
        yield family


@define(eq=False)
class Metrics:
    """All counters and histograms."""

    registry: CollectorRegistry = field(factory=CollectorRegistry)
    is_of_process: bool = True
    """Whether the figures of the process are among them."""

    calls: Counter = field(init=False)
    call_seconds: Histogram = field(init=False)
    overhead_seconds: Buckets = field(init=False)
    cancellations: Counter = field(init=False)
    relayed: Counter = field(init=False)
    refusals: Counter = field(init=False)
    failures: Counter = field(init=False)
    batches: Counter = field(init=False)
    items: Counter = field(init=False)
    reused: Counter = field(init=False)
    batch_calls: Buckets = field(init=False)
    batch_items: Buckets = field(init=False)
    batch_fill: Buckets = field(init=False)
    wait_seconds: Buckets = field(init=False)
    upstream_requests: Counter = field(init=False)
    upstream_seconds: Buckets = field(init=False)
    isolations: Counter = field(init=False)
    resends: Counter = field(init=False)
    differing_rows: Counter = field(init=False)
    extra_requests: Counter = field(init=False)
    put_backs: Counter = field(init=False)
    cut: Counter = field(init=False)

    def __attrs_post_init__(self) -> None:
        # Else a line for each figure says when it was first counted, for no use.
        disable_created_metrics()
        self._declare_calls()
        self._declare_batches()
        self._declare_upstream()
        if self.is_of_process:
            ProcessCollector(registry=self.registry)

    def write(self, accepted: bytes) -> tuple[bytes, bytes]:
        """Return content type and body of all metrics, as an `Accept` line asks."""
        return write_metrics(self.registry, accepted)

    def _declare_calls(self) -> None:
        self.calls = self._counter(
            "calls",
            "Batched calls by route and status of the answer; 499: client disconnected",
            "route",
            "status",
        )
        self.call_seconds = self._histogram(
            "call_duration_seconds",
            "From the last byte of a call to the end of its answer",
            SECONDS,
            by_route=True,
        )
        self.overhead_seconds = self._buckets(
            "overhead_seconds",
            "Of a call, what was neither its wait to be sent nor the upstream's time",
            SHORT_SECONDS,
        )
        self.cancellations = self._counter(
            "cancellations",
            "Batched calls whose client disconnected before the answer",
            "route",
        )
        self.relayed = self._counter(
            "relayed_requests",
            "Requests passed on alone, by route (other: a route that is not batched)",
            "route",
            "status",
        )
        self.refusals = self._counter(
            "refusals", "Requests that abproxy did not accept, by reason", "reason"
        )
        _start_at_0(self.refusals, _reasons(refused=True))
        self.failures = self._counter(
            "failures", "Requests that abproxy accepted and answered with 5xx", "reason"
        )
        _start_at_0(self.failures, _reasons(refused=False))

    def _declare_batches(self) -> None:
        self.batches = self._counter(
            "batches", "Batches that were sent, by the reason for it", "route", "reason"
        )
        self.items = self._counter("items", "Inputs that were sent in batches", "route")
        self.reused = self._counter(
            "reused_inputs",
            "Inputs that were not computed again, by where their rows came from",
            "source",
        )
        _start_at_0(self.reused, ("in_flight", "cache", "shared_cache"))
        self.batch_calls = self._buckets(
            "batch_calls", "Calls that shared a batch", COUNTS
        )
        self.batch_items = self._buckets("batch_items", "Inputs in a batch", COUNTS)
        self.batch_fill = self._buckets(
            "batch_fill_ratio", "How full a batch was when it was sent", FILLS
        )
        self.wait_seconds = self._buckets(
            "wait_seconds", "How long a call had waited when it was sent", SECONDS
        )

    def _declare_upstream(self) -> None:
        self.upstream_requests = self._counter(
            "upstream_requests",
            "Requests sent for batches, by status or by kind of failure",
            "outcome",
        )
        self.upstream_seconds = self._buckets(
            "upstream_request_seconds",
            "From a request to the end of its answer",
            SECONDS,
        )
        self.isolations = self._counter(
            "isolations",
            "Refused batches that were sent again as halves to find the bad call",
        )
        self.resends = self._counter(
            "resends", "Batches that were sent again because their connection broke"
        )
        self.differing_rows = self._counter(
            "differing_rows",
            "Times that the rows of a call were of two models, and it was computed "
            "again or failed",
        )
        self.put_backs = self._counter(
            "put_backs",
            "Batches queued again because the upstream was full or unreachable",
            "cause",
        )
        self.extra_requests = self._counter(
            "extra_requests",
            "Requests only due to one that failed or is late, by what they are for",
            "reason",
        )
        reasons = ("probe", "piece", "resend", "elsewhere", "hedge")
        _start_at_0(self.extra_requests, reasons)
        self.cut = self._counter(
            "connections_cut",
            "Connections of clients that were cut, by reason",
            "reason",
        )
        _start_at_0(self.cut, ("slow_reader",))
        for counter in (self.isolations, self.resends, self.differing_rows):
            counter.add((), 0)
        _start_at_0(self.put_backs, ("full", "unreachable"))

    def _counter(self, name: str, about: str, *labels: str) -> Counter:
        counter = Counter(name=f"abproxy_{name}", about=about, labels=labels)
        self.registry.register(counter)
        return counter

    def _buckets(self, name: str, about: str, bounds: Sequence[float]) -> Buckets:
        return self._histogram(name, about, bounds).of()

    def _histogram(
        self, name: str, about: str, bounds: Sequence[float], *, by_route: bool = False
    ) -> Histogram:
        histogram = Histogram(
            name=f"abproxy_{name}", about=about, bounds=bounds, by_route=by_route
        )
        self.registry.register(histogram)
        return histogram


def _reasons(*, refused: bool, of: type[ProxyError] = ProxyError) -> Iterator[str]:
    """List the reasons of all errors that refuse a request, or of all that fail it."""
    if (of.status < SERVER_ERROR) is refused:
        yield of.reason
    for kind in of.__subclasses__():
        yield from _reasons(refused=refused, of=kind)


def _start_at_0(counter: Counter, values: Iterable[str]) -> None:
    """Create the series of *values* at 0: one that begins at 1 shows no increase."""
    for value in values:
        counter.add((value,), 0)
