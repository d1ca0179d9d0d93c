"""What is counted for Prometheus, and how it is written."""

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Metric, generate_latest
from prometheus_client import Histogram as LibrarysOwn
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as read_openmetrics,
)
from prometheus_client.parser import text_string_to_metric_families as read_text

from abproxy.errors import ProxyError, QueueFull, QueueTimeout, Unauthorized
from abproxy.telemetry.metrics import Buckets, Counter, Histogram, Metrics

BOUNDS = (0.5, 1, 2.5, 10)
UNITS = ("_seconds", "_bytes", "_ratio", "_calls", "_items")


def _ours(families: list[Metric]) -> list[Metric]:
    return [each for each in families if each.name.startswith("abproxy_")]


def test_figures_are_written_as_text() -> None:
    """Unless more is asked for."""
    metrics = Metrics()
    metrics.calls.add(("/embed", "200"))

    kind, body = metrics.write(b"")

    assert kind.startswith(b"text/plain; version=")
    assert b'abproxy_calls_total{route="/embed",status="200"} 1.0\n' in body


def test_openmetrics_are_written_if_asked_for() -> None:
    """As Prometheus does; both say the same."""
    metrics = Metrics()
    metrics.isolations.add(number=3)

    kind, body = metrics.write(b"application/openmetrics-text; version=1.0.0")

    assert kind.startswith(b"application/openmetrics-text")
    found = {each.name: each for each in read_openmetrics(body.decode())}
    assert found["abproxy_isolations"].samples[0].value == 3


def test_an_accept_line_that_is_no_text_is_no_error() -> None:
    """Whatever bytes a client sends."""
    kind, _body = Metrics().write(b"\xff/\xfe")

    assert kind.startswith(b"text/plain")


def test_every_figure_says_what_it_is() -> None:
    """In a line of its own, with its type."""
    _kind, body = Metrics().write(b"")

    families = _ours(list(read_text(body.decode())))
    assert len(families) > 10
    assert [each.name for each in families if not each.documentation] == []
    assert {each.type for each in families} <= {"counter", "histogram"}


def test_every_histogram_carries_its_unit() -> None:
    """In its name, in base units."""
    _kind, body = Metrics().write(b"")

    families = _ours(list(read_text(body.decode())))
    histograms = [each.name for each in families if each.type == "histogram"]
    assert histograms
    assert [name for name in histograms if not name.endswith(UNITS)] == []


def test_the_process_is_measured_as_well() -> None:
    """CPU and memory under the names that all dashboards know."""
    _kind, body = Metrics().write(b"")

    assert re.search(rb"^process_cpu_seconds_total ", body, re.MULTILINE)
    assert re.search(rb"^process_resident_memory_bytes ", body, re.MULTILINE)


def test_when_a_figure_was_made_is_not_written() -> None:
    """It would be as many lines again."""
    metrics = Metrics()
    metrics.batch_calls.observe(3)

    _kind, body = metrics.write(b"")

    assert b"_created" not in body


def test_two_proxies_in_one_process_count_apart() -> None:
    """There is no registry that all share."""
    one, other = Metrics(), Metrics()

    one.resends.add()

    assert one.registry.get_sample_value("abproxy_resends_total") == 1
    assert other.registry.get_sample_value("abproxy_resends_total") == 0


def _observe_all(histogram: Any, observed: list[float]) -> None:
    for value in observed:
        histogram.observe(value)


def test_a_value_counts_in_every_bucket_that_it_is_not_over() -> None:
    """As Prometheus wants it; a bound belongs to its own bucket."""
    buckets = Buckets(BOUNDS)

    _observe_all(buckets, [0, 0.5, 0.6, 1, 10, 11])

    expected = [("0.5", 2), ("1.0", 4), ("2.5", 4), ("10.0", 5), ("+Inf", 6)]
    assert buckets.cumulated() == expected


def test_values_are_added_up() -> None:
    """So that there is an average."""
    buckets = Buckets(BOUNDS)

    _observe_all(buckets, [0.25, 0.5, 100])

    assert buckets.sum == 100.75


def test_the_same_figure_may_be_kept_for_each_route() -> None:
    """It is made when it is first needed, and found again."""
    histogram = Histogram(name="h", about="h", bounds=BOUNDS, by_route=True)

    buckets = histogram.of("/embed")

    assert histogram.of("/embed") is buckets
    assert histogram.of("/predict") is not buckets


def test_routes_are_labels() -> None:
    """And nothing is one where there is but one figure."""
    registry = CollectorRegistry()
    one = Histogram(name="one", about="h", bounds=BOUNDS)
    many = Histogram(name="many", about="h", bounds=BOUNDS, by_route=True)
    registry.register(one)
    registry.register(many)

    one.of().observe(3)
    many.of("/embed").observe(3)

    assert registry.get_sample_value("one_sum") == 3
    assert registry.get_sample_value("many_sum", {"route": "/embed"}) == 3
    assert registry.get_sample_value("many_count", {"route": "/embed"}) == 1


@given(observed=st.lists(st.floats(0, 20), max_size=50))
def test_it_writes_what_the_librarys_own_would_write(observed: list[float]) -> None:
    """It is only quicker."""
    ours, theirs = CollectorRegistry(), CollectorRegistry()
    histogram = Histogram(name="h", about="a figure", bounds=BOUNDS)
    ours.register(histogram)
    library = LibrarysOwn("h", "a figure", registry=theirs, buckets=BOUNDS)

    _observe_all(histogram.of(), observed)
    _observe_all(library, observed)

    written = _without_times(generate_latest(ours))
    assert written == _without_times(generate_latest(theirs))


def _without_times(text: bytes) -> list[bytes]:
    return [line for line in text.splitlines() if b"_created" not in line]


def test_what_happens_is_counted_by_its_labels() -> None:
    """As often as it happened, under the name of a counter."""
    registry = CollectorRegistry()
    counter = Counter(name="abproxy_odd", about="Odd things", labels=["what", "where"])
    registry.register(counter)

    counter.add(("a", "here"))
    counter.add(("a", "here"), 2)
    counter.add(("b", "there"), 0)

    labels = {"what": "a", "where": "here"}
    assert registry.get_sample_value("abproxy_odd_total", labels) == 3
    labels = {"what": "b", "where": "there"}
    assert registry.get_sample_value("abproxy_odd_total", labels) == 0


@given(st.lists(st.floats(0, 2)))
def test_many_values_are_counted_as_one_after_the_other(values: list[float]) -> None:
    """Where there are many they are counted at once."""
    one, all_at_once = Buckets([0.5, 1.0]), Buckets([0.5, 1.0])

    for value in values:
        one.observe(value)
    all_at_once.observe_all(values)

    assert all_at_once.cumulated() == one.cumulated()
    assert all_at_once.sum == pytest.approx(one.sum)


@pytest.mark.parametrize(
    ("name", "label", "value"),
    [
        ("refusals", "reason", Unauthorized.reason),
        ("refusals", "reason", QueueFull.reason),
        ("failures", "reason", ProxyError.reason),
        ("failures", "reason", QueueTimeout.reason),
        ("put_backs", "cause", "full"),
        ("put_backs", "cause", "unreachable"),
        ("isolations", None, None),
    ],
)
def test_what_has_not_happened_is_shown_as_0(
    name: str, label: str | None, value: str | None
) -> None:
    """An alert on growth hears of the first one."""
    labels = {label: value} if label and value else {}

    shown = Metrics().registry.get_sample_value(f"abproxy_{name}_total", labels)

    assert shown == 0


@pytest.mark.parametrize(
    ("name", "reason"),
    [("refusals", ProxyError.reason), ("failures", Unauthorized.reason)],
)
def test_a_reason_is_shown_where_it_can_occur(name: str, reason: str) -> None:
    """What refuses a request does not fail it, and the other way round."""
    registry = Metrics().registry

    shown = registry.get_sample_value(f"abproxy_{name}_total", {"reason": reason})

    assert shown is None
