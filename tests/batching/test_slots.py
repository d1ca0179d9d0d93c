"""How many batches may be in flight without being full."""

from collections.abc import Callable

from abproxy.batching.concurrency import (
    LEAST_SLOTS,
    MOST_SLOTS,
    AdaptiveSlots,
    Slots,
    make_slots,
)


def answer(slots: Slots, times: int, in_flight: int, took_s: float) -> None:
    """Let batches be answered that were not full."""
    for _ in range(times):
        slots.answered(in_flight, took_s)


def test_it_begins_with_two() -> None:
    """One computes while the next travels."""
    assert AdaptiveSlots().count == LEAST_SLOTS == 2


def test_a_third_is_tried_once_in_a_while() -> None:
    """Two in flight do not tell whether the upstream works on several."""
    slots = AdaptiveSlots()

    answer(slots, 7, in_flight=2, took_s=0.02)
    before = slots.count
    answer(slots, 1, in_flight=2, took_s=0.02)

    assert before == 2
    assert slots.count == 3


def test_a_lone_call_asks_for_no_third_slot() -> None:
    """Where never more than one is in flight, two are enough."""
    slots = AdaptiveSlots()

    answer(slots, 500, in_flight=1, took_s=0.02)

    assert slots.count == 2


def serve(slots: AdaptiveSlots, answers: int, took_s: Callable[[int], float]) -> None:
    """Let an upstream answer while every slot is taken."""
    for _ in range(answers):
        slots.answered(slots.count, took_s(slots.count))


def test_one_request_at_a_time_keeps_few_slots() -> None:
    """Twice as many in flight wait twice as long: nothing is gained."""
    slots = AdaptiveSlots()

    serve(slots, 500, lambda in_flight: 0.01 * in_flight)

    assert slots.count <= 4


def test_an_upstream_that_merges_gets_more_and_more() -> None:
    """Twice as many in flight wait as long as half of them."""
    slots = AdaptiveSlots()

    serve(slots, 1000, lambda _in_flight: 0.01)

    assert slots.count == MOST_SLOTS


def test_an_upstream_that_works_on_sixteen_gets_about_as_many() -> None:
    """More than it works on would only stand in its queue."""
    slots = AdaptiveSlots()

    serve(slots, 1000, lambda in_flight: max(1.0, in_flight / 16))

    assert 14 <= slots.count <= 40


def test_an_upstream_that_becomes_slower_gets_fewer() -> None:
    """What was learnt once is not believed for ever."""
    slots = AdaptiveSlots()
    serve(slots, 200, lambda _in_flight: 0.01)
    before = slots.count

    serve(slots, 2000, lambda in_flight: 0.01 * in_flight)

    assert before > 50
    assert slots.count <= 4


def test_many_full_batches_make_room_for_those_that_are_left_over() -> None:
    """One request more in five costs little; waiting for a whole round costs more."""
    slots = AdaptiveSlots()

    assert [slots.beside(full) for full in (0, 3, 4, 8, 16)] == [2, 2, 3, 4, 6]


def test_a_fixed_number_stays() -> None:
    """The operator's word counts."""
    slots = make_slots(5)

    answer(slots, 100, in_flight=5, took_s=0.01)

    assert slots.count == slots.beside(16) == 5
