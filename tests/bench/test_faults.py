"""The matrix of faults, and what is made of what was seen."""

import json

import pytest

from bench.faults.__main__ import DOCUMENT, HEAD, JSON, MAKER, percentile, row
from bench.faults.load import Call
from bench.wire.pages import between


def test_the_table_is_made_of_the_figures() -> None:
    """What is published is what was measured."""
    rows = json.loads(JSON.read_text(encoding="utf-8"))["rows"]
    text = DOCUMENT.read_text(encoding="utf-8")

    assert between(text, MAKER) == HEAD + "\n".join(map(row, rows))


def test_failed_calls_are_told_with_their_reasons() -> None:
    """A row without any says 0."""
    told = {
        "name": "x",
        "calls": 1000,
        "lost": {"status 502": 3},
        "p50_before_ms": 1,
        "p50_ms": 2,
        "p99_before_ms": 3,
        "p99_ms": 4,
        "noticed_s": 0.5,
        "back_s": None,
    }

    assert row(told) == "| x | 1,000 | 3 status 502 | 1 | 2 | 3 | 4 | 0.50 s |  |"
    assert row({**told, "lost": {}}).startswith("| x | 1,000 | 0 |")


@pytest.mark.parametrize(("percent", "ms"), [(50, 51), (99, 100), (100, 100)])
def test_a_percentile_is_kept_to_by_so_many_calls(percent: int, ms: float) -> None:
    """The last one is the longest of all."""
    calls = [Call(0.0, took_ms / 1000) for took_ms in range(100, 0, -1)]

    assert percentile(calls, percent) == pytest.approx(ms)
