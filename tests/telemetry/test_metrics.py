"""What is counted for Prometheus, and how it is written."""

import re

from prometheus_client import Metric
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as read_openmetrics,
)
from prometheus_client.parser import text_string_to_metric_families as read_text

from abproxy.telemetry.metrics import Metrics

UNITS = ("_seconds", "_bytes", "_ratio", "_calls", "_items")


def _ours(families: list[Metric]) -> list[Metric]:
    return [each for each in families if each.name.startswith("abproxy_")]


def test_figures_are_written_as_text() -> None:
    """Unless somebody asks for more."""
    metrics = Metrics()
    metrics.calls.add(("/embed", "200"))

    kind, body = metrics.write(b"")

    assert kind.startswith(b"text/plain; version=")
    assert b'abproxy_calls_total{route="/embed",status="200"} 1.0\n' in body


def test_whoever_asks_for_openmetrics_gets_them() -> None:
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


def test_nobody_is_told_when_a_figure_was_made() -> None:
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
