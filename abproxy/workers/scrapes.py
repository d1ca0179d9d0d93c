"""
The metrics of several processes as one scrape.

They are added up, and where a sum would mean nothing the worst is told.
"""

from collections.abc import Iterable, Sequence
from statistics import fmean

from attrs import frozen
from prometheus_client.core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from abproxy.events import ServerState, UpstreamState

__all__ = [
    "WORST_FIRST",
    "Collected",
    "Scrape",
    "add_scrapes",
    "combine",
    "cumulative",
    "momentary",
    "parse_scrape",
    "without_former_servers",
]

Scrape = list[Metric]
"""The metric families of one scrape."""

_LARGEST = frozenset(
    {
        "abproxy_batch_max_items",
        "abproxy_build_info",
        "abproxy_draining",
        "abproxy_ladder_rung",
        "abproxy_oldest_wait_seconds",
        "abproxy_server_state",
        "abproxy_servers_refused",
        "abproxy_upstream_state",
    }
)
"""What is the same for all, or matters where it is largest."""

_MEAN = frozenset({"abproxy_server_share"})

_FIRST = ("abproxy_ladder_looks_to_trial", "process_start_time_seconds")
_SMALLEST = frozenset({"abproxy_upstream_up", *_FIRST})

_CUMULATIVE = frozenset({"counter", "histogram"})

WORST_FIRST = (
    UpstreamState.UNREACHABLE,
    UpstreamState.FAILING,
    UpstreamState.FULL,
    UpstreamState.UNKNOWN,
    UpstreamState.UP,
)
"""One upstream has one state: the worst that a worker knows of."""

SERVER_STATE = "abproxy_server_state"

_WORST_OF = {
    "abproxy_upstream_state": [state.value for state in WORST_FIRST],
    SERVER_STATE: [state.value for state in ServerState],
}


@frozen
class Collected:
    """Metric families as a registry has them."""

    families: Scrape

    def collect(self) -> Scrape:
        """Return them."""
        return self.families


def parse_scrape(text: str) -> Scrape:
    """Return the metric families of one process."""
    return list(text_string_to_metric_families(text))


def cumulative(scrape: Scrape) -> Scrape:
    """Return the families that only grow."""
    return [family for family in scrape if family.type in _CUMULATIVE]


def momentary(scrape: Scrape) -> Scrape:
    """Return the families that are true for a moment."""
    return [family for family in scrape if family.type not in _CUMULATIVE]


def add_scrapes(scrapes: Iterable[Scrape]) -> Scrape:
    """Return one scrape made of those of several processes."""
    families: dict[str, list[Metric]] = {}
    for scrape in scrapes:
        for family in scrape:
            families.setdefault(family.name, []).append(family)
    return [_add(same) for same in families.values()]


def _add(same: Sequence[Metric]) -> Metric:
    first = same[0]
    samples: dict[tuple[str, frozenset[tuple[str, str]]], list[Sample]] = {}
    for sample in (sample for family in same for sample in family.samples):
        key = sample.name, frozenset(sample.labels.items())
        samples.setdefault(key, []).append(sample)
    whole = Metric(first.name, first.documentation, first.type)
    for equal in samples.values():
        value = combine(first.name, [sample.value for sample in equal])
        whole.samples.append(Sample(equal[0].name, equal[0].labels, value))
    if first.name in _WORST_OF:
        _keep_the_worst(whole, _WORST_OF[first.name])
    return whole


def combine(name: str, values: Iterable[float]) -> float:
    """Return one value of what several processes have of the metric of this *name*."""
    if name in _MEAN:
        return fmean(values)
    if name in _LARGEST:
        return max(values)
    return min(values) if name in _SMALLEST else sum(values)


def _keep_the_worst(states: Metric, worst_first: Sequence[str]) -> None:
    """Let what has several states by several processes have but the worst of them."""
    worst: dict[frozenset[tuple[str, str]], str] = {}
    for state in reversed(worst_first):
        for sample in states.samples:
            if sample.value and sample.labels["state"] == state:
                worst[_whose(sample)] = state
    states.samples = [
        sample._replace(
            value=float(sample.labels["state"] == worst.get(_whose(sample)))
        )
        for sample in states.samples
    ]


def _whose(sample: Sample) -> frozenset[tuple[str, str]]:
    return frozenset(each for each in sample.labels.items() if each[0] != "state")


def without_former_servers(scrape: Scrape) -> Scrape:
    """Return *scrape* without the counts of servers that no process has any more."""
    there = {
        (sample.labels.get("model"), sample.labels["upstream"])
        for family in scrape
        if family.name == SERVER_STATE
        for sample in family.samples
    }
    for family in scrape:
        family.samples = [
            sample
            for sample in family.samples
            if "upstream" not in sample.labels
            or (sample.labels.get("model"), sample.labels["upstream"]) in there
        ]
    return scrape
