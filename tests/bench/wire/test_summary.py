"""Many figures in few."""

import pytest

from bench.wire.summary import Spread, difference, ratio, spread


def test_the_median_is_in_the_middle() -> None:
    """One wild round does not move it."""
    assert spread([10, 1000, 9, 11, 8]) == Spread(10, 8, 1000)


def test_a_ratio_is_made_of_neighbours() -> None:
    """A slow moment that hits both sides leaves it as it was."""
    assert ratio([20, 2, 40], [10, 1, 20]) == Spread(2, 2, 2)


def test_a_difference_is_made_of_neighbours() -> None:
    """A slow moment that hits both sides leaves it as it was."""
    assert difference([11, 51, 21], [10, 50, 20]) == Spread(1, 1, 1)


def test_the_ratio_is_not_that_of_the_medians() -> None:
    """Those may come from different rounds."""
    ours, theirs = [30, 10, 20], [10, 20, 30]

    assert ratio(ours, theirs).middle == pytest.approx(2 / 3)


def test_a_clock_that_did_not_tick_is_left_out() -> None:
    """It would be an endless ratio."""
    assert ratio([5, 6], [0, 3]) == Spread(2, 2, 2)


def test_rounds_must_match() -> None:
    """A missing one would shift all neighbours."""
    with pytest.raises(ValueError, match="shorter"):
        ratio([1, 2], [1])
