"""Figures as a table, for the terminal or for Markdown."""

from collections.abc import Sequence
from math import isnan

from bench.simulation.clients import Crowd
from bench.simulation.runs import Figures

__all__ = ["HEAD", "markdown", "plain"]

HEAD = (
    "load",
    "way",
    "items/s",
    "p50 ms",
    "p99 ms",
    "items a request",
    "requests a call",
    "refused",
    "failed",
)


def _load(crowd: Crowd) -> str:
    if crowd.deadly:
        return "one deadly text"
    who = f"{crowd.rate:g} calls/s" if crowd.rate else f"{crowd.clients:,}"
    return f"{crowd.name} {who} × {crowd.items:,}".strip()  # noqa: RUF001


def _number(value: float) -> str:
    if isnan(value):
        return "–"  # noqa: RUF001
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"  # noqa: PLR2004


def _cells(figures: Figures) -> list[str]:
    return [
        _load(figures.crowd),
        figures.run.way,
        _number(figures.items_per_s),
        _number(figures.p50_ms),
        _number(figures.p99_ms),
        f"{figures.items_per_request:.1f}",
        f"{figures.requests_per_call:.2f}",
        f"{figures.refused:,}",
        f"{figures.failed:,}",
    ]


def plain(found: Sequence[Figures]) -> str:
    """Write a table in columns."""
    rows = [list(HEAD), *map(_cells, found)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if at <= 1 else cell.rjust(width)
            for at, (cell, width) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in rows
    )


def markdown(found: Sequence[Figures]) -> str:
    """Write a table in Markdown."""
    rows = [HEAD, ["---"] * 2 + ["---:"] * (len(HEAD) - 2), *map(_cells, found)]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)
