"""For how long what has kept batches from leaving."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock

from abproxy.events import BlockedBy
from abproxy.telemetry.keeping import BlockedTime

OBSTACLES = list(BlockedBy)

changes = st.tuples(st.floats(0, 1000), st.sampled_from(OBSTACLES))


def test_at_first_nothing_is_in_the_way() -> None:
    """A proxy that nobody calls is kept by nothing."""
    clock = Clock()
    keeping = BlockedTime(clock=clock)

    clock.advance(5)

    assert keeping.obstacle is BlockedBy.NOTHING
    assert keeping.seconds(BlockedBy.NOTHING) == 5
    assert keeping.seconds(BlockedBy.SLOT) == 0


def test_an_obstacle_counts_while_it_is_there() -> None:
    """Whoever looks sees its seconds grow, up to that moment."""
    clock = Clock()
    keeping = BlockedTime(clock=clock)
    keeping.by(BlockedBy.SLOT)

    clock.advance(2)
    early = keeping.seconds(BlockedBy.SLOT)
    clock.advance(1)

    assert early == 2
    assert keeping.seconds(BlockedBy.SLOT) == 3


def test_an_obstacle_that_has_gone_counts_no_more() -> None:
    """Its seconds stay as they are until it comes again."""
    clock = Clock()
    keeping = BlockedTime(clock=clock)
    keeping.by(BlockedBy.BUDGET)
    clock.advance(2)
    keeping.by(BlockedBy.UPSTREAM)

    clock.advance(10)
    keeping.by(BlockedBy.BUDGET)
    clock.advance(1)

    assert keeping.obstacle is BlockedBy.BUDGET
    assert keeping.seconds(BlockedBy.BUDGET) == 3
    assert keeping.seconds(BlockedBy.UPSTREAM) == 10


@given(story=st.lists(changes, max_size=30), rest=st.floats(0, 1000))
def test_all_seconds_add_up_to_the_time_that_passed(
    story: list[tuple[float, BlockedBy]], rest: float
) -> None:
    """There is one obstacle at any moment, be it none."""
    clock = Clock()
    keeping = BlockedTime(clock=clock)

    _live_through(story, clock, keeping)
    clock.advance(rest)

    seconds = [keeping.seconds(obstacle) for obstacle in OBSTACLES]
    assert sum(seconds) == pytest.approx(clock.seconds())
    assert min(seconds) >= 0


def _live_through(
    story: list[tuple[float, BlockedBy]], clock: Clock, keeping: BlockedTime
) -> None:
    for seconds, obstacle in story:
        clock.advance(seconds)
        keeping.by(obstacle)
