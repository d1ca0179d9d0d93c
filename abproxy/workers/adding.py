"""
Figures of several processes become those of the whole.

What is counted is added up, and so is most of what is read at one moment;
where a sum would mean nothing, the worst counts.
"""

from collections.abc import Iterable, Sequence

from prometheus_client.core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample

from abproxy.upstream.health import State

__all__ = [
    "WORST_FIRST",
    "Figures",
    "add_figures",
    "combine",
    "lasting",
    "momentary",
    "read_figures",
]

Figures = list[Metric]
"""What one scrape says."""

_LARGEST = frozenset(
    {
        "abproxy_batch_max_items",
        "abproxy_build_info",
        "abproxy_draining",
        "abproxy_oldest_wait_seconds",
        "abproxy_upstream_state",
    }
)
"""What is the same for all, or matters where it is largest."""

_SMALLEST = frozenset({"abproxy_upstream_up", "process_start_time_seconds"})

_LASTING = frozenset({"counter", "histogram"})

WORST_FIRST = (
    State.UNREACHABLE,
    State.FAILING,
    State.FULL,
    State.UNKNOWN,
    State.UP,
)
"""One upstream has one state: the worst that a worker knows of."""


def combine(name: str, values: Iterable[float]) -> float:
    """Make one value of those that several processes have for *name*."""
    if name in _LARGEST:
        return max(values)
    return min(values) if name in _SMALLEST else sum(values)


def read_figures(text: str) -> Figures:
    """Read what a scrape of one process says."""
    return list(text_string_to_metric_families(text))


def lasting(figures: Figures) -> Figures:
    """Keep what only grows."""
    return [family for family in figures if family.type in _LASTING]


def momentary(figures: Figures) -> Figures:
    """Keep what is true for a moment."""
    return [family for family in figures if family.type not in _LASTING]


def add_figures(heard: Iterable[Figures]) -> Figures:
    """Make the figures of the whole of those of several processes."""
    families: dict[str, list[Metric]] = {}
    for figures in heard:
        for family in figures:
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
        _leave_the_worst(whole)
    return whole


def _leave_the_worst(states: Metric) -> None:
    are = {sample.labels["state"] for sample in states.samples if sample.value}
    worst = next((state.value for state in WORST_FIRST if state.value in are), None)
    states.samples = [
        sample._replace(value=float(sample.labels["state"] == worst))
        for sample in states.samples
    ]
