"""
What is read when somebody asks: it cannot drift from the truth.

Everything here is looked up in the rooms at the moment of a scrape and kept
nowhere.
"""

from collections.abc import Callable, Iterator, Sequence, Sized
from typing import Protocol

from attrs import define, field
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from abproxy import __version__
from abproxy.batching.collector import BatchCollector
from abproxy.events import BlockedBy
from abproxy.telemetry.history import BlockedTime
from abproxy.upstream.health import Health, State

__all__ = ["Gauges", "SharedPort"]


class SharedPort(Protocol):
    """Where clients come in."""

    @property
    def channels(self) -> Sized:
        """The connections that are open."""

    @property
    def requests(self) -> Sized:
        """The requests whose answers are owed."""


@define(kw_only=True, eq=False)
class Gauges(Collector):
    """The state of all rooms, as metrics."""

    collector: BatchCollector
    condition: Health
    entrances: Sequence[SharedPort]
    blocked_time: BlockedTime
    cpu_s_per_call: Callable[[], float] = field(repr=False)
    is_draining: Callable[[], bool] = field(repr=False)

    def collect(self) -> Iterator[Metric]:
        """Read everything."""
        for name, about, value in self.readings():
            yield GaugeMetricFamily(f"abproxy_{name}", about, value=value)
        yield self._states()
        yield self._kept()
        info = GaugeMetricFamily(
            "abproxy_build_info", "Always 1, with the version", labels=["version"]
        )
        info.add_metric([__version__], 1)
        yield info

    def readings(self) -> Iterator[tuple[str, str, float]]:
        """Read all figures without a label: name, meaning and value."""
        budget, room = self.collector.budget, self.collector.room
        limit, caps = budget.limit, self.collector.caps
        yield "batches_in_flight", "Batches on their way", budget.batches_in_flight
        yield "items_in_flight", "Inputs on their way", budget.items_in_flight
        yield "budget_items", "Inputs that may be on their way now", limit.items
        yield "budget_max_items", "Inputs that the upstream takes at all", limit.ceiling
        yield "slots", "Batches that may leave without being full", budget.slots.count
        yield "slots_taken", "Batches on their way that were not", budget.slots_taken
        yield "batch_max_items", "Inputs that make a batch full", caps.items
        yield "waiting_items", "Inputs that wait", room.items
        yield "waiting_bytes", "JSON of the inputs that wait", room.size
        yield "waiting_max_items", "Inputs that may wait", room.max_items
        yield "waiting_max_bytes", "JSON of inputs that may wait", room.max_size
        oldest_s = self._oldest_wait_s()
        yield "oldest_wait_seconds", "The wait of who has waited longest", oldest_s
        lanes = len(self.collector.platform.lanes)
        yield "lanes", "Kinds of calls of which some wait", lanes
        channels = sum(len(entrance.channels) for entrance in self.entrances)
        yield "connections", "Connections open", channels
        requests = sum(len(entrance.requests) for entrance in self.entrances)
        yield "requests_open", "Requests not yet answered", requests
        yield "upstream_up", "1 if the upstream answers", self.condition.answers
        yield "draining", "1 after SIGTERM", self.is_draining()
        cpu_s = self.cpu_s_per_call()
        yield "cpu_seconds_per_call", "CPU time of a call in the last hour", cpu_s

    def _oldest_wait_s(self) -> float:
        oldest = self.collector.platform.oldest_arrived_at
        return 0.0 if oldest is None else self.collector.clock.seconds() - oldest

    def _states(self) -> Metric:
        states = GaugeMetricFamily(
            "abproxy_upstream_state", "1 for how the upstream is", labels=["state"]
        )
        for state in State:
            states.add_metric([state.value], state is self.condition.state)
        return states

    def _kept(self) -> Metric:
        kept = CounterMetricFamily(
            "abproxy_kept_seconds",
            "For how long a batch was ready and something kept it",
            labels=["by"],
        )
        for cause in (BlockedBy.SLOT, BlockedBy.BUDGET, BlockedBy.UPSTREAM):
            kept.add_metric([cause.value], self.blocked_time.seconds(cause))
        return kept
