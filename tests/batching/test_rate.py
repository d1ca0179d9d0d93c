"""How many in a second, lately."""

from twisted.internet.task import Clock

from abproxy.batching.concurrency import PERIOD_S, Rate


def test_there_is_no_figure_before_the_first_period_is_over() -> None:
    """A few quick answers are no rate yet."""
    clock = Clock()
    rate = Rate(clock)

    rate.count(1000)

    assert rate.per_second() == 0


def test_the_figure_is_that_of_the_last_whole_period() -> None:
    """What is counted now does not change it until the period is over."""
    clock = Clock()
    rate = Rate(clock)
    clock.advance(PERIOD_S)
    rate.count(40)

    rate.count(1000)

    assert rate.per_second() == 40 / PERIOD_S


def test_a_new_period_brings_a_new_figure() -> None:
    """The past is forgotten after one period."""
    clock = Clock()
    rate = Rate(clock)
    clock.advance(PERIOD_S)
    rate.count(40)

    clock.advance(PERIOD_S)
    rate.count(10)

    assert rate.per_second() == 10 / PERIOD_S


def test_what_is_rare_is_measured_over_as_long_as_it_takes() -> None:
    """One answer in ten seconds is a tenth of an answer a second."""
    clock = Clock()
    rate = Rate(clock)

    clock.advance(10)
    rate.count(1)

    assert rate.per_second() == 0.1
