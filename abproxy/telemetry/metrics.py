"""
What is counted for Prometheus, one line for each figure.

Names carry their unit, and labels have few values: routes that are batched,
statuses, and reasons out of fixed lists.  What can be read at the moment when
somebody asks is no counter: see `gauges`.
"""

import re
from collections.abc import Sequence
from functools import partial
from typing import Any

from attrs import define, field
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.exposition import choose_encoder

__all__ = ["Metrics"]

COUNTS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
FILLS = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)
SECONDS = (
    *(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5),
    *(1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0),
)


OPENMETRICS = "application/openmetrics-text; version=1.0.0"
_WANTS_IT = re.compile(rb"application/openmetrics-text *; *version=1\.")
"""The library believes whatever a client calls a version, or breaks on it."""


class _Labelled(dict[tuple[str, ...], Any]):
    """One metric's figures by their labels; the library takes a lock to find them."""

    def __init__(self, metric: Any) -> None:
        super().__init__()
        self._metric = metric

    def __missing__(self, labels: tuple[str, ...]) -> Any:
        figure = self[labels] = self._metric.labels(*labels)
        return figure


@define(eq=False)
class Metrics:
    """Everything that is counted."""

    registry: CollectorRegistry = field(factory=CollectorRegistry)

    calls: _Labelled = field(init=False)
    call_seconds: _Labelled = field(init=False)
    cancellations: _Labelled = field(init=False)
    relayed: _Labelled = field(init=False)
    refusals: _Labelled = field(init=False)
    failures: _Labelled = field(init=False)
    batches: _Labelled = field(init=False)
    items: _Labelled = field(init=False)
    batch_calls: Histogram = field(init=False)
    batch_items: Histogram = field(init=False)
    batch_fill: Histogram = field(init=False)
    wait_seconds: Histogram = field(init=False)
    upstream_requests: _Labelled = field(init=False)
    upstream_seconds: Histogram = field(init=False)
    isolations: Counter = field(init=False)
    resends: Counter = field(init=False)
    put_backs: _Labelled = field(init=False)

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
        write, kind = choose_encoder(OPENMETRICS if _WANTS_IT.search(accepted) else "")
        return kind.encode(), write(self.registry)

    def _declare_calls(self) -> None:
        self.calls = self._counter(
            "calls",
            "Batched calls by route and status of the answer; 499: the client left",
            "route",
            "status",
        )
        self.call_seconds = self._timer(
            "call_duration_seconds", "From a whole call to the end of its answer"
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
        self.failures = self._counter(
            "failures", "Requests that abproxy took and answered with 5xx", "reason"
        )

    def _declare_batches(self) -> None:
        counts = partial(self._histogram, buckets=COUNTS)
        self.batches = self._counter(
            "batches", "Batches that left, by the reason for it", "route", "reason"
        )
        self.items = self._counter("items", "Inputs that left in batches", "route")
        self.batch_calls = counts("batch_calls", "Calls that shared a batch")
        self.batch_items = counts("batch_items", "Inputs in a batch")
        self.batch_fill = self._histogram(
            "batch_fill_ratio", "How full a batch was when it left", buckets=FILLS
        )
        self.wait_seconds = self._histogram(
            "wait_seconds", "How long a call had waited when it left", buckets=SECONDS
        )

    def _declare_upstream(self) -> None:
        self.upstream_requests = self._counter(
            "upstream_requests",
            "Requests sent for batches, by status, or by what went wrong",
            "outcome",
        )
        self.upstream_seconds = self._histogram(
            "upstream_request_seconds", "From request to whole answer", buckets=SECONDS
        )
        self.isolations = Counter(
            "abproxy_isolations",
            "Refused batches that were sent again as halves to find the bad call",
            registry=self.registry,
        )
        self.resends = Counter(
            "abproxy_resends",
            "Batches that were sent again because their connection broke",
            registry=self.registry,
        )
        self.put_backs = self._counter(
            "put_backs", "Batches that waited on as the upstream took none", "cause"
        )

    def _counter(self, name: str, about: str, *labels: str) -> _Labelled:
        name = f"abproxy_{name}"
        return _Labelled(Counter(name, about, labels, registry=self.registry))

    def _timer(self, name: str, about: str) -> _Labelled:
        name = f"abproxy_{name}"
        timer = Histogram(
            name, about, ["route"], registry=self.registry, buckets=SECONDS
        )
        return _Labelled(timer)

    def _histogram(self, name: str, about: str, buckets: Sequence[float]) -> Histogram:
        name = f"abproxy_{name}"
        return Histogram(name, about, registry=self.registry, buckets=buckets)
