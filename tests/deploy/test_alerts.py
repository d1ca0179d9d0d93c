"""Alerts fire when they should, ask for what there is, and say what to do."""

import re
from typing import Any

import pytest

from abproxy.settings.settings import Settings
from abproxy.telemetry.history import OFTEN, SHARED_FROM
from deploy.deployed import DEPLOY, ROOT, needs, read_yaml, rules, run, unknown_in

PROMETHEUS = DEPLOY / "prometheus"
OPERATING = ROOT / "docs/operating.md"
ALERTS = {rule["alert"]: rule for rule in rules()}

[CASES] = read_yaml("deploy/prometheus/alerts_test.yml")
CHECKS = [check for case in CASES["tests"] for check in case["promql_expr_test"]]
SERIES = [each["series"] for case in CASES["tests"] for each in case["input_series"]]


def _checks_of(alert: str) -> list[dict[str, Any]]:
    return [check for check in CHECKS if f'alertname="{alert}"' in check["expr"]]


@needs("promtool")
def test_prometheus_takes_the_configuration() -> None:
    """And the rules that it names."""
    checked = run("promtool", "check", "config", PROMETHEUS / "prometheus.yml")

    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert "1 rule files found" in checked.stdout


@needs("promtool")
def test_prometheus_has_nothing_to_say_against_the_rules() -> None:
    """Not even what it would let pass."""
    checked = run(
        *("promtool", "check", "rules", "--lint=all", "--lint-fatal"),
        PROMETHEUS / "alerts.yml",
    )

    assert checked.returncode == 0, checked.stdout + checked.stderr


@needs("promtool")
def test_alerts_fire_when_they_should_and_only_then() -> None:
    """Prometheus plays every case through."""
    played = run("promtool", "test", "rules", PROMETHEUS / "alerts_test.yml")

    assert played.returncode == 0, played.stdout + played.stderr


@pytest.mark.parametrize("alert", ALERTS)
def test_each_alert_is_played_through(alert: str) -> None:
    """Once it fires for the instance in trouble alone, and once it does not yet."""
    firing = [check["exp_samples"] for check in _checks_of(alert)]

    assert [] in firing
    assert any(firing)


@pytest.mark.parametrize("alert", ALERTS)
def test_each_alert_says_what_to_do(alert: str) -> None:
    """How urgent it is, what happened, in numbers, and where to read on."""
    rule = ALERTS[alert]
    told = rule["annotations"]

    assert rule["labels"]["severity"] in {"critical", "warning", "info"}
    assert set(told) == {"summary", "description", "action", "runbook"}
    base = "{{ with $externalLabels.abproxy_docs }}{{ . }}/{{ end }}"
    assert told["runbook"] == f"{base}operating.md#{alert.lower()}"
    assert re.search(r"\{\{|\d| minutes? ", told["description"] + told["summary"])


@pytest.mark.parametrize("alert", ALERTS)
def test_each_alert_has_its_chapter(alert: str) -> None:
    """The address in it leads to a heading of its name."""
    lines = OPERATING.read_text(encoding="utf-8").splitlines()

    assert f"### {alert}" in lines


@pytest.mark.parametrize("query", [*(rule["expr"] for rule in rules()), *SERIES])
def test_alerts_ask_for_what_there_is(query: str) -> None:
    """Every name, label and reason is one that abproxy writes at /metrics."""
    assert unknown_in(query) == []


@pytest.mark.parametrize(
    ("query", "unknown"),
    [
        ("rate(abproxy_call_total[5m])", "abproxy_call_total"),
        ('abproxy_calls_total{state="up"}', "abproxy_calls_total state"),
        ('abproxy_upstream_state{state=~"up|low"}', "abproxy_upstream_state state"),
    ],
)
def test_what_is_not_there_would_be_noticed(query: str, unknown: str) -> None:
    """Names, labels, and values where all are known."""
    assert unknown_in(query) == [unknown]


def test_the_verdict_and_the_alert_agree() -> None:
    """Whether calls travel alone, and whether that matters."""
    query = ALERTS["AbproxyCallsTravelAlone"]["expr"]

    assert f"< {SHARED_FROM}" in query
    assert f"> {OFTEN}" in query


def test_who_waits_long_is_reported_before_the_wait_is_ended() -> None:
    """By default, `CALL_TIMEOUT` comes later than the alert."""
    rule = ALERTS["AbproxyWaitsLong"]
    [wait_s] = re.findall(r"> (\d+)$", rule["expr"])
    [minutes] = re.findall(r"^(\d+)m$", rule["for"])

    assert int(wait_s) + 60 * int(minutes) < Settings().call_timeout_s
