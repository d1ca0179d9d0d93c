"""The last batches and the last errors, for somebody who looks."""

from abproxy.events import BatchSent, FlushReason
from abproxy.telemetry.recent import (
    BATCHES,
    ERRORS,
    RecentBatch,
    RecentError,
    RecentLog,
)

BATCH = BatchSent(
    route="/embed",
    reason=FlushReason.TIMER,
    items=3,
    size=12,
    fill=0.1,
    waits_s=[0.02, 0.0012345],
    in_flight=1,
    lanes_left=0,
    is_personal=False,
)


def _come_back(recently: RecentLog, count: int) -> None:
    for _ in range(count):
        recently.batch(0.0, BATCH, 0.001)


def _go_wrong(recently: RecentLog, count: int) -> None:
    for number in range(count):
        recently.error(float(number), f"reason {number}", "")


def test_batches_are_numbered_from_one() -> None:
    """So that a reader can ask for those that it has not seen."""
    recently = RecentLog()

    _come_back(recently, 3)

    assert [batch.serial for batch in recently.batches()] == [1, 2, 3]
    assert [batch.serial for batch in recently.batches(since=2)] == [3]


def test_a_batch_is_written_for_people() -> None:
    """The wait is that of its oldest call, and times are in ms."""
    recently = RecentLog()

    recently.batch(5.0, BATCH, 0.0304567)

    assert list(recently.batches()) == [
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
    recently = RecentLog()

    recently.batch(5.0, BATCH, None)

    [batch] = recently.batches()
    assert batch.upstream_ms is None


def test_only_the_last_batches_are_kept() -> None:
    """The past belongs to whoever collects metrics."""
    recently = RecentLog()

    _come_back(recently, BATCHES + 10)

    serials = [batch.serial for batch in recently.batches()]
    assert serials == [*range(11, BATCHES + 11)]


def test_only_the_last_errors_are_kept() -> None:
    """However many go wrong in different ways."""
    recently = RecentLog()

    _go_wrong(recently, ERRORS + 10)

    assert len(recently.errors) == ERRORS
    assert recently.errors[0].reason == "reason 10"


def test_an_error_that_repeats_itself_is_one_line() -> None:
    """With how often it came, when last, and what it said then."""
    recently = RecentLog()

    recently.error(1.0, "rate", "wait 1 second")
    recently.error(2.0, "rate", "wait 2 seconds")

    [error] = recently.errors
    expected = RecentError(at=2.0, reason="rate", message="wait 2 seconds", times=2)
    assert error == expected


def test_another_error_is_another_line() -> None:
    """An error that comes again after another one begins anew."""
    recently = RecentLog()

    recently.error(1.0, "rate", "")
    recently.error(2.0, "deadline", "")
    recently.error(3.0, "rate", "")

    told = [(error.reason, error.times) for error in recently.errors]
    assert told == [("rate", 1), ("deadline", 1), ("rate", 1)]
