"""How often a figure was how large."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client import Histogram as LibrarysOwn

from abproxy.telemetry.figures import Figure, Histogram, Tally

BOUNDS = (0.5, 1, 2.5, 10)

values = st.lists(st.floats(0, 20), max_size=50)


def _observe_all(figure: Any, observed: list[float]) -> None:
    for value in observed:
        figure.observe(value)


def test_a_value_counts_in_every_bucket_that_it_is_not_over() -> None:
    """As Prometheus wants it; a bound belongs to its own bucket."""
    figure = Figure(BOUNDS)

    _observe_all(figure, [0, 0.5, 0.6, 1, 10, 11])

    expected = [("0.5", 2), ("1.0", 4), ("2.5", 4), ("10.0", 5), ("+Inf", 6)]
    assert figure.buckets() == expected


def test_values_are_added_up() -> None:
    """So that there is an average."""
    figure = Figure(BOUNDS)

    _observe_all(figure, [0.25, 0.5, 100])

    assert figure.sum == 100.75


def test_the_same_figure_may_be_kept_for_each_route() -> None:
    """It is made when it is first needed, and found again."""
    histogram = Histogram(name="h", about="h", bounds=BOUNDS, by_route=True)

    figure = histogram.of("/embed")

    assert histogram.of("/embed") is figure
    assert histogram.of("/predict") is not figure


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


@given(observed=values)
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
    tally = Tally(name="abproxy_odd", about="Odd things", labels=["what", "where"])
    registry.register(tally)

    tally.add(("a", "here"))
    tally.add(("a", "here"), 2)
    tally.add(("b", "there"), 0)

    labels = {"what": "a", "where": "here"}
    assert registry.get_sample_value("abproxy_odd_total", labels) == 3
    labels = {"what": "b", "where": "there"}
    assert registry.get_sample_value("abproxy_odd_total", labels) == 0


@given(st.lists(st.floats(0, 2)))
def test_many_values_are_counted_as_one_after_the_other(values: list[float]) -> None:
    """Whoever has them all says so at once."""
    one, all_at_once = Figure([0.5, 1.0]), Figure([0.5, 1.0])

    for value in values:
        one.observe(value)
    all_at_once.observe_all(values)

    assert all_at_once.buckets() == one.buckets()
    assert all_at_once.sum == pytest.approx(one.sum)
