"""
Gauges: values that are read at the moment of a scrape.

It is kept nowhere, so it cannot drift from the truth.
"""

from collections.abc import Callable, Iterator

from attrs import define, field
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from abproxy import __version__
from abproxy.batching.collector import BatchCollector
from abproxy.batching.slots import LearnedSlots
from abproxy.events import BlockedBy, UpstreamState
from abproxy.reuse.layers import Layers
from abproxy.telemetry.lines import lost_lines
from abproxy.telemetry.recorder import Recorder

__all__ = ["Gauges", "ProcessGauges"]


@define(kw_only=True, eq=False)
class ProcessGauges(Collector):
    """The state of the process at one moment, as metrics."""

    recorder: Recorder
    """Records all requests."""

    connections: Callable[[], int] = field(repr=False)
    """Return how many connections of clients are open."""

    open_requests: Callable[[], int] = field(repr=False)
    """Return how many requests are not yet answered."""

    is_draining: Callable[[], bool] = field(repr=False)

    memory: Callable[[], tuple[int, int, int]] = field(repr=False)
    """Return bytes of requests, of answers, and how many there may be."""

    def collect(self) -> Iterator[Metric]:
        """Yield everything."""
        for name, about, value in self.readings():
            yield GaugeMetricFamily(f"abproxy_{name}", about, value=value)
        yield _lost()
        info = GaugeMetricFamily(
            "abproxy_build_info", "Always 1, with the version", labels=["version"]
        )
        info.add_metric([__version__], 1)
        yield info

    def readings(self) -> Iterator[tuple[str, str, float]]:
        """Yield all figures without a label: name, meaning and value."""
        yield "connections", "Open client connections", self.connections()
        yield "requests_open", "Requests not yet answered", self.open_requests()
        arriving, unread, most = self.memory()
        yield "arriving_bytes", "Bytes of requests that arrive", arriving
        yield (
            "unread_bytes",
            "Bytes of answers that are collected or wait to be read",
            unread,
        )
        yield "memory_max_bytes", "Bytes that both may have together", most
        yield "draining", "1 after SIGTERM", self.is_draining()
        cpu_s = self.recorder.cpu_s_per_call()
        yield "cpu_seconds_per_call", "CPU time of a call in the last hour", cpu_s


@define(kw_only=True, eq=False)
class Gauges(Collector):
    """The state of a model at one moment, as metrics."""

    recorder: Recorder
    collector: BatchCollector
    layers: Layers
    upstream_state: Callable[[], UpstreamState] = field(repr=False)
    servers_refused: Callable[[], int] = field(default=lambda: 0, repr=False)

    def collect(self) -> Iterator[Metric]:
        """Yield everything."""
        for name, about, value in self.readings():
            yield GaugeMetricFamily(f"abproxy_{name}", about, value=value)
        yield self._states()
        yield self._kept()

    def readings(self) -> Iterator[tuple[str, str, float]]:
        """Yield all figures without a label: name, meaning and value."""
        budget, admission = self.collector.budget, self.collector.admission
        limit, caps = budget.limit, self.collector.caps
        yield "batches_in_flight", "Batches in flight", budget.batches_in_flight
        yield "items_in_flight", "Inputs in flight", budget.items_in_flight
        yield "budget_items", "Inputs that may be in flight now", limit.items
        yield (
            "budget_max_items",
            "Inputs that the budget may allow at most",
            limit.ceiling,
        )
        slots = budget.slots.count * budget.servers
        yield "slots", "Batches in flight that may not be full", slots
        yield "slots_taken", "Batches in flight that were not full", budget.slots_taken
        yield from self._ladder()
        yield "batch_max_items", "Inputs that make a batch full", caps.items
        waiting = admission.queued
        yield "waiting_calls", "Calls, or parts of large ones, that wait", waiting
        yield "waiting_items", "Inputs in the queue", admission.items
        yield (
            "waiting_rest_items",
            "Inputs of large calls that are not in the queue yet",
            admission.rest_items,
        )
        size = admission.size + admission.rest_size
        yield "waiting_bytes", "JSON of all these inputs", size
        yield "waiting_max_items", "Inputs that may wait", admission.max_items
        yield "waiting_max_bytes", "JSON of inputs that may wait", admission.max_size
        oldest_s = self._oldest_wait_s()
        yield "oldest_wait_seconds", "How long the oldest call has waited", oldest_s
        lanes = len(self.collector.queue.lanes)
        yield "lanes", "Lanes with waiting calls", lanes
        out = self.collector.isolation.lanes_out.lanes()
        refused = len({*self.collector.backoff.lanes(), *out})
        yield "lanes_refused", "Lanes of which the upstream takes no work", refused
        memory = self.layers.memory
        size, rows = (memory.store.size, len(memory.store)) if memory else (0, 0)
        yield "cache_bytes", "Memory that remembered rows take", size
        yield "cache_rows", "Rows that are remembered", rows
        yield "upstream_up", "1 if the upstream answers", self.upstream_state().answers
        refused = self.servers_refused()
        yield "servers_refused", "Servers left out for their model", refused

    def _oldest_wait_s(self) -> float:
        oldest = self.collector.queue.oldest_arrived_at
        return 0.0 if oldest is None else self.collector.clock.seconds() - oldest

    def _ladder(self) -> Iterator[tuple[str, str, float]]:
        slots = self.collector.budget.slots
        ladder = slots.ladder if isinstance(slots, LearnedSlots) else None
        yield (
            "ladder_rung",
            "How freely batches leave, from 1 (held for callers) to 6; 0 with SLOTS",
            ladder.on + 1 if ladder else 0,
        )
        holds = isinstance(slots, LearnedSlots) and slots.holds
        yield "ladder_holds", "1 while batches are held for callers to return", holds
        trying = ladder is not None and ladder.is_trying
        yield "ladder_trying", "1 while that is a trial", trying
        trials = ladder.trials if ladder else 0
        yield "ladder_trials", "Trials so far", trials
        left = ladder.looks_to_trial if ladder else 0
        yield "ladder_looks_to_trial", "Looks at the stay of calls until a trial", left

    def _states(self) -> Metric:
        states = GaugeMetricFamily(
            "abproxy_upstream_state",
            "1 for the state of the upstream",
            labels=["state"],
        )
        current = self.upstream_state()
        for state in UpstreamState:
            states.add_metric([state.value], state is current)
        return states

    def _kept(self) -> Metric:
        kept = CounterMetricFamily(
            "abproxy_kept_seconds",
            "For how long a batch was ready and had to wait for this",
            labels=["by"],
        )
        seconds = self.recorder.blocked_time.seconds
        for cause in (c for c in BlockedBy if c is not BlockedBy.NOTHING):
            kept.add_metric([cause.value], seconds(cause))
        return kept


def _lost() -> Metric:
    lost = CounterMetricFamily(
        "abproxy_log_lines_lost",
        "Lines that could not be written, of the log and of the access log",
        labels=["log"],
    )
    for name, lines in lost_lines().items():
        lost.add_metric([name], lines)
    return lost
