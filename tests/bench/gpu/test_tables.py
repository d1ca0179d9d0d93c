"""Results as tables and as a plot: made of `docs/gpu.json`, with words of their own."""

from typing import Any

import pytest

from bench.gpu import pages, tables
from bench.wire.pages import between, read


def _side(rate: float, errors: str = "", **more: float) -> dict[str, Any]:
    return {
        "calls_per_s": rate,
        "p50_ms": 12.34,
        "p99_ms": 123.4,
        "errors": errors,
        **more,
    }


def _found(direct: dict[str, Any], **cell: Any) -> dict[str, Any]:
    about = {"server": "naive", "shape": "minilm", "words": 10, "inputs": 1}
    through = _side(3000, proxy_cores=0.5, server_cores=1.25)
    cells = [
        {
            "cell": {**about, "clients": 1000, **cell},
            "abproxy": through,
            "direct": direct,
        }
    ]
    machine = {
        "date": "2026-11-27",
        "cpu": "Fast",
        "cores": 16,
        "placed": "here and there",
        "system": "Linux",
        "python": "3.12",
        "packages": {"abproxy": "26.11"},
        "load": "wrk",
    }
    limits = {"minilm": {"10": {"1": 200.0, "128": 12000.0}}}
    return {
        "machine": machine,
        "card": "A <card>",
        "packages": {"torch": "2.11"},
        "limits": limits,
        "cells": cells,
    }


def test_the_readme_shows_short_texts() -> None:
    """With the ratio, and the share of what there is to reach."""
    [*_, line] = tables.short(_found(_side(20))).splitlines()

    cells = ("naive: one at a time", "1,000", "20", "12.3 ms", "3,000", "12.3 ms")
    assert line == f"| {' | '.join(cells)} | 150 | 25.0% |"


@pytest.mark.parametrize("other", [{"words": 100}, {"inputs": 8}, {"shape": "large"}])
def test_the_readme_shows_nothing_else(other: dict[str, Any]) -> None:
    """The rest is on the page."""
    assert "naive: one" not in tables.short(_found(_side(20), **other))


def test_the_page_shows_all() -> None:
    """Texts are counted, not calls, and cores are told."""
    [line] = [
        each
        for each in tables.full(_found(_side(1000), inputs=2)).splitlines()
        if each.startswith("| naive")
    ]

    assert "| MiniLM-L6 | 2 texts of 10 words | 1,000 | 1,000 | 12.3 ms |" in line
    assert line.endswith("| 3.00 | 16.7% | 50.0% | 0.50 | 1.25 |")


def test_the_limit_is_told_by_size_of_a_step() -> None:
    """Where there is a figure."""
    found = _found(_side(20))
    found["limits"]["large"] = {"400": {"1": 80.0}}

    lines = tables.full(found).splitlines()
    assert "| MiniLM-L6 | 10 | 200 | 12,000 |" in lines
    assert "| BERT large | 400 | 80 | |" in lines


def test_a_server_that_failed_has_no_figures() -> None:
    """Nor a ratio: abproxy is not infinitely better."""
    written = tables.short(_found(_side(900, errors="status 312")))

    assert "| failed: status 312 | | 3,000 | 12.3 ms | | 25.0% |" in written


def test_machine_and_card_are_told() -> None:
    """And what was not there to be measured."""
    written = tables.full(_found(_side(20), server="vLLM"))

    assert "on one **A <card>**: Fast, 16 cores (here and there)" in written
    assert "abproxy 26.11, torch 2.11; load from wrk." in written
    assert "so not measured: TEI, Infinity." in written


def test_the_plot_has_the_limit_and_the_card() -> None:
    """And a curve for each way to a server that was measured."""
    drawn = pages.drawn(_found(_side(20)))

    assert "A &lt;card&gt;" in drawn
    names = ("model fed straight", "naive", "naive + abproxy")
    assert all(f">{each}</text>" in drawn for each in names)
    assert "batcher" not in drawn


@pytest.mark.parametrize("page", pages.PAGES, ids=lambda page: page.name)
def test_a_page_is_made_of_the_results(page: Any) -> None:
    """`make bench/gpu/write` makes both."""
    text = page.read_text(encoding="utf-8")

    assert between(text, pages.MAKER) == pages.PAGES[page](read(pages.JSON))


def test_the_plot_is_made_of_the_results() -> None:
    """The same ones."""
    drawn = pages.PLOT.read_text(encoding="utf-8")

    assert drawn == pages.drawn(read(pages.JSON))
