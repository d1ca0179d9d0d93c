"""A call that finds nothing in flight leaves as it comes, unless it may not leave."""

from msgspec.structs import replace
from twisted.internet.defer import Deferred

from abproxy.errors import ConnectionBroken
from support.batching import Outcome, call_of, harness, texts


def test_a_lone_call_leaves_no_trace_in_the_queue() -> None:
    """It is neither counted nor looked for later."""
    proxy = harness()

    proxy.submit("a")

    assert proxy.upstream.batches == [["a"]]
    assert not proxy.collector.admission.items
    assert not proxy.collector.queue.lanes
    assert not proxy.clock.getDelayedCalls()


def test_a_lone_call_waits_for_the_end_of_a_pause() -> None:
    """Also if the call that was refused has left."""
    proxy = harness()
    refused = proxy.submit("refused")
    proxy.upstream.open[0].refuse(503)
    refused.done.cancel()

    call = proxy.submit("a")
    at_once = proxy.upstream.open
    proxy.clock.advance(0.05)
    proxy.upstream.open[0].answer()

    assert at_once == []
    assert call.is_right


def test_a_lone_call_waits_while_its_lane_is_out() -> None:
    """The next probe is due a second after the last."""
    proxy = harness(slots=1)
    for text in texts(3):
        proxy.submit(text)
    while proxy.upstream.open:
        proxy.upstream.open[0].refuse(500, b"broken")

    call = proxy.submit("a")
    at_once = proxy.upstream.open
    proxy.clock.advance(1)
    proxy.upstream.open[0].answer()

    assert at_once == []
    assert call.is_right


def test_a_lone_call_waits_for_what_is_about_to_be_sent_alone() -> None:
    """It would be in flight beside a part that may break the upstream."""
    proxy = harness()
    asked: Deferred[bool] = Deferred()
    proxy.collector.quarantine.is_alive = lambda: asked
    proxy.submit("suspect")
    proxy.upstream.open[0].fail(ConnectionBroken("closed"))
    proxy.upstream.open[0].fail(ConnectionBroken("closed"))

    proxy.submit("a")
    before = proxy.upstream.open
    asked.callback(True)

    assert before == []
    assert [sent.inputs for sent in proxy.upstream.open] == [["suspect"]]


def test_a_lone_call_larger_than_the_room_is_split() -> None:
    """So much would not be answered in time."""
    proxy = harness()
    proxy.collector.budget.in_time.missed(8, deadline_s=1)

    call = proxy.submit(*texts(6))
    first = proxy.upstream.batches
    while proxy.upstream.open:
        proxy.upstream.open[0].answer()

    assert first == [texts(4)]
    assert call.is_right


def test_a_lone_call_that_comes_back_is_the_oldest() -> None:
    """As if it had been in the queue before those that came meanwhile."""
    proxy = harness(slots=1)
    proxy.submit("first")
    proxy.submit("second")

    proxy.upstream.open[0].refuse(503)
    proxy.clock.advance(0.05)

    assert proxy.upstream.batches == [["first"], ["first", "second"]]


def test_a_bulk_call_that_comes_back_is_behind_others() -> None:
    """It was sent at once as nothing else was there, and now something is."""
    proxy = harness(slots=1)
    bulk = call_of("bulk")
    bulk = replace(bulk, lane_key=replace(bulk.lane_key, is_bulk=True))
    Outcome(bulk, proxy.collector.submit(bulk))
    proxy.submit("query")

    proxy.upstream.open[0].refuse(503)
    proxy.clock.advance(0.05)

    assert proxy.upstream.batches == [["bulk"], ["query"]]
