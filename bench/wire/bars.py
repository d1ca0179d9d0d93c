"""
Results as bars, in SVG written by hand: calls a second, and what one costs.

Colours and greys are those of the other plots: readable on white as on black.
Every bar has its figure beside it.
"""

from collections.abc import Iterator, Sequence
from html import escape

from attrs import frozen

from bench.simulation.plots import GREY, STYLES
from bench.wire.bench import Found
from bench.wire.contestants import DIRECT
from bench.wire.summary import spread
from bench.wire.tables import NAMES

__all__ = ["svg"]

WIDTH, HALF = 760, 380
LEFT, LONGEST = 60, 230
TOP, BAR = 62, 15
GROUP = BAR * len(NAMES) + 14


@frozen(kw_only=True)
class Panel:
    """Groups of bars below a title, all on one scale."""

    x: int
    title: str
    figure: str
    names: Sequence[str]


PANELS = (
    Panel(x=0, title="calls a second", figure="calls_per_s", names=[*NAMES]),
    Panel(
        x=HALF,
        title="CPU time of the proxy for a call, µs",
        figure="cpu_us",
        names=[name for name in NAMES if name != DIRECT],
    ),
)


def svg(found: Found) -> str:
    """Draw the workloads that differ only in the number of clients."""
    groups = [each for each in found["speed"] if _is_base(each["workload"])]
    height = TOP + len(groups) * GROUP
    lines = [*_legend(), *(line for panel in PANELS for line in _panel(panel, groups))]
    body = "\n".join(lines)
    title = "Calls a second, and CPU time for a call, by number of clients"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" '
        f'font-family="sans-serif" font-size="12" role="img">\n'
        f"<title>{title}</title>\n{body}\n</svg>\n"
    )


def _is_base(workload: Found) -> bool:
    return str(workload["name"]).startswith("clients-")


def _colour(name: str) -> str:
    return STYLES[[*NAMES].index(name)][0]


def _legend() -> Iterator[str]:
    for at, (name, title) in enumerate(NAMES.items()):
        x = LEFT + 110 * at
        yield f'<rect x="{x}" y="8" width="12" height="12" fill="{_colour(name)}"/>'
        yield _text(x + 18, 18, title)


def _panel(panel: Panel, groups: Sequence[Found]) -> Iterator[str]:
    yield _text(panel.x + LEFT, TOP - 16, panel.title, size=13)
    values = [_values(panel, group) for group in groups]
    longest = max((each for row in values for each in row), default=1.0) or 1.0
    y = TOP
    for group, row in zip(groups, values, strict=True):
        middle = y + BAR * len(row) / 2 + 4
        yield _text(
            panel.x + LEFT - 8, middle, f"{group['workload']['clients']:,}", "end"
        )
        for name, value in zip(panel.names, row, strict=True):
            yield from _bar(panel.x + LEFT, y, LONGEST * value / longest, value, name)
            y += BAR
        y += GROUP - BAR * len(row)
    yield _text(panel.x + LEFT - 8, TOP - 16, "clients", "end")


def _values(panel: Panel, group: Found) -> list[float]:
    contestants = group["contestants"]
    return [spread(contestants[name][panel.figure]).middle for name in panel.names]


def _bar(x: float, y: float, length: float, value: float, name: str) -> Iterator[str]:
    yield (
        f'<rect x="{x}" y="{y}" width="{max(length, 1):.1f}" height="{BAR - 2}" '
        f'fill="{_colour(name)}"/>'
    )
    yield _text(x + max(length, 1) + 5, y + 11, f"{value:,.0f}")


def _text(x: float, y: float, words: str, anchor: str = "start", size: int = 12) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" fill="{GREY}" font-size="{size}" '
        f'text-anchor="{anchor}">{escape(words)}</text>'
    )
