"""How many inputs are accepted, and in which order they are computed."""

from collections.abc import Callable
from typing import Any

import pytest
from twisted.internet.defer import CancelledError, Deferred

from abproxy_model.errors import OverloadedError
from abproxy_model.inference import Permits, WorkQueue
from abproxy_model.model import Model
from abproxy_model.settings import Settings
from support.recorded import exchanges

FOUR = b'{"inputs":["a","b","c","d"]}'
TWO = b'{"inputs":["a","b"]}'
OVERLOADED = next(each for each in exchanges() if each.name == "overloaded")


def test_a_request_without_all_its_permits_takes_none() -> None:
    """One permit missing refuses the whole request."""
    permits = Permits(total=8)

    with permits.hold(6), pytest.raises(OverloadedError), permits.hold(3):
        pass

    assert permits.taken == 0


@pytest.fixture
def server(static: Model, serve: Callable[..., Any], held: Any) -> Any:
    """Give a server with eight permits whose model is busy."""
    return serve(static, Settings(max_concurrent_requests=8), held)


def test_inputs_are_counted_and_not_requests(server: Any) -> None:
    """Two requests of four inputs fill eight permits; the third is refused."""
    server.send("POST", "/embed", FOUR, content_type="application/json")
    server.send("POST", "/embed", FOUR, content_type="application/json")

    refused = server.post("/embed", TWO)

    assert refused.status == OVERLOADED.status
    assert refused.body == OVERLOADED.reply_body


def test_an_answer_gives_its_permits_back(server: Any, held: Any) -> None:
    """What was answered no longer counts."""
    server.send("POST", "/embed", FOUR, content_type="application/json")
    held.finish()
    server.treq.flush()

    assert server.answers[0].status == 200
    assert server.application.permits.taken == 0


def test_a_refusal_gives_its_permits_back(server: Any, held: Any) -> None:
    """An input that cannot be embedded holds nothing."""
    body = b'{"inputs":["a",""]}'
    server.send("POST", "/embed", body, content_type="application/json")
    held.finish()
    server.treq.flush()

    assert server.answers[0].status == 400
    assert server.application.permits.taken == 0


def test_a_client_that_left_gives_its_permits_back(server: Any, held: Any) -> None:
    """A request whose client is gone is neither counted nor computed."""
    server.send("POST", "/embed", FOUR, content_type="application/json")
    gone = server.send("POST", "/embed", FOUR, content_type="application/json")
    gone.cancel()
    server.treq.flush()

    assert server.application.permits.taken == 4
    held.finish()
    server.treq.flush()
    assert held.work == []
    assert (
        b"abproxy_model_dropped_total 1.0" in server.ask("GET", "/metrics", None).body
    )


def test_work_is_done_in_the_order_it_came(held: Any) -> None:
    """One piece of work at a time, first come, first served."""
    queue = WorkQueue(run=held)
    results: list[str] = []
    for name in "abc":
        queue.submit(lambda name=name: name).addCallback(results.append)  # type: ignore[misc]

    assert len(held.work) == 1
    held.finish()
    held.finish()
    held.finish()

    assert results == ["a", "b", "c"]


def test_work_for_a_client_that_left_is_not_done(held: Any) -> None:
    """Cancelled work is dropped when its turn comes."""
    queue = WorkQueue(run=held)
    done: list[str] = []
    queue.submit(lambda: done.append("first"))
    gone = queue.submit(lambda: done.append("gone"))
    queue.submit(lambda: done.append("last"))

    gone.addErrback(lambda failure: failure.trap(CancelledError))
    gone.cancel()
    held.finish()
    held.finish()

    assert done == ["first", "last"]


def test_a_result_for_a_client_that_left_is_thrown_away(held: Any) -> None:
    """Cancelling work that has begun does not stop what comes after it."""
    queue = WorkQueue(run=held)
    results: list[str] = []
    begun: Deferred[Any] = queue.submit(lambda: "begun")
    queue.submit(lambda: "next").addCallback(results.append)

    begun.addErrback(lambda failure: failure.trap(CancelledError))
    begun.cancel()
    held.finish()
    held.finish()

    assert results == ["next"]


def test_the_size_of_the_queue_is_what_still_waits(held: Any) -> None:
    """What is being done, or whose client left, does not count as waiting."""
    queue = WorkQueue(run=held)
    queue.submit(lambda: None, size=1)
    gone = queue.submit(lambda: None, size=2)
    queue.submit(lambda: None, size=4)

    gone.addErrback(lambda failure: failure.trap(CancelledError))
    gone.cancel()

    assert queue.size == 4


def test_failed_work_fails_its_own_waiter_only(held: Any) -> None:
    """A mistake in one piece of work reaches its own client."""
    queue = WorkQueue(run=held)
    results: list[Any] = []
    queue.submit(lambda: 1 // 0).addErrback(
        lambda failure: results.append(failure.type)
    )
    queue.submit(lambda: "fine").addCallback(results.append)

    held.finish()
    held.finish()

    assert results == [ZeroDivisionError, "fine"]
