"""What `deploy/` holds, read as the programs read it that it is made for."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
import pytest
from ruamel.yaml import YAML
from twisted.internet.task import Clock

from abproxy.events import UpstreamState
from abproxy.reuse.layers import Layers
from abproxy.telemetry.gauges import Gauges, ProcessGauges
from abproxy.telemetry.metrics import Counter, Metrics
from abproxy.telemetry.recorder import Recorder
from abproxy.telemetry.servers import ServerMetrics
from support.batching import harness
from support.fleet import Servers

__all__ = [
    "BIN",
    "DEPLOY",
    "ROOT",
    "dashboard",
    "exposed",
    "needs",
    "panels",
    "queries",
    "read_yaml",
    "rules",
    "run",
    "unknown_in",
]

ROOT = Path(__file__).parent.parent.parent
DEPLOY = ROOT / "deploy"
BIN = Path(sys.executable).parent

ENDINGS = {"counter": ["_total"], "histogram": ["_bucket", "_sum", "_count"]}
"""What stands behind the name of a figure, by its type."""

OF_PROMETHEUS = {"job", "instance"}
"""Labels that are put on every figure when it is scraped."""

_FIGURE = re.compile(r"\b((?:abproxy|process)_\w+)(?:\{([^}]*)\})?")
_MATCHER = re.compile(r'(\w+) *(?:=~|!~|!=|=) *"([^"]*)"')

Labels = dict[str, set[str]]
"""Names of labels, and the values that are known."""


def needs(program: str) -> pytest.MarkDecorator:
    """Skip a test where *program* is not installed; in CI it has to be."""
    is_there = shutil.which(program) is not None or "CI" in os.environ
    return pytest.mark.skipif(not is_there, reason=f"no {program} here")


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    """Run a program to its end."""
    return subprocess.run(  # noqa: S603
        command, cwd=ROOT, capture_output=True, text=True, timeout=30, check=False
    )


def read_yaml(path: str) -> list[Any]:
    """Read the documents of a file."""
    text = (ROOT / path).read_text(encoding="utf-8")
    return list(YAML(typ="safe").load_all(text))


def rules() -> list[dict[str, Any]]:
    """Read the alerts."""
    [document] = read_yaml("deploy/prometheus/alerts.yml")
    return [rule for group in document["groups"] for rule in group["rules"]]


def dashboard() -> dict[str, Any]:
    """Read Grafana's dashboard."""
    text = (DEPLOY / "grafana/abproxy.json").read_bytes()
    read: dict[str, Any] = msgspec.json.decode(text)
    return read


def panels() -> list[dict[str, Any]]:
    """Take what shows something from the dashboard: no rows, and no texts."""
    return [
        panel for panel in dashboard()["panels"] if panel["type"] not in {"row", "text"}
    ]


def queries(panel: dict[str, Any]) -> list[str]:
    """Write the queries of *panel* as Grafana sends them, for all that there is."""
    return [
        target["expr"]
        .replace("$__rate_interval", "5m")
        .replace("$job", ".*")
        .replace("$instance", ".*")
        for target in panel["targets"]
    ]


OF_SUPERVISOR = (
    "abproxy_workers",
    "abproxy_workers_answering",
    "abproxy_worker_restarts_total",
)
"""What only a supervisor of workers writes."""


def _servers() -> list[dict[str, Any]]:
    """Describe a server that has seen one request."""
    group = Servers(2).fleet
    group.members[0].outcomes["200"] += 1
    return group.servers()


@cache
def exposed() -> dict[str, Labels]:
    """Name everything at /metrics, with its labels."""
    metrics, clock, collector = Metrics(), Clock(), harness().collector
    metrics.call_seconds.of("/embed")  # its label shows with the first route
    gauges = Gauges(
        recorder=Recorder(clock=clock, cpu_s=lambda: 0.0),
        collector=collector,
        layers=Layers(
            collector=collector,
            submit=collector.submit,
        ),
        upstream_state=lambda: UpstreamState.UP,
    )
    process = ProcessGauges(
        recorder=gauges.recorder,
        connections=lambda: 0,
        open_requests=lambda: 0,
        is_draining=lambda: False,
        memory=lambda: (0, 0, 1),
    )
    metrics.registry.register(gauges)
    metrics.registry.register(ServerMetrics(servers=_servers))
    metrics.registry.register(process)
    of_supervisor: dict[str, Labels] = {name: {} for name in OF_SUPERVISOR}
    return of_supervisor | {
        name: labels
        for collector in metrics.registry._collector_to_names
        for name, labels in _figures_of(collector)
    }


def _figures_of(collector: Any) -> Iterator[tuple[str, Labels]]:
    for family in collector.collect():
        names = collector.labels if isinstance(collector, Counter) else ()
        labels: Labels = {name: set() for name in names}
        for sample in family.samples:
            for name, value in sample.labels.items():
                labels.setdefault(name, set()).add(value)
        for ending in ENDINGS.get(family.type, [""]):
            yield family.name + ending, labels


def unknown_in(query: str) -> list[str]:
    """Find what a *query* asks for that is not at /metrics."""
    return [
        f"{name} {label}".strip()
        for name, matchers in _FIGURE.findall(query)
        for label, values in [("", set()), *_plain(matchers).items()]
        if not _is_known(name, label, values)
    ]


def _plain(matchers: str) -> Labels:
    """Read the labels between braces, and of the values those without a pattern."""
    return {
        label: {each for each in value.split("|") if each.isidentifier()}
        for label, value in _MATCHER.findall(matchers)
        if label not in OF_PROMETHEUS
    }


def _is_known(name: str, label: str, values: set[str]) -> bool:
    labels = exposed().get(name)
    if labels is None or not label:
        return labels is not None
    return label in labels and values <= (labels[label] or values)
