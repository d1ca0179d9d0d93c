"""Which worker may try another rung of its ladder."""

from pathlib import Path

import pytest
from twisted.internet.task import Clock

from abproxy.batching.ladder import Ladder, Turn
from abproxy.workers.turn import LONGEST_S, SharedTurn


@pytest.fixture
def clock() -> Clock:
    """Return the time that all workers go by."""
    clock = Clock()
    clock.advance(1000.0)
    return clock


@pytest.fixture
def turns(tmp_path: Path, clock: Clock) -> list[SharedTurn]:
    """Return the turns of two workers."""
    return [SharedTurn.at(tmp_path / "turn", number, clock) for number in (1, 2)]


def test_one_worker_at_a_time_has_the_turn(turns: list[SharedTurn]) -> None:
    """Neither could tell whose trial it was otherwise."""
    assert [turn.take() for turn in turns] == [True, False]


def test_a_turn_that_is_given_back_can_be_had(turns: list[SharedTurn]) -> None:
    """Trials are short."""
    turns[0].take()

    turns[0].give_back()

    assert turns[1].take()
    assert not turns[0].take()


def test_a_worker_may_take_its_own_turn_again(turns: list[SharedTurn]) -> None:
    """It may have been killed in the middle of a trial, and started again."""
    turns[0].take()

    assert turns[0].take()


def test_a_turn_does_not_last_for_ever(turns: list[SharedTurn], clock: Clock) -> None:
    """Its worker may have no more calls, with which a trial would end."""
    turns[0].take()
    clock.advance(LONGEST_S - 1)
    before = turns[1].take()

    clock.advance(1)

    assert not before
    assert turns[1].take()


def test_what_another_has_is_not_given_back(
    turns: list[SharedTurn], clock: Clock
) -> None:
    """By a worker whose turn was over long ago."""
    turns[0].take()
    clock.advance(LONGEST_S)
    turns[1].take()

    turns[0].give_back()

    assert not turns[0].take()


def looks_of(turn: Turn, times: int) -> Ladder:
    """Let looks be taken that are all alike."""
    ladder = Ladder(turn=turn)
    for _ in range(times):
        ladder.look(0.0, binds=True, may_leap=True)
    return ladder


def test_a_ladder_tries_nothing_out_of_turn(turns: list[SharedTurn]) -> None:
    """Another worker does."""
    turns[0].take()

    assert looks_of(turns[1], 50).trials == 0


def test_a_ladder_gives_its_turn_back_after_each_trial(
    turns: list[SharedTurn],
) -> None:
    """So that all come to theirs."""
    first, second = (Ladder(turn=turn) for turn in turns)

    for _ in range(100):
        for ladder in (first, second):
            ladder.look(0.0, binds=True, may_leap=True)
        assert not (first.trial and second.trial)

    assert first.trials > 5
    assert second.trials > 5
