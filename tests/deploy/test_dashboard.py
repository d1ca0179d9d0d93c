"""Grafana's dashboard: it explains itself, and asks for what there is."""

import re
from collections import Counter
from collections.abc import Iterator
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

import msgspec
import pytest

from deploy.deployed import dashboard, exposed, needs, panels, queries, run, unknown_in

WIDTH = 24
"""Columns of a dashboard."""

EACH = pytest.mark.parametrize("panel", panels(), ids=lambda panel: panel["title"])

ALL_QUERIES = [query for panel in panels() for query in queries(panel)]


def _within(value: Any) -> Iterator[dict[str, Any]]:
    """Walk through all objects."""
    if isinstance(value, dict):
        yield value
        value = list(value.values())
    if isinstance(value, list):
        for child in value:
            yield from _within(child)


def _cells(panel: dict[str, Any]) -> set[tuple[int, int]]:
    at = panel["gridPos"]
    return {
        (at["x"] + column, at["y"] + line)
        for column in range(at["w"])
        for line in range(at["h"])
    }


@EACH
def test_each_panel_explains_itself(panel: dict[str, Any]) -> None:
    """What it shows, and in which unit."""
    assert panel["title"]
    assert len(panel["description"]) > len(panel["title"])
    assert panel["fieldConfig"]["defaults"]["unit"]


def test_no_two_panels_have_the_same_number() -> None:
    """Links and Grafana itself tell them apart by it."""
    numbers = Counter(panel["id"] for panel in dashboard()["panels"])

    assert set(numbers.values()) == {1}


def test_no_two_panels_lie_over_each_other() -> None:
    """And none reaches over the edge."""
    places = [_cells(panel) for panel in dashboard()["panels"]]

    assert [pair for pair in combinations(places, 2) if pair[0] & pair[1]] == []
    assert max(column for place in places for column, _ in place) < WIDTH


def test_each_row_begins_with_an_explanation() -> None:
    """One reads before one looks."""
    kinds = [panel["type"] for panel in dashboard()["panels"]]
    behind = [kind for before, kind in pairwise(kinds) if before == "row"]

    assert kinds[0] == "row"
    assert set(behind) == {"text"}


def test_it_works_with_any_prometheus() -> None:
    """Whoever looks chooses the source, and no other is named."""
    sources = [
        each["datasource"]["uid"]
        for each in _within(dashboard())
        if isinstance(each.get("datasource"), dict)
    ]

    assert set(sources) == {"${datasource}"}
    assert len(sources) > len(panels())


def test_one_chooses_source_job_and_instances() -> None:
    """From what there is, and all of them to begin with."""
    source, job, instance = dashboard()["templating"]["list"]

    assert (source["type"], source["query"]) == ("datasource", "prometheus")
    assert [each["name"] for each in (job, instance)] == ["job", "instance"]
    assert {each["current"]["value"][0] for each in (job, instance)} == {"$__all"}
    assert unknown_in(job["query"]["query"]) == []
    assert unknown_in(instance["query"]["query"]) == []


@EACH
def test_each_panel_shows_what_was_chosen(panel: dict[str, Any]) -> None:
    """Every figure is asked for by job and instance."""
    asked = "".join(target["expr"] for target in panel["targets"])

    figures = re.findall(r"(?:abproxy|process)_\w+", asked)
    chosen = re.findall(r'\{job=~"\$job", instance=~"\$instance"', asked)
    assert len(figures) == len(chosen) > 0


@EACH
def test_each_panel_asks_for_what_there_is(panel: dict[str, Any]) -> None:
    """Every name, label and reason is one that abproxy writes at /metrics."""
    assert [unknown_in(query) for query in queries(panel)] == [[]] * len(queries(panel))


def test_nothing_that_is_counted_is_left_out() -> None:
    """What abproxy writes at /metrics can be seen somewhere."""
    endings = r"_(bucket|sum|count|total)$"
    shown = set(re.findall(r"abproxy_\w+", " ".join(ALL_QUERIES)))

    names = {re.sub(endings, "", name) for name in exposed() if "abproxy" in name}
    assert names - {re.sub(endings, "", name) for name in shown} == set()


@needs("promtool")
def test_prometheus_understands_every_query(tmp_path: Path) -> None:
    """As if each of them were a rule."""
    rules = [
        {"record": f"panel:query_{at}", "expr": query}
        for at, query in enumerate(ALL_QUERIES)
    ]
    file = tmp_path / "queries.json"
    file.write_bytes(msgspec.json.encode({"groups": [{"name": "a", "rules": rules}]}))

    checked = run("promtool", "check", "rules", file)

    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert f"{len(ALL_QUERIES)} rules found" in checked.stdout


def test_annotations_are_the_alerts_and_the_starts() -> None:
    """They explain why a line jumps."""
    alerts, starts = dashboard()["annotations"]["list"]

    assert 'alertname=~"Abproxy.*"' in alerts["expr"]
    assert unknown_in(starts["expr"]) == []
