"""Metrics of several processes become those of the whole."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client.core import Metric

from abproxy.telemetry.metrics import Metrics
from abproxy.workers.aggregate import CumulativeTotals
from abproxy.workers.scrapes import (
    Scrape,
    add_scrapes,
    cumulative,
    momentary,
    parse_scrape,
)

STATES = ("unknown", "up", "full", "unreachable", "failing")


def value(figures: Scrape, name: str, **labels: str) -> float:
    """Find one value."""
    [found] = [
        sample.value
        for family in figures
        for sample in family.samples
        if (sample.name, sample.labels) == (name, labels)
    ]
    return float(found)


def scrape(*calls: tuple[str, str], waits_s: tuple[float, ...] = ()) -> Scrape:
    """Make what a process says that has answered such calls."""
    metrics = Metrics()
    [metrics.calls.add(call) for call in calls]
    [metrics.wait_seconds.observe(wait_s) for wait_s in waits_s]
    _, body = metrics.write(b"")
    return parse_scrape(body.decode())


def gauge(name: str, value: float) -> Scrape:
    """Make what a process says of one moment."""
    return parse_scrape(f"# TYPE {name} gauge\n{name} {value}\n")


def upstream_is(now: str) -> Scrape:
    """Make what a process says whose upstream is so."""
    lines = [
        f'abproxy_upstream_state{{state="{state}"}} {int(state == now)}'
        for state in STATES
    ]
    kind = "# TYPE abproxy_upstream_state gauge"
    return parse_scrape("\n".join([kind, *lines, ""]))


def test_calls_are_added_up_by_route_and_status() -> None:
    """Also those that only one of them has seen."""
    one = scrape(("/embed", "200"), ("/embed", "200"))
    other = scrape(("/embed", "200"), ("/rerank", "413"))

    whole = add_scrapes([one, other])

    name = "abproxy_calls_total"
    assert value(whole, name, route="/embed", status="200") == 3
    assert value(whole, name, route="/rerank", status="413") == 1


def test_histograms_are_added_up_bucket_by_bucket() -> None:
    """Their sums and counts too."""
    whole = add_scrapes([scrape(waits_s=(0.001, 3.0)), scrape(waits_s=(0.002,))])

    name = "abproxy_wait_seconds"
    assert value(whole, f"{name}_bucket", le="0.001") == 1
    assert value(whole, f"{name}_bucket", le="0.0025") == 2
    assert value(whole, f"{name}_bucket", le="+Inf") == 3
    assert value(whole, f"{name}_sum") == pytest.approx(3.003)


@settings(deadline=None, max_examples=30)
@given(st.lists(st.lists(st.sampled_from(["200", "413", "502"])), min_size=1))
def test_nothing_is_lost_or_counted_twice(statuses: list[list[str]]) -> None:
    """However many processes have answered however many calls."""
    said = [scrape(*(("/embed", status) for status in each)) for each in statuses]

    whole = add_scrapes(said)

    [calls] = [family for family in whole if family.name == "abproxy_calls"]
    counted = sum(sample.value for sample in calls.samples)
    assert counted == sum(map(len, statuses))


@pytest.mark.parametrize(
    ("name", "whole"),
    [
        ("abproxy_connections", 8),
        ("abproxy_waiting_items", 8),
        ("abproxy_budget_items", 8),
        ("process_resident_memory_bytes", 8),
        ("abproxy_oldest_wait_seconds", 5),
        ("abproxy_batch_max_items", 5),
        ("abproxy_draining", 5),
        ("abproxy_ladder_trials", 8),
        ("abproxy_ladder_rung", 5),
        ("abproxy_ladder_trying", 8),
        ("abproxy_ladder_looks_to_trial", 3),
        ("abproxy_upstream_up", 3),
        ("process_start_time_seconds", 3),
    ],
)
def test_what_is_true_for_a_moment_is_a_sum_where_that_means_something(
    name: str, whole: float
) -> None:
    """Where it does not, the worst, or the first, counts."""
    assert value(add_scrapes([gauge(name, 3), gauge(name, 5)]), name) == whole


@pytest.mark.parametrize(
    ("one", "other", "whole"),
    [
        ("up", "up", "up"),
        ("up", "unreachable", "unreachable"),
        ("failing", "unreachable", "unreachable"),
        ("full", "up", "full"),
        ("unknown", "up", "unknown"),
    ],
)
def test_one_upstream_has_one_state(one: str, other: str, whole: str) -> None:
    """The worst that a worker knows of."""
    figures = add_scrapes([upstream_is(one), upstream_is(other)])

    [states] = figures
    assert [s.labels["state"] for s in states.samples if s.value] == [whole]


def test_what_lasts_and_what_does_not_are_all() -> None:
    """No figure is lost between them."""
    figures = [*scrape(), *gauge("abproxy_slots", 2)]

    kept, passing = cumulative(figures), momentary(figures)

    assert [family.name for family in passing] == [
        "process_virtual_memory_bytes",
        "process_resident_memory_bytes",
        "process_start_time_seconds",
        "process_open_fds",
        "process_max_fds",
        "abproxy_slots",
    ]
    assert len(kept) + len(passing) == len(figures)


def counted(number: int) -> Scrape:
    """Make what a process says that has counted so far."""
    family = Metric("c", "", "counter")
    family.add_sample("c_total", {}, number)
    return [family]


def test_of_a_silent_worker_the_last_word_counts() -> None:
    """The total does not shrink because a worker is busy."""
    totals = CumulativeTotals(add_scrapes)
    totals.update("1", counted(5))
    totals.update("2", counted(7))

    totals.update("1", counted(6))

    assert value(totals.total(), "c_total") == 13


def test_what_a_dead_worker_has_counted_stays_counted() -> None:
    """The one in its place begins at 0."""
    totals = CumulativeTotals(add_scrapes)
    totals.update("1", counted(5))
    totals.worker_ended("1")

    totals.update("1", counted(2))

    assert value(totals.total(), "c_total") == 7


def test_a_worker_that_said_nothing_leaves_nothing() -> None:
    """It may have died before it was asked."""
    totals = CumulativeTotals(add_scrapes)

    totals.worker_ended("1")

    assert totals.total() == []
