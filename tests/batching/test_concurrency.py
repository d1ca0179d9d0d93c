"""How much may be in flight, as the operator or the upstream's answers say."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock

from abproxy.batching.concurrency import (
    PERIOD_S,
    REMEMBERED_S,
    AdaptiveLimit,
    Budget,
    FixedLimit,
    Rate,
)
from abproxy.batching.part import Caps
from abproxy.batching.slots import FixedSlots, Load

BATCH = 32
FULL = Load(items=BATCH, slot=False)
NOT_FULL = Load(items=3, slot=True)


def following(clock: Clock | None = None, ceiling: int = 512) -> AdaptiveLimit:
    """Make a limit that follows."""
    return AdaptiveLimit(clock=clock or Clock(), ceiling=ceiling, batch=BATCH)


def answer(limit: AdaptiveLimit, times: int, took_s: float) -> None:
    """Let full batches be answered while others wait."""
    for _ in range(times):
        limit.answered(FULL, took_s, full_wait=True)


def test_the_limit_begins_with_two_full_batches() -> None:
    """One is computed while the next is sent."""
    assert following().items == 2 * BATCH


def test_the_limit_grows_by_a_batch_while_answers_are_quick() -> None:
    """What does not slow the upstream down, it merges."""
    limit = following()

    answer(limit, 3, took_s=1.0)

    assert limit.items == 5 * BATCH


def test_the_limit_does_not_grow_unless_full_batches_wait() -> None:
    """Quick answers without a queue are no reason to send more."""
    limit = following()

    for _ in range(10):
        limit.answered(FULL, 1.0, full_wait=False)

    assert limit.items == 2 * BATCH


def test_the_limit_learns_nothing_from_batches_that_are_not_full() -> None:
    """A small batch is quick for another reason."""
    limit = following()

    for _ in range(10):
        limit.answered(NOT_FULL, 0.001, full_wait=True)
    answer(limit, 2, took_s=1.0)

    assert limit.items == 4 * BATCH


def test_the_limit_stays_where_answers_are_neither_quick_nor_slow() -> None:
    """An upstream with all that it can take is not pushed."""
    limit = following()
    answer(limit, 4, took_s=1.0)

    answer(limit, 10, took_s=2.0)

    assert limit.items == 6 * BATCH


def test_the_limit_shrinks_while_answers_are_slow() -> None:
    """A queue inside the upstream cannot be reordered."""
    limit = following()
    answer(limit, 4, took_s=1.0)

    answer(limit, 3, took_s=3.0)

    assert limit.items == 3 * BATCH


def test_the_limit_is_never_above_the_ceiling() -> None:
    """More than its permits the upstream refuses."""
    limit = following(ceiling=100)

    answer(limit, 50, took_s=1.0)

    assert limit.items == 100


def test_the_limit_is_never_below_two_full_batches() -> None:
    """The upstream never waits for the next batch to be sent."""
    limit = following()
    answer(limit, 1, took_s=0.001)

    answer(limit, 50, took_s=100.0)

    assert limit.items == 2 * BATCH


def test_the_limit_covers_what_is_answered_in_a_tenth_of_a_second() -> None:
    """A fast upstream gets enough at once, however its answers vary."""
    clock = Clock()
    limit = following(clock)

    clock.advance(0.5)
    limit.answered(Load(items=1000, slot=True), 0.01, full_wait=False)

    assert limit.items == 200


def test_a_refusal_halves_it() -> None:
    """The upstream had less room than was thought."""
    limit = following()
    answer(limit, 10, took_s=1.0)

    limit.refused()

    assert limit.items == 6 * BATCH


def test_a_refusal_halves_what_was_measured_too() -> None:
    """A rate that cannot be kept up is forgotten."""
    clock = Clock()
    limit = following(clock)
    clock.advance(0.5)
    limit.answered(Load(items=2000, slot=True), 0.01, full_wait=False)

    limit.refused()

    assert limit.items == 200


def test_after_a_refusal_it_stays_below_what_was_refused() -> None:
    """Every answer would be paid for with one more refusal otherwise."""
    limit = following()
    answer(limit, 10, took_s=1.0)
    limit.refused()

    answer(limit, 50, took_s=1.0)

    assert limit.items == 11 * BATCH


def test_a_refusal_is_forgotten_after_a_while() -> None:
    """The upstream may have more room again, or be a new one."""
    clock = Clock()
    limit = following(clock)
    answer(limit, 10, took_s=0.001)
    limit.refused()

    clock.advance(REMEMBERED_S)
    answer(limit, 50, took_s=1.0)

    assert limit.items == 512


def _refuse(limit: AdaptiveLimit, times: int) -> list[int]:
    found = []
    for _ in range(times):
        limit.refused()
        found.append(limit.items)
    return found


def test_refusals_in_a_row_leave_less_than_a_batch() -> None:
    """Others may hold nearly all of the permits, and leave a few."""
    limit = following()

    assert _refuse(limit, 7) == [32, 16, 8, 4, 2, 1, 1]


def test_what_refusals_have_left_doubles_with_every_answer() -> None:
    """Up to where it was refused, and later on as if nothing had been."""
    clock = Clock()
    limit = following(clock)
    _refuse(limit, 4)
    found = []

    for _ in range(4):
        limit.answered(NOT_FULL, 0.01, full_wait=False)
        found.append(limit.items)
    clock.advance(REMEMBERED_S)

    assert [*found, limit.items] == [8, 16, 32, 32, 64]


def test_a_server_that_was_away_is_not_taken_for_a_small_one() -> None:
    """Only the first refusal in a row says how much was too much."""
    limit = following()
    answer(limit, 50, took_s=1.0)
    _refuse(limit, 9)

    answer(limit, 50, took_s=1.0)

    assert limit.items == 512 - BATCH


def test_a_refusal_after_an_answer_says_how_much_is_too_much() -> None:
    """It is found out once, and not with every other batch."""
    limit = following()
    _refuse(limit, 2)
    limit.answered(NOT_FULL, 0.01, full_wait=False)
    limit.refused()

    answer(limit, 50, took_s=1.0)

    assert limit.items == 16


def test_a_lower_ceiling_counts_at_once() -> None:
    """The upstream may come back with fewer permits."""
    limit = following()
    answer(limit, 50, took_s=1.0)

    limit.ceiling = 128

    assert limit.items == 128


experiences = st.one_of(
    st.tuples(
        st.just("answered"),
        st.integers(1, 64),
        st.booleans(),
        st.floats(0.0001, 100),
        st.booleans(),
    ),
    st.tuples(st.just("refused")),
    st.tuples(st.just("advance"), st.floats(0, 5)),
    st.tuples(st.just("learn"), st.integers(1, 2000), st.integers(1, 64)),
)


@given(story=st.lists(experiences, max_size=60))
def test_whatever_happens_the_limit_stays_within_its_bounds(story: list[Any]) -> None:
    """Two full batches at least unless refused, the upstream's permits at most."""
    clock = Clock()
    limit = following(clock)
    was_refused = False

    for verb, *details in story:
        if verb == "answered":
            items, slot, took_s, full_wait = details
            load = Load(items=items, slot=slot)
            limit.answered(load, took_s, full_wait=full_wait)
        elif verb == "refused":
            limit.refused()
            was_refused = True
        elif verb == "advance":
            clock.advance(*details)
        else:
            limit.ceiling, limit.batch = details
        least = 1 if was_refused else min(2 * limit.batch, limit.ceiling)
        assert least <= limit.items <= limit.ceiling


def test_a_fixed_limit_stays_what_the_operator_said() -> None:
    """Experience does not change it."""
    limit = FixedLimit(ceiling=100, batch=BATCH)

    limit.answered(FULL, 1.0, full_wait=True)

    assert limit.items == 100


def test_a_refusal_halves_a_fixed_limit_for_a_while() -> None:
    """It grows back by one batch for each answer."""
    limit = FixedLimit(ceiling=100, batch=BATCH)

    limit.refused()
    halved = limit.items
    limit.answered(FULL, 1.0, full_wait=True)
    grown = limit.items
    limit.answered(FULL, 1.0, full_wait=True)

    assert [halved, grown, limit.items] == [50, 82, 100]


def test_a_fixed_limit_always_leaves_one_item() -> None:
    """Less than that could never be answered."""
    limit = FixedLimit(ceiling=100, batch=BATCH)

    for _ in range(10):
        limit.refused()
    least = limit.items
    for _ in range(3):
        limit.answered(NOT_FULL, 1.0, full_wait=False)

    assert [least, limit.items] == [1, 8]


# Rates


def test_there_is_no_rate_before_the_first_period_is_over() -> None:
    """A few quick answers are no rate yet."""
    clock = Clock()
    rate = Rate(clock)

    rate.count(1000)

    assert rate.per_second == 0


def test_the_rate_is_that_of_the_last_whole_period() -> None:
    """What is counted now does not change it until the period is over."""
    clock = Clock()
    rate = Rate(clock)
    clock.advance(PERIOD_S)
    rate.count(40)

    rate.count(1000)

    assert rate.per_second == 40 / PERIOD_S


def test_a_new_period_brings_a_new_rate() -> None:
    """The past is forgotten after one period."""
    clock = Clock()
    rate = Rate(clock)
    clock.advance(PERIOD_S)
    rate.count(40)

    clock.advance(PERIOD_S)
    rate.count(10)

    assert rate.per_second == 10 / PERIOD_S


def test_what_is_rare_is_measured_over_as_long_as_it_takes() -> None:
    """One answer in ten seconds is a tenth of an answer a second."""
    clock = Clock()
    rate = Rate(clock)

    clock.advance(10)
    rate.count(1)

    assert rate.per_second == 0.1


# Several servers

CAPS = Caps(calls=32, items=32, size=1_000_000)


def test_each_server_has_as_many_slots() -> None:
    """What is not full in front of one may be in front of each."""
    budget = Budget(limit=FixedLimit(ceiling=512, batch=32), slots=FixedSlots(2))
    budget.resize(ceiling=1536, batch=32, servers=3)

    taken = 0
    while budget.slot_free:
        budget.take(Load(items=1, slot=True))
        taken += 1

    assert taken == 6


def test_what_is_not_full_waits_where_full_ones_wait_at_each_server() -> None:
    """It may fill up; but one may always leave, as in front of one server."""
    budget = Budget(limit=FixedLimit(ceiling=512, batch=32), slots=FixedSlots(1))
    budget.resize(ceiling=1536, batch=32, servers=3)

    free = []
    for _ in range(8):
        budget.take(Load(items=32, slot=False))
        taken = 0
        while budget.slot_free:
            budget.take(Load(items=1, slot=True))
            taken += 1
        free.append(taken)
        for _ in range(taken):
            budget.give_back(Load(items=1, slot=True))

    assert free == [3, 3, 3, 2, 1, 1, 1, 1]


@pytest.mark.parametrize(
    ("servers", "waiting", "in_flight", "share"),
    [(1, 4, 4, 32), (2, 4, 4, 4), (3, 7, 3, 4), (3, 1, 0, 1), (3, 96, 0, 32)],
)
def test_a_batch_leaves_as_much_to_each_of_the_other_servers(
    servers: int, waiting: int, in_flight: int, share: int
) -> None:
    """Of all items that are here, waiting or in flight."""
    budget = Budget(limit=FixedLimit(ceiling=512, batch=32), slots=FixedSlots(1))
    budget.resize(ceiling=1536, batch=32, servers=servers)
    budget.take(Load(items=in_flight, slot=True))

    assert budget.share_of(CAPS, waiting).items == share


def test_each_server_has_two_full_batches_at_least() -> None:
    """It never waits for the next one to be sent."""
    limit = AdaptiveLimit(clock=Clock(), ceiling=512, batch=BATCH)
    budget = Budget(limit=limit, slots=FixedSlots(2))

    budget.resize(ceiling=1500, batch=BATCH, servers=3)

    assert budget.most_items == 3 * 2 * BATCH


def test_fewer_servers_have_less_in_flight() -> None:
    """What was in flight at one that is away counts until it is over."""
    budget = Budget(limit=FixedLimit(ceiling=64, batch=32), slots=FixedSlots(2))
    budget.take(Load(items=48, slot=False))

    budget.resize(ceiling=32, batch=32, servers=1)

    assert not budget.admits(1)
