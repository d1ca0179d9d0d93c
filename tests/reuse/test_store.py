"""What is remembered in memory."""

import tracemalloc
from secrets import token_bytes

from hypothesis import given
from hypothesis import strategies as st

from abproxy.reuse.store import OVERHEAD, SMALL, Store

SIZE = 1000 + OVERHEAD


def stored(most: int) -> Store[int]:
    """Make room for *most* values of 1,000 bytes."""
    return Store(max_size=most * SIZE)


def put(store: Store[int], *numbers: int) -> None:
    """Keep numbers, as values of 1,000 bytes that never expire."""
    for number in numbers:
        store.put(b"%d" % number, number, 1000, 1e9)


def found(store: Store[int], *numbers: int) -> list[int]:
    """Return which of *numbers* are there."""
    return [number for number in numbers if store.get(b"%d" % number, 0) is not None]


def test_a_value_is_found_until_it_expires() -> None:
    """And no longer."""
    store = stored(20)
    store.put(b"a", 1, 10, expires_at=5)
    assert store.get(b"a", 4.9) == 1
    assert store.get(b"a", 5) is None


def test_a_value_that_is_put_again_is_the_new_one() -> None:
    """With its own size and time."""
    store = stored(20)
    store.put(b"a", 1, 10, expires_at=5)
    store.put(b"a", 2, 30, expires_at=9)
    assert store.get(b"a", 6) == 2
    assert store.size == 30 + OVERHEAD
    assert len(store) == 1


def test_what_is_asked_for_again_outlives_a_scan() -> None:
    """An import of many texts does not push out the usual queries."""
    store = stored(100)
    put(store, *range(50))
    assert found(store, *range(50))
    put(store, *range(1000, 3000))
    assert found(store, *range(50)) == list(range(50))


def test_what_is_not_asked_for_makes_room() -> None:
    """Also if it was popular once."""
    store = stored(100)
    put(store, *range(50))
    found(store, *range(50))
    for number in range(1000, 3000):
        put(store, number)
        found(store, number)
    assert len(found(store, *range(50))) == 0


def test_a_value_that_comes_back_soon_is_kept() -> None:
    """A key that was dropped lately goes where the popular ones are."""
    store = stored(100)
    put(store, *range(110))
    assert not found(store, 0)
    put(store, 0)
    put(store, *range(1000, 1300))
    assert found(store, 0)


def test_one_value_does_not_push_out_the_others() -> None:
    """It is not kept if it takes more than a part of the room."""
    store = stored(10)
    put(store, 1)
    store.put(b"huge", 2, 10 * SIZE // SMALL + 1, 1e9)
    assert store.get(b"huge", 0) is None
    assert found(store, 1)


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 900), st.booleans())))
def test_there_is_never_more_than_allowed(steps: list[tuple[int, int, bool]]) -> None:
    """And what is found was put there under that key."""
    store: Store[int] = Store(max_size=20 * OVERHEAD)
    known: dict[int, set[int]] = {key: set() for key in range(31)}
    for key, size, is_put in steps:
        if is_put:
            store.put(b"%d" % key, size, size, 1e9)
            known[key].add(size)
        else:
            value = store.get(b"%d" % key, 0)
            assert value is None or value in known[key]
        assert store.size <= store.max_size
    store.clear()
    assert (store.size, len(store)) == (0, 0)


def test_the_size_counts_all_that_an_entry_takes() -> None:
    """The limit is one of the process's memory, not of its values alone."""
    store: Store[bytes] = Store(max_size=1 << 22)
    tracemalloc.start()
    before, _ = tracemalloc.get_traced_memory()
    for _ in range(20_000):
        store.put(token_bytes(32), token_bytes(500), 500, 1e9)
    after, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert 0.5 < (after - before) / store.size < 1.1
