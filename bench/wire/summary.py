"""
Many runs in few numbers: medians, how far they spread, and ratios of neighbours.

A ratio is taken in each round, and the median of those counts: machines are
noisy, and the noise of a moment hits both sides of a ratio.
"""

from collections.abc import Sequence
from statistics import median

from attrs import frozen

__all__ = ["Spread", "difference", "ratio", "spread"]


@frozen
class Spread:
    """The median of some figures, between the lowest and the highest."""

    middle: float
    low: float
    high: float


def spread(figures: Sequence[float]) -> Spread:
    """Sum up the same figure of all rounds."""
    return Spread(median(figures), min(figures), max(figures))


def difference(ours: Sequence[float], theirs: Sequence[float]) -> Spread:
    """Compare round by round: by how much *ours* is larger than *theirs*."""
    return spread([one - other for one, other in zip(ours, theirs, strict=True)])


def ratio(ours: Sequence[float], theirs: Sequence[float]) -> Spread:
    """
    Compare round by round: how many times as large *ours* is as *theirs*.

    A round in which theirs is 0 (a clock that did not tick) has no ratio.

    Raises:
        ValueError: there is no ratio at all.
    """
    pairs = zip(ours, theirs, strict=True)
    return spread([one / other for one, other in pairs if other])
