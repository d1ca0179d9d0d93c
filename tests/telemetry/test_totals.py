"""What has happened since the start, and in the last hour."""

from collections.abc import Iterable
from itertools import accumulate, pairwise

import attrs
import pytest
from attrs import define, evolve, field
from hypothesis import given
from hypothesis import strategies as st

from abproxy.telemetry.totals import Totals, Window

MINUTE, HOUR, NIGHT = 60, 3600, 9 * 3600

counts = st.integers(0, 1000)
gaps = st.sampled_from([0, 1, 30, 59, 60, 61, 600, 3539, 3540, 3600, 3660, 7200])
numbers = st.fixed_dictionaries({each.name: counts for each in attrs.fields(Totals)})


@define
class Book:
    """A proxy that only counts its calls."""

    totals: Totals = field(factory=Totals)
    past: Window = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.past = Window(now=lambda: evolve(self.totals))

    def call(self, at: float, times: int = 1) -> None:
        """Count a call, or many of them, at one moment."""
        self.totals.at = at
        self.past.note(at)
        self.totals.calls += times

    def calls(self, moments: Iterable[float]) -> None:
        """Count a call at each of these *moments*."""
        for at in moments:
            self.call(at)

    def look(self, at: float) -> Totals:
        """Ask what happened lately."""
        self.totals.at = at
        return self.past.lately()


def test_at_first_lately_is_all_there_was() -> None:
    """A proxy that is ten minutes old has no last hour yet."""
    book = Book()
    book.call(at=10)
    book.call(at=500)

    lately = book.look(at=600)

    assert (lately.calls, lately.at) == (2, 600)


def test_what_is_older_than_an_hour_is_forgotten() -> None:
    """Yesterday's trouble is not today's."""
    book = Book()
    book.call(at=10, times=100)
    book.call(at=HOUR)

    lately = book.look(at=HOUR + 2 * MINUTE)

    assert lately.calls == 1


def test_after_a_quiet_night_the_time_counts_from_the_first_call() -> None:
    """Half an hour of load is not made small by hours in which nothing was asked."""
    book = Book()
    book.call(at=10, times=100)

    book.call(at=NIGHT)
    lately = book.look(at=NIGHT + 1800)

    assert (lately.calls, lately.at) == (1, 1800)


def test_after_a_quiet_hour_nothing_is_lately() -> None:
    """Whoever looks in the morning does not see last evening."""
    book = Book()
    book.call(at=10, times=100)

    lately = book.look(at=NIGHT)

    assert lately.calls == 0


def test_a_week_of_calls_leaves_an_hour_of_copies() -> None:
    """What is remembered is bounded, though nobody looks."""
    book = Book()

    book.calls(range(0, 7 * 24 * HOUR, 10))

    assert len(book.past._copies) <= HOUR / MINUTE + 1


@given(gaps=st.lists(gaps, max_size=100), pause=gaps)
def test_lately_holds_the_last_hour_and_hardly_more(
    gaps: list[int], pause: int
) -> None:
    """Every call of the last hour, and none older than an hour and a minute."""
    book = Book()
    calls_at = list(accumulate(gaps))
    now = sum(gaps) + pause

    book.calls(calls_at)
    lately = book.look(now)

    least = sum(at >= now - HOUR for at in calls_at)
    most = sum(at > now - HOUR - MINUTE for at in calls_at)
    assert least <= lately.calls <= most
    assert 0 <= lately.at <= HOUR + MINUTE


@given(gaps=st.lists(st.integers(1, MINUTE), min_size=100, max_size=200))
def test_under_steady_load_lately_is_about_an_hour(gaps: list[int]) -> None:
    """Give or take a minute; or all there was, if that is less."""
    book = Book()

    book.calls(accumulate(gaps))
    lately = book.look(sum(gaps))

    assert min(sum(gaps), HOUR - MINUTE) <= lately.at <= HOUR + MINUTE


@given(steps=st.lists(numbers, min_size=2, max_size=5))
def test_differences_add_up_and_are_never_negative(
    steps: list[dict[str, int]],
) -> None:
    """What happened in two periods happened in both of them together."""
    moments = list(accumulate(steps, _both))
    copies = [Totals(**moment) for moment in moments]

    periods = [attrs.asdict(new.minus(old)) for old, new in pairwise(copies)]
    whole = attrs.asdict(copies[-1].minus(copies[0]))

    assert [*accumulate(periods, _both)][-1] == whole
    assert min(min(period.values()) for period in periods) >= 0


def _both(one: dict[str, int], other: dict[str, int]) -> dict[str, int]:
    return {name: one[name] + other[name] for name in one}


def test_a_request_carries_so_many_calls() -> None:
    """Those included that find a bad input or try again."""
    totals = Totals(parts=120, requests=40)

    assert totals.calls_per_request == 3


def test_without_requests_nothing_was_carried() -> None:
    """A proxy that has just started divides by nothing."""
    assert Totals().calls_per_request == 0
    assert Totals().share_of_time(0.0) == 0


def test_seconds_are_a_share_of_the_time_in_which_they_were_counted() -> None:
    """A quarter of an hour of waiting is a quarter of an hour's time."""
    assert Totals(at=HOUR).share_of_time(HOUR / 4) == 0.25


@pytest.mark.parametrize(
    ("batches", "expected"), [(19, None), (20, 2.5)], ids=["too few", "enough"]
)
def test_twenty_batches_tell_what_an_input_costs(
    batches: int, expected: float | None
) -> None:
    """Fewer of a kind give no figure for it, alone as in company."""
    alone = Totals(alone_batches=batches, alone_items=40, alone_s=0.1)
    shared = Totals(shared_batches=batches, shared_items=800, shared_s=2.0)

    assert alone.alone_ms_per_item == expected
    assert shared.shared_ms_per_item == expected
