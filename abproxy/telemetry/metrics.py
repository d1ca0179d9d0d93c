"""
What is counted for Prometheus, one line for each figure.

Names carry their unit, and labels have few values: routes that are batched,
statuses, and reasons out of fixed lists.  What can be read at the moment when
somebody asks is no counter: see `gauges`.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from attrs import define, field
from prometheus_client import (
    CollectorRegistry,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.exposition import choose_encoder

from abproxy.errors import ProxyError
from abproxy.telemetry.figures import Figure, Histogram, Tally

__all__ = ["Metrics", "write_figures"]

COUNTS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
FILLS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
SECONDS = (
    *(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5),
    *(1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0),
)

SERVER_ERROR = 500


OPENMETRICS = "application/openmetrics-text; version=1.0.0"
_WANTS_IT = re.compile(rb"application/openmetrics-text *; *version=1\.")
"""The library believes whatever a client calls a version, or breaks on it."""


def _reasons(*, refused: bool, of: type[ProxyError] = ProxyError) -> Iterator[str]:
    """Name all errors that refuse a request, or all that fail it."""
    if (of.status < SERVER_ERROR) is refused:
        yield of.reason
    for kind in of.__subclasses__():
        yield from _reasons(refused=refused, of=kind)


def _begin(tally: Tally, values: Iterable[str]) -> None:
    """Show *values* of the only label at 0: what begins at 1 has not grown."""
    for value in values:
        tally.add((value,), 0)


def write_figures(registry: Any, accepted: bytes) -> tuple[bytes, bytes]:
    """Write what *registry* collects: content type for an `Accept` line, and body."""
    write, kind = choose_encoder(OPENMETRICS if _WANTS_IT.search(accepted) else "")
    return kind.encode(), write(registry)


@define(eq=False)
class Metrics:
    """Everything that is counted."""

    registry: CollectorRegistry = field(factory=CollectorRegistry)

    calls: Tally = field(init=False)
    call_seconds: Histogram = field(init=False)
    cancellations: Tally = field(init=False)
    relayed: Tally = field(init=False)
    refusals: Tally = field(init=False)
    failures: Tally = field(init=False)
    batches: Tally = field(init=False)
    items: Tally = field(init=False)
    batch_calls: Figure = field(init=False)
    batch_items: Figure = field(init=False)
    batch_fill: Figure = field(init=False)
    wait_seconds: Figure = field(init=False)
    upstream_requests: Tally = field(init=False)
    upstream_seconds: Figure = field(init=False)
    isolations: Tally = field(init=False)
    resends: Tally = field(init=False)
    put_backs: Tally = field(init=False)

    def __attrs_post_init__(self) -> None:
        """Declare every figure."""
        # Twice as many lines for when a figure was first made: nobody asks.
        disable_created_metrics()
        self._declare_calls()
        self._declare_batches()
        self._declare_upstream()
        ProcessCollector(registry=self.registry)

    def write(self, accepted: bytes) -> tuple[bytes, bytes]:
        """Write all figures as an `Accept` line wants them: content type, and body."""
        return write_figures(self.registry, accepted)

    def _declare_calls(self) -> None:
        self.calls = self._counter(
            "calls",
            "Batched calls by route and status of the answer; 499: the client left",
            "route",
            "status",
        )
        self.call_seconds = self._histogram(
            "call_duration_seconds",
            "From a whole call to the end of its answer",
            SECONDS,
            by_route=True,
        )
        self.cancellations = self._counter(
            "cancellations",
            "Batched calls whose client left before its answer",
            "route",
        )
        self.relayed = self._counter(
            "relayed_requests",
            "Requests passed on alone by route (other: none that is batched)",
            "route",
            "status",
        )
        self.refusals = self._counter(
            "refusals", "Requests that abproxy did not take, by reason", "reason"
        )
        _begin(self.refusals, _reasons(refused=True))
        self.failures = self._counter(
            "failures", "Requests that abproxy took and answered with 5xx", "reason"
        )
        _begin(self.failures, _reasons(refused=False))

    def _declare_batches(self) -> None:
        self.batches = self._counter(
            "batches", "Batches that left, by the reason for it", "route", "reason"
        )
        self.items = self._counter("items", "Inputs that left in batches", "route")
        self.batch_calls = self._figure(
            "batch_calls", "Calls that shared a batch", COUNTS
        )
        self.batch_items = self._figure("batch_items", "Inputs in a batch", COUNTS)
        self.batch_fill = self._figure(
            "batch_fill_ratio", "How full a batch was when it left", FILLS
        )
        self.wait_seconds = self._figure(
            "wait_seconds", "How long a call had waited when it left", SECONDS
        )

    def _declare_upstream(self) -> None:
        self.upstream_requests = self._counter(
            "upstream_requests",
            "Requests sent for batches, by status, or by what went wrong",
            "outcome",
        )
        self.upstream_seconds = self._figure(
            "upstream_request_seconds", "From request to whole answer", SECONDS
        )
        self.isolations = self._counter(
            "isolations",
            "Refused batches that were sent again as halves to find the bad call",
        )
        self.resends = self._counter(
            "resends", "Batches that were sent again because their connection broke"
        )
        self.put_backs = self._counter(
            "put_backs", "Batches that waited on as the upstream took none", "cause"
        )
        for figure in (self.isolations, self.resends):
            figure.add((), 0)
        _begin(self.put_backs, ("full", "unreachable"))

    def _counter(self, name: str, about: str, *labels: str) -> Tally:
        tally = Tally(name=f"abproxy_{name}", about=about, labels=labels)
        self.registry.register(tally)
        return tally

    def _figure(self, name: str, about: str, bounds: Sequence[float]) -> Figure:
        return self._histogram(name, about, bounds).of()

    def _histogram(
        self, name: str, about: str, bounds: Sequence[float], *, by_route: bool = False
    ) -> Histogram:
        histogram = Histogram(
            name=f"abproxy_{name}", about=about, bounds=bounds, by_route=by_route
        )
        self.registry.register(histogram)
        return histogram
