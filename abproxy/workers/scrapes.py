"""
The metrics of several processes as one scrape.

They are added up, and where a sum would mean nothing the worst is told.
"""

from collections.abc import Iterable, Sequence

from attrs import frozen
from prometheus_client.core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from abproxy.events import UpstreamState

__all__ = [
    "WORST_FIRST",
    "Collected",
    "Scrape",
    "add_scrapes",
    "combine",
    "cumulative",
    "momentary",
    "parse_scrape",
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
        "abproxy_servers_refused",
        "abproxy_upstream_state",
    }
)
"""What is the same for all, or matters where it is largest."""

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
    if first.name == "abproxy_upstream_state":
        _keep_the_worst(whole)
    return whole


def combine(name: str, values: Iterable[float]) -> float:
    """Return one value of what several processes have of the metric of this *name*."""
    if name in _LARGEST:
        return max(values)
    return min(values) if name in _SMALLEST else sum(values)


def _keep_the_worst(states: Metric) -> None:
    worst: dict[str, str] = {}
    order = [state.value for state in reversed(WORST_FIRST)]
    for state in order:
        for sample in states.samples:
            if sample.value and sample.labels["state"] == state:
                worst[sample.labels.get("model", "")] = state
    states.samples = [
        sample._replace(
            value=float(
                sample.labels["state"] == worst.get(sample.labels.get("model", ""))
            )
        )
        for sample in states.samples
    ]
