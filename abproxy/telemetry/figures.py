"""
Counts, and how often a figure was how large, in a fraction of a microsecond.

The library's own counters and histograms take locks for threads that we do not
have; with several figures for each batch and two for each call that is felt.
What it writes for a scrape is used as it is.
"""

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from itertools import accumulate

from attrs import define, field
from prometheus_client.core import (
    CounterMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector
from prometheus_client.utils import floatToGoString

__all__ = ["Figure", "Histogram", "Tally"]


@define(kw_only=True, eq=False)
class Tally(Collector):
    """How often something has happened, by what it was."""

    name: str
    about: str
    labels: Sequence[str] = ()
    _counts: dict[tuple[str, ...], int] = field(init=False, factory=dict)

    def add(self, values: tuple[str, ...] = (), number: int = 1) -> None:
        """Count what has these *values* of the labels, a *number* of times."""
        self._counts[values] = self._counts.get(values, 0) + number

    def collect(self) -> Iterator[Metric]:
        """Write all for a scrape."""
        family = CounterMetricFamily(self.name, self.about, labels=self.labels)
        for values, count in self._counts.items():
            family.add_metric(values, count)
        yield family


@define(eq=False)
class Figure:
    """The counts of one figure."""

    bounds: Sequence[float]
    """The largest value of each bucket; what is over has one of its own."""

    sum: float = field(init=False, default=0.0)
    _counts: list[int] = field(init=False)

    def __attrs_post_init__(self) -> None:
        """Begin with nothing counted."""
        self._counts = [0] * (len(self.bounds) + 1)

    def observe(self, value: float) -> None:
        """Count a *value*."""
        self._counts[bisect_left(self.bounds, value)] += 1
        self.sum += value

    def observe_all(self, values: Sequence[float]) -> None:
        """Count all *values*."""
        bounds, counts = self.bounds, self._counts
        for value in values:
            counts[bisect_left(bounds, value)] += 1
        self.sum += sum(values)

    def buckets(self) -> list[tuple[str, float]]:
        """Say how many were not over each bound."""
        names = [*map(floatToGoString, self.bounds), "+Inf"]
        return list(zip(names, accumulate(self._counts), strict=True))


@define(kw_only=True, eq=False)
class Histogram(Collector):
    """One figure, or the same one for each route."""

    name: str
    about: str
    bounds: Sequence[float]
    by_route: bool = False
    _figures: dict[str, Figure] = field(init=False, factory=dict)

    def of(self, route: str = "") -> Figure:
        """Find the figure of a *route*."""
        figure = self._figures.get(route)
        if figure is None:
            figure = self._figures[route] = Figure(self.bounds)
        return figure

    def collect(self) -> Iterator[Metric]:
        """Write all for a scrape."""
        labels = ["route"] if self.by_route else []
        family = HistogramMetricFamily(self.name, self.about, labels=labels)
        for route, figure in self._figures.items():
            values = [route] if self.by_route else []
            family.add_metric(values, figure.buckets(), figure.sum)
        yield family
