"""What has happened: since the start, in the last hour, and one by one."""

from collections.abc import Iterable
from itertools import accumulate, pairwise

import attrs
import pytest
from attrs import define, evolve, field
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock

from abproxy.events import BatchSent, BlockedBy, FlushReason
from abproxy.telemetry.history import (
    BATCHES,
    ERRORS,
    BlockedTime,
    RecentBatch,
    RecentError,
    RecentLog,
    Totals,
    Window,
)

MINUTE, HOUR, NIGHT = 60, 3600, 9 * 3600

counts = st.integers(0, 1000)
gaps = st.sampled_from([0, 1, 30, 59, 60, 61, 600, 3539, 3540, 3600, 3660, 7200])
numbers = st.fixed_dictionaries({each.name: counts for each in attrs.fields(Totals)})


@define
class Book:
    """A proxy that only counts its calls."""

    totals: Totals = field(factory=Totals)
    window: Window = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.window = Window(now=lambda: evolve(self.totals))

    def call(self, at: float, times: int = 1) -> None:
        """Count a call, or many of them, at one moment."""
        self.totals.at = at
        self.window.note(at)
        self.totals.calls += times

    def calls(self, moments: Iterable[float]) -> None:
        """Count a call at each of these *moments*."""
        for at in moments:
            self.call(at)

    def look(self, at: float) -> Totals:
        """Ask what happened lately."""
        self.totals.at = at
        return self.window.lately()


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
    """In the morning last evening is not seen."""
    book = Book()
    book.call(at=10, times=100)

    lately = book.look(at=NIGHT)

    assert lately.calls == 0


def test_a_week_of_calls_leaves_an_hour_of_copies() -> None:
    """What is remembered is bounded, also while nothing is asked for."""
    book = Book()

    book.calls(range(0, 7 * 24 * HOUR, 10))

    assert len(book.window._copies) <= HOUR / MINUTE + 1


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
    """Fewer of a kind give no figure for it, alone as shared."""
    alone = Totals(alone_batches=batches, alone_items=40, alone_s=0.1)
    shared = Totals(shared_batches=batches, shared_items=800, shared_s=2.0)

    assert alone.alone_ms_per_item == expected
    assert shared.shared_ms_per_item == expected


BATCH = BatchSent(
    route="/embed",
    reason=FlushReason.TIMER,
    parts=2,
    items=3,
    size=12,
    fill=0.1,
    waits_s=[0.02, 0.0012345],
    in_flight=1,
    lanes_left=0,
    is_personal=False,
)


def _come_back(recent: RecentLog, count: int) -> None:
    for _ in range(count):
        recent.batch(0.0, BATCH, 0.001)


def _go_wrong(recent: RecentLog, count: int) -> None:
    for number in range(count):
        recent.error(float(number), f"reason {number}", "")


def test_batches_are_numbered_from_one() -> None:
    """So that a reader can ask for those that it has not seen."""
    recent = RecentLog()

    _come_back(recent, 3)

    assert [batch.serial for batch in recent.batches()] == [1, 2, 3]
    assert [batch.serial for batch in recent.batches(since=2)] == [3]


def test_a_batch_is_written_for_people() -> None:
    """The wait is that of its oldest call, and times are in ms."""
    recent = RecentLog()

    recent.batch(5.0, BATCH, 0.0304567)

    assert list(recent.batches()) == [
        RecentBatch(
            serial=1,
            at=5.0,
            route="/embed",
            reason="timer",
            calls=2,
            items=3,
            wait_ms=20.0,
            upstream_ms=30.457,
        )
    ]


def test_a_batch_that_was_not_answered_has_no_time() -> None:
    """None is not 0."""
    recent = RecentLog()

    recent.batch(5.0, BATCH, None)

    [batch] = recent.batches()
    assert batch.upstream_ms is None


def test_only_the_last_batches_are_kept() -> None:
    """Longer series belong to what collects the metrics."""
    recent = RecentLog()

    _come_back(recent, BATCHES + 10)

    serials = [batch.serial for batch in recent.batches()]
    assert serials == [*range(11, BATCHES + 11)]


def test_only_the_last_errors_are_kept() -> None:
    """However many go wrong in different ways."""
    recent = RecentLog()

    _go_wrong(recent, ERRORS + 10)

    assert len(recent.errors) == ERRORS
    assert recent.errors[0].reason == "reason 10"


def test_an_error_that_repeats_itself_is_one_line() -> None:
    """With how often it came, when last, and what it said then."""
    recent = RecentLog()

    recent.error(1.0, "rate", "wait 1 second")
    recent.error(2.0, "rate", "wait 2 seconds")

    [error] = recent.errors
    expected = RecentError(at=2.0, reason="rate", message="wait 2 seconds", times=2)
    assert error == expected


def test_another_error_is_another_line() -> None:
    """An error that comes again after another one begins anew."""
    recent = RecentLog()

    recent.error(1.0, "rate", "")
    recent.error(2.0, "deadline", "")
    recent.error(3.0, "rate", "")

    told = [(error.reason, error.times) for error in recent.errors]
    assert told == [("rate", 1), ("deadline", 1), ("rate", 1)]


CAUSES = list(BlockedBy)

changes = st.tuples(st.floats(0, 1000), st.sampled_from(CAUSES))


def test_at_first_nothing_is_in_the_way() -> None:
    """A proxy without calls is blocked by nothing."""
    clock = Clock()
    blocked_time = BlockedTime(clock=clock)

    clock.advance(5)

    assert blocked_time.blocked_by is BlockedBy.NOTHING
    assert blocked_time.seconds(BlockedBy.NOTHING) == 5
    assert blocked_time.seconds(BlockedBy.SLOT) == 0


def test_what_blocks_counts_while_it_does() -> None:
    """Its seconds grow up to the moment at which they are read."""
    clock = Clock()
    blocked_time = BlockedTime(clock=clock)
    blocked_time.change(BlockedBy.SLOT)

    clock.advance(2)
    early = blocked_time.seconds(BlockedBy.SLOT)
    clock.advance(1)

    assert early == 2
    assert blocked_time.seconds(BlockedBy.SLOT) == 3


def test_what_blocks_no_longer_counts_no_more() -> None:
    """Its seconds stay as they are until it comes again."""
    clock = Clock()
    blocked_time = BlockedTime(clock=clock)
    blocked_time.change(BlockedBy.BUDGET)
    clock.advance(2)
    blocked_time.change(BlockedBy.UPSTREAM)

    clock.advance(10)
    blocked_time.change(BlockedBy.BUDGET)
    clock.advance(1)

    assert blocked_time.blocked_by is BlockedBy.BUDGET
    assert blocked_time.seconds(BlockedBy.BUDGET) == 3
    assert blocked_time.seconds(BlockedBy.UPSTREAM) == 10


@given(story=st.lists(changes, max_size=30), rest=st.floats(0, 1000))
def test_all_seconds_add_up_to_the_time_that_passed(
    story: list[tuple[float, BlockedBy]], rest: float
) -> None:
    """There is one cause at any moment, be it none."""
    clock = Clock()
    blocked_time = BlockedTime(clock=clock)

    _live_through(story, clock, blocked_time)
    clock.advance(rest)

    seconds = [blocked_time.seconds(obstacle) for obstacle in CAUSES]
    assert sum(seconds) == pytest.approx(clock.seconds())
    assert min(seconds) >= 0


def _live_through(
    story: list[tuple[float, BlockedBy]], clock: Clock, blocked_time: BlockedTime
) -> None:
    for seconds, obstacle in story:
        clock.advance(seconds)
        blocked_time.change(obstacle)
