"""
Plots as SVG, written by hand: curves over the number of clients, both axes log.

The colours can be told apart by everyone and on white as on black; each curve
has its own dashes as well, and words and lines are a grey in between.
"""

from collections.abc import Callable, Mapping, Sequence
from html import escape
from math import ceil, floor, isnan, log10

from attrs import frozen

__all__ = ["Plot"]

WIDTH, HEIGHT = 640, 360
LEFT, RIGHT, TOP, BOTTOM = 70, 470, 40, 310
GREY = "#808080"
STYLES = (
    ("#0090d0", ""),
    ("#d55e00", "6 3"),
    ("#a070c0", "2 3"),
    ("#b09000", "8 3 2 3"),
    ("#009e73", "12 3"),
    ("#cc79a7", "4 6"),
)
NAMES_OF_POWERS = {-1: "0.1", 0: "1", 1: "10", 2: "100", 3: "1k", 4: "10k", 5: "100k"}

Point = tuple[float, float]


@frozen(kw_only=True)
class Plot:
    """Some curves over the number of clients."""

    title: str
    unit: str
    curves: Mapping[str, Sequence[Point]]

    def svg(self) -> str:
        """Write the picture."""
        xs, ys = self._axis(0, LEFT, RIGHT), self._axis(1, BOTTOM, TOP)
        body = [
            _text(LEFT, TOP - 18, self.title, size=14),
            _text(LEFT - 8, TOP - 2, self.unit, anchor="end"),
            _text(RIGHT, BOTTOM + 34, "clients", anchor="end"),
            *_grid_lines(xs, ys),
        ]
        for at, (name, points) in enumerate(self.curves.items()):
            body += _curve(at, name, [(xs.at(x), ys.at(y)) for x, y in points])
        inside = "\n".join(body)
        return (
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" '
            f'font-family="sans-serif" font-size="12" role="img">\n'
            f"<title>{escape(self.title)}</title>\n{inside}\n</svg>\n"
        )

    def _axis(self, which: int, start: float, end: float) -> "_Axis":
        values = [point[which] for points in self.curves.values() for point in points]
        good = [value for value in values if value > 0 and not isnan(value)]
        low, high = floor(log10(min(good))), ceil(log10(max(good)))
        return _Axis(low=low, high=max(high, low + 1), start=start, end=end)


@frozen(kw_only=True)
class _Axis:
    low: int
    high: int
    start: float
    end: float

    def at(self, value: float) -> float:
        share = (log10(value) - self.low) / (self.high - self.low)
        return round(self.start + share * (self.end - self.start), 1)

    @property
    def powers(self) -> range:
        return range(self.low, self.high + 1)


def _text(
    x: float, y: float, words: str, *, anchor: str = "start", size: int = 12
) -> str:
    return (
        f'<text x="{x}" y="{y}" fill="{GREY}" font-size="{size}" '
        f'text-anchor="{anchor}">{escape(words)}</text>'
    )


def _line(start: Point, end: Point) -> str:
    (x1, y1), (x2, y2) = start, end
    return (
        f'<line x1="{x1}" y1="{y1}" x2="{x2}" y2="{y2}" stroke="{GREY}" '
        'stroke-opacity="0.3"/>'
    )


def _grid_lines(xs: _Axis, ys: _Axis) -> list[str]:
    lines = []
    for power in xs.powers:
        x = xs.at(10**power)
        lines.append(_line((x, TOP), (x, BOTTOM)))
        lines.append(_text(x, BOTTOM + 18, _name(power), anchor="middle"))
    for power in ys.powers:
        y = ys.at(10**power)
        lines.append(_line((LEFT, y), (RIGHT, y)))
        lines.append(_text(LEFT - 8, y + 4, _name(power), anchor="end"))
    return lines


def _name(power: int) -> str:
    return NAMES_OF_POWERS.get(power, f"1e{power}")


def _curve(at: int, name: str, points: Sequence[Point]) -> list[str]:
    colour, dashes = STYLES[at % len(STYLES)]
    stroke = f'stroke="{colour}" stroke-width="2.5" stroke-dasharray="{dashes}"'
    y = TOP + 20 * at + 6
    track = " ".join(f"{x},{y}" for x, y in points)
    return [
        f'<polyline points="{track}" fill="none" {stroke}/>',
        f'<line x1="{RIGHT + 14}" y1="{y}" x2="{RIGHT + 44}" y2="{y}" {stroke}/>',
        _text(RIGHT + 50, y + 4, name),
    ]


def curves_of(
    found: Sequence[tuple[str, float, float]], keeps: Callable[[float], bool]
) -> dict[str, list[Point]]:
    """Sort points (curve, x, y) into curves, without those that are no figures."""
    curves: dict[str, list[Point]] = {}
    for name, x, y in found:
        if keeps(y):
            curves.setdefault(name, []).append((x, y))
    return curves
