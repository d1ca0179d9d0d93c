"""
The metrics, under TEI's names.

Each server has a registry of its own, so two of them in one process do not
count together.
"""

import re
from collections.abc import Callable

from attrs import frozen
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
)

__all__ = ("Metrics",)

_SECONDS = tuple(0.0001 * 2**power for power in range(20))
_COUNTS = tuple(float(2**power) for power in range(15))


@frozen(kw_only=True)
class Metrics:
    """The counters of one server."""

    _registry: CollectorRegistry
    request_count: Counter
    request_success: Counter
    request_failure: Counter
    embed_count: Counter
    embed_success: Counter
    batch_inputs: Histogram
    batch_tokens: Histogram
    input_tokens: Histogram
    request_seconds: Histogram
    tokenization_seconds: Histogram
    queue_seconds: Histogram
    inference_seconds: Histogram
    dropped: Counter

    @classmethod
    def create(
        cls, *, queue_size: Callable[[], float], permits_taken: Callable[[], float]
    ) -> "Metrics":
        """Make all counters; the gauges are read at each scrape."""
        registry = CollectorRegistry()
        _gauge(registry, "te_queue_size", "Inputs waiting for the model", queue_size)
        _gauge(
            registry, "abproxy_model_permits_taken", "Inputs accepted", permits_taken
        )
        return cls(
            registry=registry,
            request_count=_counter(registry, "te_request_count", "Requests", "method"),
            request_success=_counter(
                registry, "te_request_success", "Requests answered", "method"
            ),
            request_failure=_counter(
                registry, "te_request_failure", "Requests refused", "err"
            ),
            embed_count=_counter(registry, "te_embed_count", "Inputs accepted"),
            embed_success=_counter(registry, "te_embed_success", "Inputs embedded"),
            dropped=_counter(
                registry,
                "abproxy_model_dropped",
                "Requests whose client left before they were computed",
            ),
            batch_inputs=_histogram(
                registry, "te_batch_next_size", "Inputs computed at once", _COUNTS
            ),
            batch_tokens=_histogram(
                registry, "te_batch_next_tokens", "Tokens computed at once", _COUNTS
            ),
            input_tokens=_histogram(
                registry, "te_request_input_length", "Tokens of an input", _COUNTS
            ),
            request_seconds=_timer(registry, "te_request_duration", "The whole"),
            tokenization_seconds=_timer(
                registry, "te_request_tokenization_duration", "Text to tokens"
            ),
            queue_seconds=_timer(registry, "te_request_queue_duration", "In line"),
            inference_seconds=_timer(
                registry, "te_request_inference_duration", "In the model"
            ),
        )

    def exposition(self) -> bytes:
        """The text that Prometheus reads; TEI's counters have no `_total`."""
        lines = generate_latest(self._registry).splitlines(keepends=True)
        kept = b"".join(line for line in lines if b"_created" not in line)
        return re.sub(rb"\b(te_\w+)_total\b", rb"\1", kept)


def _counter(
    registry: CollectorRegistry, name: str, text: str, *labels: str
) -> Counter:
    return Counter(name, text, labels, registry=registry)


def _gauge(
    registry: CollectorRegistry, name: str, text: str, read: Callable[[], float]
) -> None:
    Gauge(name, text, registry=registry).set_function(read)


def _histogram(
    registry: CollectorRegistry, name: str, text: str, buckets: tuple[float, ...]
) -> Histogram:
    return Histogram(name, text, buckets=buckets, registry=registry)


def _timer(registry: CollectorRegistry, name: str, text: str) -> Histogram:
    return _histogram(registry, name, f"Seconds: {text}", _SECONDS)
