"""When a child process that has ended is started again."""

from abproxy.process import FIRST_DELAY_S, LONG_S, LONGEST_DELAY_S, RestartDelays


def test_delays_grow_as_long_as_runs_are_short() -> None:
    """A machine is not kept busy with starting processes."""
    delays = RestartDelays()

    assert [delays.after(0.5) for _ in range(7)] == [1, 2, 4, 8, 16, 30, 30]
    assert delays.after(1.0) == LONGEST_DELAY_S


def test_a_long_run_makes_delays_short_again() -> None:
    """What was wrong is over."""
    delays = RestartDelays()
    delays.after(0.5)
    delays.after(0.5)

    assert delays.after(LONG_S) == 0
    assert delays.after(0.5) == FIRST_DELAY_S
