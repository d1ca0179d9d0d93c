"""Which of many waiting parts leave together."""

import sys
from itertools import count

from hypothesis import given
from hypothesis import strategies as st

from abproxy.batching.lane import MAX_OVERTAKEN, choose_alike
from abproxy.batching.part import Caps, Part, size_of, whole_part
from support.batching import call_of, harness

CAPS = Caps(calls=sys.maxsize, items=4, size=100_000)
_numbers = count()


def part_of(length: int, items: int = 1) -> Part:
    """Make a part whose items are that long, younger than all before."""
    call = call_of(*["x" * length] * items)
    part = whole_part(call, size_of(call.items.raw), now=0)
    part.priority = (0, next(_numbers))
    return part


def lengths(parts: list[Part]) -> list[int]:
    """How long the texts of *parts* are."""
    return [part.lengths[0] for part in parts]


def test_those_of_similar_length_leave_together() -> None:
    """The oldest leaves with those closest to it."""
    window = [part_of(length) for length in (10, 200, 12, 190, 11, 210, 9)]

    batch = choose_alike(window, CAPS)

    assert lengths(batch) == [9, 10, 11, 12]


def test_the_oldest_always_leaves() -> None:
    """Also if no other is like it."""
    window = [part_of(length) for length in (200, 10, 10, 10, 10, 10)]

    batch = choose_alike(window, CAPS)

    assert window[0] in batch


def test_a_batch_is_in_order_of_length() -> None:
    """An upstream that takes a few at a time finds them sorted."""
    window = [part_of(length) for length in (30, 10, 40, 20)]

    batch = choose_alike(window, CAPS)

    assert lengths(batch) == [10, 20, 30, 40]


def test_a_batch_is_within_the_cap_of_items() -> None:
    """A part that does not fit any more waits for the next one."""
    window = [part_of(10, items=3), part_of(10, items=3), part_of(10)]

    batch = choose_alike(window, CAPS)

    assert batch == window[:1]


def test_a_batch_is_within_the_cap_of_calls() -> None:
    """A batch may be full of few calls."""
    window = [part_of(10) for _ in range(4)]

    batch = choose_alike(window, Caps(calls=2, items=4, size=1000))

    assert batch == window[:2]


def test_a_part_that_was_overtaken_often_goes_first() -> None:
    """No part waits for ever because of an unusual length."""
    window = [part_of(length) for length in (10, 200, 10, 10, 10, 10)]
    window[1].overtaken = MAX_OVERTAKEN

    batch = choose_alike(window, CAPS)

    assert window[1] in batch


def test_only_batches_with_younger_parts_overtake() -> None:
    """A part that simply came later has not been overtaken."""
    window = [part_of(length) for length in (10, 200, 10, 10, 10, 300)]

    choose_alike(window, CAPS)

    assert [part.overtaken for part in window] == [0, 1, 0, 0, 0, 0]


@given(
    arrivals=st.lists(
        st.lists(
            st.tuples(st.sampled_from([5, 10, 50, 200]), st.integers(1, 4)), max_size=9
        ),
        max_size=30,
    )
)
def test_no_part_is_overtaken_by_more_than_a_few_batches(
    arrivals: list[list[tuple[int, int]]],
) -> None:
    """Whatever comes, and in whichever order, each part leaves."""
    queue: list[Part] = []
    passed_by: dict[Part, int] = {}

    for newcomers in [*arrivals, *[[]] * 300]:
        queue += [part_of(length, items) for length, items in newcomers]
        if not queue:
            continue
        oldest = queue[0]
        batch = choose_alike(queue, CAPS)
        queue = [part for part in queue if part not in batch]
        youngest = max(part.priority for part in batch)
        for part in queue:
            passed_by[part] = passed_by.get(part, 0) + (part.priority < youngest)
        assert oldest in batch
        assert sum(len(part.items) for part in batch) <= CAPS.items

    assert not queue
    assert max(passed_by.values(), default=0) <= MAX_OVERTAKEN


def test_a_short_queue_leaves_as_it_came() -> None:
    """Where one batch takes all, there is nothing to choose."""
    proxy = harness(items=4, slots=1, packs=True)
    proxy.submit("busy")
    for text in ("x" * 50, "a", "x" * 60):
        proxy.submit(text)

    proxy.upstream.sent[0].answer()

    assert proxy.upstream.batches[1] == ["x" * 50, "a", "x" * 60]


def test_rows_still_go_to_their_owners() -> None:
    """Items are sent by length, and every caller gets its own."""
    proxy = harness(items=4, slots=1, budget=4, packs=True)
    first = proxy.submit("busy", "busy", "busy", "busy")
    calls = [proxy.submit("x" * size, "y" * (90 - size)) for size in range(5, 85, 5)]

    while proxy.upstream.open:
        proxy.upstream.open[0].answer()

    assert first.is_right
    assert all(call.is_right for call in calls)
    assert proxy.is_at_rest
    by_length = [len(text) for text in proxy.upstream.batches[1]]
    assert by_length == sorted(by_length)


def test_without_packing_what_comes_first_leaves_first() -> None:
    """The operator can turn it off."""
    proxy = harness(items=2, slots=1, budget=2, packs=False)
    proxy.submit("busy", "busy")
    texts = ["x" * 50, "a", "x" * 60, "b"]
    for text in texts:
        proxy.submit(text)

    while proxy.upstream.open:
        proxy.upstream.open[0].answer()

    assert proxy.upstream.batches[1:] == [texts[:2], texts[2:]]
