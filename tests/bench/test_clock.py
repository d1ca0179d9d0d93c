"""Time on the virtual clock."""

from bench.simulation.clock import VirtualClock


def test_alarms_ring_in_order() -> None:
    """The earlier first; at the same time, the one that was set first."""
    clock = VirtualClock()
    rung: list[tuple[str, float]] = []

    for name, delay in (("late", 2.0), ("first", 1.0), ("second", 1.0)):
        clock.callLater(delay, lambda name=name: rung.append((name, clock.seconds())))
    clock.run(3.0)

    assert rung == [("first", 1.0), ("second", 1.0), ("late", 2.0)]
    assert clock.seconds() == 3.0


def test_a_cancelled_alarm_does_not_ring() -> None:
    """And it is not listed any more."""
    clock = VirtualClock()
    rung: list[int] = []
    alarm = clock.callLater(1.0, rung.append, 1)

    alarm.cancel()
    clock.run(2.0)

    assert rung == []
    assert not clock.getDelayedCalls()


def test_time_stands_still_beyond_the_end() -> None:
    """What is set for later rings in the next run."""
    clock = VirtualClock()
    rung: list[int] = []
    clock.callLater(5.0, rung.append, 1)

    clock.run(4.0)
    before = list(rung)
    clock.run(6.0)

    assert before == []
    assert rung == [1]
