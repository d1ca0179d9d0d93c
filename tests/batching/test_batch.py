"""What happens to the calls of a batch when the upstream has its say."""

from typing import Any

import pytest
from twisted.internet.defer import CancelledError, Deferred

from abproxy.dialects.tei import JSONRoute
from abproxy.errors import (
    ConnectionBroken,
    InternalError,
)
from support.batching import harness, texts
from support.upstream import reply, row_of


def _together(number: int, **more: Any):  # noqa: ANN202
    """Make *number* calls that share one batch."""
    proxy = harness(calls=number, max_wait_s=1, **more)
    calls = [proxy.submit(text) for text in texts(number)]
    [sent] = proxy.upstream.sent
    return proxy, calls, sent


def test_a_lone_call_is_sent_and_answered_untouched() -> None:
    """Alone in its batch, a call is a plain pass-through."""
    proxy = harness()
    call = proxy.submit("a")
    [sent] = proxy.upstream.sent

    sent.done.callback(reply(200, b" [[ 1.50 ]]\n", (b"X-Compute-Tokens", b"3")))

    assert sent.request is call.call.alone
    assert call.reply.body == b" [[ 1.50 ]]\n"
    assert call.reply.headers == ((b"X-Compute-Tokens", b"3"),)


def test_digits_are_cut_and_never_rounded() -> None:
    """A row has the very bytes that the upstream wrote."""
    _proxy, [one, two], sent = _together(2)

    sent.done.callback(reply(200, b"[[0.10000000149011612,-0.0],[1e-7]]"))

    assert one.reply.body == b"[[0.10000000149011612,-0.0]]"
    assert two.reply.body == b"[[1e-7]]"


def test_headers_of_a_shared_answer_speak_of_the_call() -> None:
    """Counts of the batch are counted for the call, or left out."""
    _proxy, [one, _], sent = _together(2)

    sent.done.callback(
        reply(
            200,
            b"[[1],[2]]",
            (b"X-Compute-Characters", b"99"),
            (b"X-Compute-Tokens", b"99"),
            (b"Vary", b"origin"),
        )
    )

    assert one.reply.headers == (
        (b"Vary", b"origin"),
        (b"X-Compute-Characters", b"2"),
        (b"Server-Timing", b'queue;dur=0.0, upstream;dur=0.0, batch;desc="2 calls"'),
    )


def test_after_a_broken_connection_the_calls_are_sent_again() -> None:
    """An idle connection may close just as it is used; no caller is told."""
    proxy, calls, sent = _together(4)

    sent.fail(ConnectionBroken("closed"))
    halves = [each.inputs for each in proxy.upstream.open]
    for each in proxy.upstream.open:
        each.answer()

    assert halves == [["t0", "t1"], ["t2", "t3"]]
    assert all(call.is_right for call in calls)
    assert proxy.is_at_rest


def test_a_bug_leaves_no_caller_without_an_answer(nothing_leaked: list[object]) -> None:
    """An unexpected exception is logged and answered, and the slot returns."""
    proxy, calls, sent = _together(2)

    sent.fail(RuntimeError("bug"))

    assert all(isinstance(call.error, InternalError) for call in calls)
    assert proxy.is_at_rest
    assert len(nothing_leaked) == 1
    nothing_leaked.clear()


def test_a_caller_who_left_while_waiting_is_not_sent() -> None:
    """The upstream never sees an input that no caller waits for."""
    proxy = harness(calls=3, max_wait_s=1)
    gone, stays = proxy.submit("gone"), proxy.submit("stays")

    gone.done.cancel()
    proxy.clock.advance(1)
    proxy.upstream.sent[0].answer()

    assert proxy.upstream.batches == [["stays"]]
    assert stays.is_right
    assert isinstance(gone.error, CancelledError)
    assert proxy.is_at_rest


def test_a_batch_without_callers_is_no_batch() -> None:
    """When all have left, the timer goes as well."""
    proxy = harness(max_wait_s=1)
    calls = [proxy.submit("a"), proxy.submit("b")]

    for call in calls:
        call.done.cancel()

    assert proxy.is_at_rest
    assert proxy.upstream.sent == []


def test_the_wait_of_those_who_stay_is_their_own() -> None:
    """If the first caller leaves, the wait counts from the next one."""
    proxy = harness(max_wait_s=1)
    first = proxy.submit("first")
    proxy.clock.advance(0.5)
    proxy.submit("second")

    first.done.cancel()
    proxy.clock.advance(0.5)
    early = list(proxy.upstream.batches)
    proxy.clock.advance(0.5)

    assert early == []
    assert proxy.upstream.batches == [["second"]]


def test_a_caller_who_left_in_flight_harms_no_neighbour() -> None:
    """The row without a caller is thrown away, the others get theirs."""
    proxy, [gone, stays], sent = _together(2)

    gone.done.cancel()
    sent.answer()

    assert stays.is_right
    assert not sent.was_cancelled
    assert proxy.is_at_rest


def test_when_all_callers_have_left_the_request_is_cancelled() -> None:
    """The upstream may stop, and slot and budget return at once."""
    proxy, calls, sent = _together(2)

    for call in calls:
        call.done.cancel()

    assert sent.was_cancelled
    assert proxy.is_at_rest


def test_when_all_callers_have_left_nothing_is_counted_for_them(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What the rows cost is asked in a request of its own, which ends as well."""
    counting: Deferred[list[list[int]]] = Deferred()

    async def count(*_arguments: Any) -> list[list[int]]:
        return await counting

    proxy, calls, sent = _together(2, count=count)
    monkeypatch.setattr(JSONRoute, "has_usage", True)
    sent.answer()

    for call in calls:
        call.done.cancel()

    assert counting.called
    assert proxy.is_at_rest


def test_a_large_call_takes_all_its_parts_along() -> None:
    """Leaving with parts in flight, in the queue and not even queued."""
    proxy = harness(items=4, budget=8)
    call = proxy.submit(*texts(40))

    call.done.cancel()

    assert all(sent.was_cancelled for sent in proxy.upstream.sent)
    assert len(proxy.upstream.sent) == 2
    assert proxy.is_at_rest


def test_leaving_during_isolation_cancels_that_half_only() -> None:
    """Halves of a refused batch have callers of their own."""
    proxy, [one, two], sent = _together(2)
    sent.refuse()

    one.done.cancel()
    proxy.upstream.open[0].answer()

    assert two.rows == [row_of("t1")]
    assert proxy.is_at_rest
