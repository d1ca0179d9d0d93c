"""Which rung is found, from the stays that looks have shown."""

from collections.abc import Callable
from itertools import pairwise
from math import log
from random import Random

import pytest
from attrs import define, field
from hypothesis import given
from hypothesis import strategies as st

from abproxy.batching.ladder import (
    FIRST,
    FIRST_CALM,
    LEAST_CALLS,
    LOST,
    MOST_CALLS,
    RUNGS,
    TOP,
    Ladder,
)


@define(eq=False)
class World:
    """A server whose stay depends on the rung in force."""

    stay_s: Callable[[int], float]
    ladder: Ladder = field(factory=Ladder)
    noise: float = 0.0
    is_closed: bool = True
    binds: bool = True
    rungs: list[int] = field(factory=list)
    """On which rung each look was taken."""

    chance: Random = field(factory=lambda: Random(1))  # noqa: S311  a game

    def look(self, times: int = 1) -> None:
        """Let some looks be taken."""
        for _ in range(times):
            rung = self.ladder.on
            self.rungs.append(rung)
            stay = log(self.stay_s(rung)) + self.chance.gauss(0, self.noise)
            self.ladder.look(stay, binds=self.binds, may_leap=self.is_closed)

    @property
    def visited(self) -> set[int]:
        """On which rungs a look was taken."""
        return set(self.rungs)


def best_at(best: int, *, per_rung: float = 0.2) -> Callable[[int], float]:
    """Make a server that is slower on each rung away from the *best*."""
    return lambda rung: 1.0 + per_rung * abs(rung - best)


@pytest.mark.parametrize("best", range(len(RUNGS)))
def test_the_rung_with_the_shortest_stay_is_found(best: int) -> None:
    """Wherever on the ladder it is."""
    world = World(best_at(best))

    world.look(100)

    assert world.ladder.rung == best


@pytest.mark.parametrize("best", range(len(RUNGS)))
def test_it_is_found_if_callers_do_not_return(best: int) -> None:
    """As long as nothing is known, an open load is exposed to no rung far away."""
    world = World(best_at(best), is_closed=False)

    world.look(150)

    beginning = world.rungs[:FIRST_CALM]
    steps = pairwise(beginning)
    assert world.ladder.rung == best
    assert all(abs(one - other) <= 1 for one, other in steps)


@pytest.mark.parametrize("best", [0, TOP])
def test_a_rung_at_the_end_is_found_beyond_worse_ones(best: int) -> None:
    """A fleet may be served best when all leave at once, and worst by a few."""
    world = World(lambda rung: 1.0 if rung == best else 1.4 + 0.1 * (rung == 2))

    world.look(60)

    assert world.ladder.rung == best


@pytest.mark.parametrize("best", [0, 2, TOP])
def test_it_is_found_though_looks_differ(best: int) -> None:
    """By a tenth each, as those of a load that comes at random."""
    world = World(best_at(best), noise=0.1)

    world.look(600)

    assert world.ladder.rung == best


def test_of_rungs_that_are_as_good_the_lowest_is_taken() -> None:
    """It makes the fewest requests."""
    world = World(lambda _rung: 1.0)

    world.look(200)

    assert world.ladder.rung == 0


def test_a_rung_that_is_hardly_better_is_not_worth_a_change() -> None:
    """Nor is one trial enough to believe in it."""
    world = World(lambda rung: 0.98 if rung == TOP else 1.0 + 0.3 * (rung < FIRST))

    world.look(200)

    assert world.ladder.rung == FIRST


def test_higher_rungs_are_not_tried_while_no_batch_waits_for_a_slot() -> None:
    """Nothing would be different there."""
    world = World(best_at(FIRST), binds=False)

    world.look(100)

    assert max(world.visited) == FIRST


def test_a_load_that_drifts_is_not_taken_for_a_gain() -> None:
    """A trial is compared with what was before and after it."""
    level = [1.0]

    def stay_s(rung: int) -> float:
        level[0] *= 0.98
        return level[0] * (1.0 if rung == FIRST else 1.2)

    world = World(stay_s)

    world.look(60)

    assert world.ladder.rung == FIRST


def test_a_trial_in_the_middle_of_a_change_says_nothing() -> None:
    """A queue that drains, or grows, would be taken for its outcome."""
    ladder = Ladder()
    for stay in (log(0.5), log(0.6), log(0.1)):
        ladder.look(stay, binds=True, may_leap=True)

    assert ladder.rung == FIRST
    assert all(known.trials == 0 for known in ladder.known)


def test_a_far_rung_is_tried_after_a_while_though_callers_do_not_return() -> None:
    """What is next door may be no better, and what is far much."""
    world = World(lambda rung: 1.0 if rung == TOP else 2.0, is_closed=False)

    world.look(60)

    assert world.ladder.rung == TOP


def test_trials_get_rare() -> None:
    """What has lost each time is tried after ever more looks."""
    world = World(best_at(0, per_rung=0.3))

    world.look(1000)
    before = world.ladder.trials
    world.look(3000)

    assert world.ladder.trials - before <= 10


def test_a_trial_is_broken_off_where_it_does_harm() -> None:
    """From one and a half times the stay before it."""
    world = World(lambda _rung: 2.0)
    world.look()

    assert world.ladder.is_trying
    assert log(world.ladder.lost_s) == pytest.approx(log(2.0) + LOST)


def test_outside_of_a_trial_nothing_is_broken_off() -> None:
    """However long calls stay."""
    assert Ladder().lost_s == float("inf")


def test_a_rung_that_was_lost_is_left_alone_for_long() -> None:
    """And so are those beyond it."""
    world = World(lambda rung: 3.0 if rung > FIRST else 1.0)

    world.look(200)

    assert sum(rung > FIRST for rung in world.rungs) <= 3


def test_a_rung_that_was_left_for_a_much_better_one_is_left_alone_for_long() -> None:
    """It is as bad as one that was tried and lost."""
    stays_s = {TOP: 1.0, TOP - 1: 1.1, FIRST: 2.0, FIRST - 1: 1.3}
    world = World(lambda rung: stays_s.get(rung, 1.4))

    world.look(200)

    assert world.ladder.rung == TOP
    after = world.rungs[world.rungs.index(TOP) + 1 :]
    assert FIRST not in after


def test_a_server_that_changes_is_learnt_anew() -> None:
    """What was best may be worst by now."""
    best = [0]
    world = World(lambda rung: 1.0 + best[0] + 0.3 * abs(rung - best[0]))
    world.look(200)
    before = world.ladder.rung

    best[0] = TOP
    world.look(400)

    assert (before, world.ladder.rung) == (0, TOP)


def test_a_lower_rung_that_turns_out_worse_is_left_again() -> None:
    """Some harm takes longer than a trial."""
    since = [0]

    def stay_s(rung: int) -> float:
        since[0] = since[0] + 1 if rung < FIRST else 0
        return 1.0 if rung >= FIRST - 1 and since[0] < 12 else 1.5

    world = World(stay_s, is_closed=False)

    world.look(60)

    assert sum(rung == FIRST - 1 for rung in world.rungs) > 12
    assert world.ladder.rung == FIRST


def test_looks_get_longer_where_they_differ() -> None:
    """A few calls of very different work tell little."""
    world = World(lambda _rung: 1.0, noise=0.4)

    world.look(100)

    assert world.ladder.calls == MOST_CALLS


def test_looks_get_shorter_again() -> None:
    """Once they differ no more."""
    world = World(lambda _rung: 1.0, noise=0.4)
    world.look(100)

    world.noise = 0.0
    world.look(200)

    assert world.ladder.calls == LEAST_CALLS


@given(
    stays=st.lists(
        st.tuples(st.floats(1e-6, 1e6), st.booleans(), st.booleans()), max_size=200
    )
)
def test_whatever_is_seen_the_ladder_has_a_rung(
    stays: list[tuple[float, bool, bool]],
) -> None:
    """And a look has a length."""
    ladder = Ladder()

    for stay_s, binds, may_leap in stays:
        ladder.look(log(stay_s), binds=binds, may_leap=may_leap)
        assert 0 <= ladder.on <= TOP
        assert 0 <= ladder.rung <= TOP
        assert LEAST_CALLS <= ladder.calls <= MOST_CALLS
