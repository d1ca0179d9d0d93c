"""Who was just answered, and is about to call again."""

from abproxy.batching.hold import PATIENCE, Hold
from abproxy.batching.slots import FixedSlots

TOOK_S = 0.8
UNTIL = PATIENCE * TOOK_S


def trusted() -> Hold:
    """Make one whose callers have come back, so far."""
    hold = Hold()
    hold.answered(0.0, "lane", 1, TOOK_S)
    hold.called(0.01, "lane")
    return hold


def test_nobody_is_waited_for_until_some_have_come_back() -> None:
    """Most clients may send one call and no more."""
    hold = Hold()

    hold.answered(0.0, "lane", 8, TOOK_S)

    assert hold.until(0.01, "lane") is None


def test_callers_who_come_back_are_waited_for_the_next_time() -> None:
    """As long as an eighth of an answer takes."""
    hold = trusted()

    hold.answered(1.0, "lane", 8, TOOK_S)

    assert hold.until(1.01, "lane") == 1.0 + UNTIL


def test_the_wait_is_over_when_all_are_back() -> None:
    """The last of them makes the batch complete."""
    hold = trusted()
    hold.answered(1.0, "lane", 2, TOOK_S)

    hold.called(1.01, "lane")
    before = hold.until(1.01, "lane")
    hold.called(1.02, "lane")

    assert before is not None
    assert hold.until(1.02, "lane") is None


def test_the_wait_is_over_after_its_time() -> None:
    """Those who did come wait no longer."""
    hold = trusted()

    hold.answered(1.0, "lane", 8, TOOK_S)

    assert hold.until(1.0 + UNTIL, "lane") is None


def test_only_the_lane_of_those_who_return_waits() -> None:
    """A query that is asked again and again would keep an import waiting."""
    hold = trusted()

    hold.answered(1.0, "lane", 8, TOOK_S)

    assert hold.until(1.01, "other lane") is None


def test_a_call_in_another_lane_is_not_one_of_those_who_return() -> None:
    """They are still to come."""
    hold = trusted()
    hold.answered(1.0, "lane", 1, TOOK_S)

    hold.called(1.01, "other lane")

    assert hold.expected == 1


def test_callers_who_stay_away_are_not_waited_for_any_more() -> None:
    """After a few times: each costs those who wait an eighth of an answer."""
    hold = trusted()

    for second in range(1, 4):
        hold.answered(float(second), "lane", 8, TOOK_S)

    assert hold.until(3.01, "lane") is None


def test_callers_who_come_back_again_are_trusted_again() -> None:
    """The load may have changed."""
    hold = trusted()
    for second in range(1, 20):
        hold.answered(float(second), "lane", 1, TOOK_S)
    for second in range(20, 40):
        hold.answered(float(second), "lane", 1, TOOK_S)
        hold.called(second + 0.01, "lane")

    hold.answered(40.0, "lane", 8, TOOK_S)

    assert hold.until(40.01, "lane") is not None


def test_callers_who_come_back_late_are_not_trusted() -> None:
    """They would be waited for in vain."""
    hold = Hold()

    for second in range(20):
        hold.answered(float(second), "lane", 1, TOOK_S)
        hold.called(second + UNTIL + 0.01, "lane")

    assert not hold.is_trusted


def test_fixed_slots_hold_nothing() -> None:
    """Who fixes their number has decided."""
    assert FixedSlots(1).held_until(0.0, "lane") is None
