"""
Each of several servers of a model, in the metrics and in the status.

A server that is not there any more has no figures: their number is bounded.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from attrs import define, field
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from abproxy.events import ServerState

__all__ = ["ServerMetrics", "dated", "merge_servers"]

Described = dict[str, Any]
"""What the status says of one server."""


@define(kw_only=True, eq=False)
class ServerMetrics(Collector):
    """The figures of each server, as metrics with the label `upstream`."""

    servers: Callable[[], Sequence[Described]] = field(repr=False)
    """Describe each of them; none where there is only one."""

    def collect(self) -> Iterator[Metric]:
        """Yield everything."""
        servers = self.servers()
        if not servers:
            return
        yield _states(servers)
        yield _gauge(
            "items_in_flight", "Inputs in flight there", servers, "inputs_in_flight"
        )
        yield _gauge(
            "inputs_per_second",
            "Measured speed, while it has work",
            servers,
            "inputs_per_s",
        )
        yield _gauge(
            "share", "Its part of the requests that were sent lately", servers, "share"
        )
        yield _counter(
            "requests",
            "Requests for batches, by status or by kind of failure",
            servers,
            "outcomes",
            "outcome",
        )
        yield _counter(
            "sent_elsewhere",
            "Requests that another one got as well, or instead, by reason",
            servers,
            "sent_elsewhere",
            "reason",
        )
        ejections = CounterMetricFamily(
            "abproxy_server_ejections", "Times it was taken out", labels=["upstream"]
        )
        for each in servers:
            ejections.add_metric([each["address"]], each["ejections"])
        yield ejections


def _states(servers: Sequence[Described]) -> Metric:
    states = GaugeMetricFamily(
        "abproxy_server_state",
        "1 for the state of one of several servers",
        labels=["upstream", "state"],
    )
    for each in servers:
        for state in ServerState:
            is_so = each["state"] == state.value
            states.add_metric([each["address"], state.value], is_so)
    return states


def _gauge(
    name: str, about: str, servers: Sequence[Described], member: str
) -> GaugeMetricFamily:
    gauge = GaugeMetricFamily(f"abproxy_server_{name}", about, labels=["upstream"])
    for each in servers:
        gauge.add_metric([each["address"]], each[member])
    return gauge


def _counter(
    name: str, about: str, servers: Sequence[Described], member: str, label: str
) -> CounterMetricFamily:
    labels = ["upstream", label]
    counter = CounterMetricFamily(f"abproxy_server_{name}", about, labels=labels)
    for each in servers:
        for value, count in each[member].items():
            counter.add_metric([each["address"], value], count)
    return counter


def dated(servers: Sequence[Described], to_date: float) -> list[Described]:
    """Return *servers* with dates in the place of the clock's seconds."""
    return [
        {
            **each,
            "since": each["since"] + to_date,
            "last_error_at": each["last_error_at"] and each["last_error_at"] + to_date,
        }
        for each in servers
    ]


# Several workers

_ADDED = ("requests_in_flight", "inputs_in_flight", "inputs_per_s", "ejections")
_WORST_FIRST = [state.value for state in ServerState]


def merge_servers(described: Sequence[Sequence[Described]]) -> list[Described]:
    """Return what can be said of each server, of what every worker says of them."""
    by_address: dict[str, list[Described]] = {}
    for each in (each for servers in described for each in servers):
        by_address.setdefault(each["address"], []).append(each)
    return [_merge(same) for same in by_address.values()]


def _merge(same: Sequence[Described]) -> Described:
    worst = min(same, key=lambda each: _WORST_FIRST.index(each["state"]))
    last = max(same, key=lambda each: each["last_error_at"] or 0)
    return {
        **worst,
        **{name: sum(each[name] for each in same) for name in _ADDED},
        "share": sum(each["share"] for each in same) / len(same),
        "model": next((each["model"] for each in same if each["model"]), None),
        "last_error": last["last_error"],
        "last_error_at": last["last_error_at"],
        "outcomes": _sum([each["outcomes"] for each in same]),
        "sent_elsewhere": _sum([each["sent_elsewhere"] for each in same]),
    }


def _sum(counts: Sequence[dict[str, int]]) -> dict[str, int]:
    whole: dict[str, int] = {}
    for each in counts:
        for name, count in each.items():
            whole[name] = whole.get(name, 0) + count
    return whole
