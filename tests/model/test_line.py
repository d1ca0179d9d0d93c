"""The line in front of the model."""

from typing import Any

from twisted.internet.defer import CancelledError, Deferred

from abproxy_model.line import Line


def test_work_is_done_in_the_order_it_came(held: Any) -> None:
    """One piece of work at a time, first come, first served."""
    line = Line(run=held)
    results: list[str] = []
    for name in "abc":
        line.submit(lambda name=name: name).addCallback(results.append)  # type: ignore[misc]

    assert len(held.work) == 1
    held.finish()
    held.finish()
    held.finish()

    assert results == ["a", "b", "c"]


def test_work_for_a_client_that_left_is_not_done(held: Any) -> None:
    """Cancelled work is dropped when its turn comes."""
    line = Line(run=held)
    done: list[str] = []
    line.submit(lambda: done.append("first"))
    gone = line.submit(lambda: done.append("gone"))
    line.submit(lambda: done.append("last"))

    gone.addErrback(lambda failure: failure.trap(CancelledError))
    gone.cancel()
    held.finish()
    held.finish()

    assert done == ["first", "last"]


def test_a_result_for_a_client_that_left_is_thrown_away(held: Any) -> None:
    """Cancelling work that has begun stops nobody behind it."""
    line = Line(run=held)
    results: list[str] = []
    begun: Deferred[Any] = line.submit(lambda: "begun")
    line.submit(lambda: "next").addCallback(results.append)

    begun.addErrback(lambda failure: failure.trap(CancelledError))
    begun.cancel()
    held.finish()
    held.finish()

    assert results == ["next"]


def test_the_size_of_the_line_is_what_still_waits(held: Any) -> None:
    """What is being done, or whose client left, does not count as waiting."""
    line = Line(run=held)
    line.submit(lambda: None, size=1)
    gone = line.submit(lambda: None, size=2)
    line.submit(lambda: None, size=4)

    gone.addErrback(lambda failure: failure.trap(CancelledError))
    gone.cancel()

    assert line.size == 4


def test_failed_work_fails_its_own_waiter_only(held: Any) -> None:
    """A mistake in one piece of work reaches its own client."""
    line = Line(run=held)
    results: list[Any] = []
    line.submit(lambda: 1 // 0).addErrback(lambda failure: results.append(failure.type))
    line.submit(lambda: "fine").addCallback(results.append)

    held.finish()
    held.finish()

    assert results == [ZeroDivisionError, "fine"]
