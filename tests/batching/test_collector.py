"""When a batch leaves, and which calls share it."""

import attrs
import pytest

from abproxy.batching.slots import LearnedSlots
from abproxy.errors import Overloaded, UpstreamTimeout
from support.batching import call_of, harness, texts


def test_a_lone_call_leaves_at_once() -> None:
    """A call that finds the upstream idle pays for no timer."""
    proxy = harness()

    proxy.submit("hello")

    assert proxy.upstream.batches == [["hello"]]
    assert not proxy.clock.getDelayedCalls()


def test_two_calls_of_size_two_leave_as_one_request() -> None:
    """With a cap of two calls, the second one completes the batch."""
    proxy = harness(calls=2, max_wait_s=1)

    first = proxy.submit("hello", "world")
    second = proxy.submit("bye")
    [sent] = proxy.upstream.sent
    sent.answer()

    assert sent.inputs == ["hello", "world", "bye"]
    assert first.is_right
    assert second.is_right
    assert proxy.is_at_rest


def test_a_full_batch_leaves_before_the_timer() -> None:
    """The call that completes a batch does not wait for the timer."""
    proxy = harness(calls=3, max_wait_s=1)

    for text in texts(3):
        proxy.submit(text)

    assert proxy.upstream.batches == [["t0", "t1", "t2"]]
    assert not proxy.clock.getDelayedCalls()


def test_a_batch_leaves_when_its_oldest_part_has_waited() -> None:
    """The wait is counted from the first call in the batch."""
    proxy = harness(max_wait_s=1)

    proxy.submit("a")
    proxy.clock.advance(0.75)
    proxy.submit("b")
    before = list(proxy.upstream.batches)
    proxy.clock.advance(0.25)

    assert before == []
    assert proxy.upstream.batches == [["a", "b"]]


def test_a_trickle_never_extends_the_wait() -> None:
    """Calls that keep arriving do not delay the first one."""
    proxy = harness(calls=100, max_wait_s=1)
    proxy.submit("first")

    for number in range(19):
        proxy.clock.advance(0.05)
        proxy.submit(f"later {number}")
    proxy.clock.advance(0.05)

    assert proxy.upstream.batches[0][0] == "first"
    assert len(proxy.upstream.batches[0]) == 20


def test_under_load_batches_grow_while_the_slots_are_busy() -> None:
    """Without a wait, calls that arrive meanwhile share the next batch."""
    proxy = harness(slots=2)
    for text in texts(6):
        proxy.submit(text)

    before = list(proxy.upstream.batches)
    proxy.upstream.sent[0].answer()

    assert before == [["t0"], ["t1"]]
    assert proxy.upstream.batches[2] == ["t2", "t3", "t4", "t5"]


def test_a_full_batch_needs_no_slot() -> None:
    """Full batches leave as long as the budget has room."""
    proxy = harness(calls=2, slots=1)
    proxy.submit("lone")

    for text in texts(4):
        proxy.submit(text)

    assert proxy.upstream.batches == [["lone"], ["t0", "t1"], ["t2", "t3"]]


def test_items_in_flight_stay_within_the_budget() -> None:
    """What the upstream has no permits for waits here."""
    proxy = harness(calls=2, items=4, budget=8)

    calls = [proxy.submit(*texts(2, f"call {number} ")) for number in range(10)]
    most = 0
    while proxy.upstream.open:
        most = max(most, sum(len(sent.inputs) for sent in proxy.upstream.open))
        proxy.upstream.open[0].answer()

    assert most <= 8
    assert all(call.is_right for call in calls)
    assert proxy.is_at_rest


def test_a_call_larger_than_the_budget_still_leaves() -> None:
    """With nothing in flight there is always room for one batch."""
    proxy = harness(items=32, budget=4)
    proxy.collector.splits = False

    call = proxy.submit(*texts(20))
    proxy.upstream.sent[0].answer()

    assert call.is_right


def test_the_cap_of_items_makes_a_batch_full() -> None:
    """A part that does not fit any more goes with the next batch."""
    proxy = harness(items=4, max_wait_s=1)
    first = proxy.submit(*texts(3, "a"))

    second = proxy.submit(*texts(3, "b"))
    proxy.clock.advance(1)

    assert proxy.upstream.batches == [["a0", "a1", "a2"], ["b0", "b1", "b2"]]
    assert first.is_open
    assert second.is_open


def test_the_cap_of_bytes_makes_a_batch_full() -> None:
    """A batch is not longer than the upstream's limit for bodies."""
    proxy = harness(size=30, max_wait_s=1)

    proxy.submit("x" * 12)
    proxy.submit("y" * 12)

    assert proxy.upstream.batches == [["x" * 12, "y" * 12]]


def test_one_item_over_the_cap_of_bytes_is_sent_alone() -> None:
    """Whether an input is too large is for the upstream to say."""
    proxy = harness(size=30)

    call = proxy.submit("a", "x" * 100, "b")
    while proxy.upstream.open:
        proxy.upstream.open[0].answer()

    assert proxy.upstream.batches == [["a"], ["x" * 100], ["b"]]
    assert call.is_right


def test_lanes_never_share() -> None:
    """Calls with different credentials are sent apart."""
    proxy = harness(slots=1)
    proxy.submit("busy")

    proxy.submit("a", lane="key one")
    proxy.submit("b", lane="key two")
    proxy.submit("c", lane="key one")
    while proxy.upstream.open:
        proxy.upstream.open[0].answer()

    assert proxy.upstream.batches == [["busy"], ["a", "c"], ["b"]]


def test_the_lane_with_the_oldest_part_goes_first() -> None:
    """No lane is overtaken by a busier one."""
    proxy = harness(calls=2, slots=1, budget=2)
    proxy.submit("x", "y")
    proxy.submit("old", lane="quiet")
    proxy.submit("n1", lane="busy")
    proxy.submit("n2", lane="busy")

    proxy.upstream.sent[0].answer()

    assert proxy.upstream.batches[1] == ["old"]


def test_lanes_are_forgotten_when_empty() -> None:
    """A million option sets leave no memory behind."""
    proxy = harness()

    for number in range(100):
        proxy.submit("a", lane=f"lane {number}")
        while proxy.upstream.open:
            proxy.upstream.open[0].answer()

    assert proxy.is_at_rest
    queue = proxy.collector.queue
    assert len(queue.lanes) == 0
    assert len(queue._ready._due._heap) + len(queue._ready._full._heap) <= 1


def test_a_lane_that_opens_again_goes_by_the_limits_of_today() -> None:
    """It was empty when they changed."""
    proxy = harness(items=32, max_wait_s=1)
    proxy.submit("a")
    proxy.clock.advance(1)
    proxy.upstream.open[0].answer()
    proxy.collector.learn(attrs.evolve(proxy.collector.caps, items=2), ceiling=512)

    calls = [proxy.submit(text) for text in "bc"]
    [full] = proxy.upstream.open
    full.answer()

    assert full.request.items == 2
    assert all(call.is_right for call in calls)


def test_nothing_larger_than_a_new_limit_leaves_while_it_is_told() -> None:
    """No lane sends by the old limit while another has the new one."""
    proxy = harness(items=4, budget=4, slots=9)
    proxy.submit(*"abcd", lane="fills the budget")
    proxy.submit("e", lane="one")
    proxy.submit(*"fghijklm", lane="other")
    before = len(proxy.upstream.sent)

    proxy.collector.learn(attrs.evolve(proxy.collector.caps, items=2), ceiling=64)
    sizes = [sent.request.items for sent in proxy.upstream.sent[before:]]
    while proxy.upstream.open:
        proxy.upstream.open[0].answer()

    assert max(sizes) == 2
    assert proxy.is_at_rest


def test_looking_for_expired_calls_does_not_change_how_fast_others_leave() -> None:
    """A caller without room is told when there will be some."""
    proxy = harness(items=8, budget=8, slots=1, max_waiting_items=32)
    for _ in range(3):
        proxy.submit(*texts(8))
    told = []
    for _ in range(6):
        proxy.clock.pump([1] * 3)
        proxy.upstream.open[0].answer()
        proxy.submit(*texts(8))
        with pytest.raises(Overloaded) as refused:
            proxy.submit(*texts(8))
        told.append(refused.value.retry_after_s)

    assert told[2:] == [3] * 4


def test_a_large_call_is_cut_and_joined_in_order() -> None:
    """A call over the upstream's limit comes back whole."""
    proxy = harness(items=32)

    call = proxy.submit(*texts(1000))
    while proxy.upstream.open:
        proxy.upstream.open[-1].answer()

    assert call.is_right
    assert max(len(batch) for batch in proxy.upstream.batches) == 32
    assert proxy.is_at_rest


def test_a_query_waits_behind_one_part_of_an_import() -> None:
    """The next part of a large call queues up behind all others."""
    proxy = harness(items=4, budget=4)
    proxy.submit(*texts(40))

    query = proxy.submit("query")
    proxy.upstream.open[0].answer()
    proxy.upstream.open[0].answer()
    proxy.upstream.open[0].answer()

    assert query.is_right


def test_a_reply_to_one_part_of_a_large_call_is_the_answer() -> None:
    """If the upstream refuses one part, the caller hears exactly that."""
    proxy = harness(items=2)

    call = proxy.submit(*texts(6))
    proxy.upstream.sent[1].refuse(422, b"too long")

    assert call.reply.status == 422
    assert call.reply.body == b"too long"
    assert [sent.was_cancelled for sent in proxy.upstream.sent] == [True, False, True]
    assert proxy.is_at_rest


@pytest.mark.parametrize("inputs", [4, 8])
@pytest.mark.parametrize("status", [413, 422])
def test_what_has_become_too_many_is_cut_anew(status: int, inputs: int) -> None:
    """An upstream that takes fewer at once says so: with 413 up to TEI 1.8."""
    proxy = harness(items=4)
    call = proxy.submit(*texts(inputs))

    proxy.collector.learn(attrs.evolve(proxy.collector.caps, items=2), ceiling=512)
    for sent in proxy.upstream.open:
        sent.refuse(status, b"too many")
    while proxy.upstream.open:
        proxy.upstream.open[-1].answer()

    assert call.is_right
    assert proxy.is_at_rest


def test_the_queue_is_bounded() -> None:
    """A call that finds no room is refused early, with a time to come back."""
    proxy = harness(slots=1, max_waiting_items=6)
    for text in texts(4):
        proxy.submit(text)

    with pytest.raises(Overloaded) as refused:
        proxy.submit("one too many")

    assert refused.value.retry_after_s == 1


def test_refused_calls_leave_no_trace() -> None:
    """After a refusal the others are served, and nothing is left behind."""
    proxy = harness(slots=1, max_waiting_items=1)
    calls = [proxy.submit("a"), proxy.submit("b")]
    with pytest.raises(Overloaded):
        proxy.submit("c")

    while proxy.upstream.open:
        proxy.upstream.open[0].answer()

    assert all(call.is_right for call in calls)
    assert proxy.is_at_rest


def test_a_call_over_the_waiting_limit_is_accepted_when_none_waits() -> None:
    """A caller told to come back must have a chance then."""
    proxy = harness(items=4, max_waiting_items=10)

    call = proxy.submit(*texts(20))
    while proxy.upstream.open:
        proxy.upstream.open[0].answer()

    assert call.is_right


def test_size_one_sends_every_call_by_itself() -> None:
    """MAX_BATCH_SIZE=1 is no batching at all."""
    proxy = harness(calls=1, max_wait_s=1)

    for text in texts(3):
        proxy.submit(text)

    assert proxy.upstream.batches == [["t0"], ["t1"], ["t2"]]


def test_when_flushed_no_batch_waits_for_more_calls() -> None:
    """A proxy about to stop sends what waits, now."""
    proxy = harness(max_wait_s=60)
    proxy.submit("a")
    proxy.submit("b", lane="other")

    proxy.collector.flush()
    for sent in list(proxy.upstream.open):
        sent.answer()
    proxy.submit("c")

    assert proxy.upstream.batches == [["a"], ["b"], ["c"]]
    assert not proxy.clock.getDelayedCalls()


def test_a_call_expires_though_nothing_is_answered() -> None:
    """How long it waits does not depend on what the upstream takes for others."""
    proxy = harness(slots=1)
    proxy.collector.call_timeout_s = 2
    proxy.submit("stalls")
    late = proxy.submit("late")

    proxy.clock.pump([1, 1])
    before = late.is_open
    proxy.clock.advance(1)

    assert before
    assert isinstance(late.error, UpstreamTimeout)
    proxy.upstream.sent[0].answer()
    assert proxy.is_at_rest


def test_an_answer_within_the_sending_is_no_trouble() -> None:
    """An upstream that answers while it is sent to upsets no plan."""
    proxy = harness(slots=1, items=1)
    send = proxy.upstream.send

    def at_once(request):  # noqa: ANN001, ANN202
        done = send(request)
        proxy.upstream.sent[-1].answer()
        return done

    proxy.collector.sender.send_request = at_once
    call = proxy.submit(*texts(2000))

    assert call.is_right
    assert proxy.is_at_rest


def test_when_flushed_what_waits_for_room_waits_for_nothing_else() -> None:
    """What finds no room in the first batch leaves with the next."""
    proxy = harness(calls=2, budget=2, items=2, slots=1, max_wait_s=60)
    calls = [proxy.submit(text) for text in texts(5)]

    proxy.collector.flush()
    while proxy.upstream.open:
        proxy.upstream.open[0].answer()

    assert all(call.is_right for call in calls)
    assert proxy.is_at_rest


def test_when_flushed_the_next_part_of_a_large_call_is_not_held() -> None:
    """It may be smaller than a batch, and would wait for more calls."""
    proxy = harness(items=2, budget=2, max_wait_s=60)
    call = proxy.submit(*texts(5))

    proxy.collector.flush()
    while proxy.upstream.open:
        proxy.upstream.open[0].answer()

    assert call.is_right


def test_when_flushed_what_is_requeued_is_not_held() -> None:
    """It was in flight at the flush, and found no room upstream."""
    proxy = harness(max_wait_s=60)
    call = proxy.submit("a")

    proxy.collector.flush()
    proxy.upstream.sent[0].refuse(429)
    proxy.clock.advance(0.1)
    proxy.upstream.sent[1].answer()

    assert call.is_right


def test_a_lane_that_opens_while_limits_change_is_not_forgotten() -> None:
    """The next part of a large call may open it again just then."""
    proxy = harness(items=2, budget=2, max_wait_s=60)
    proxy.submit("b0", "b1")
    proxy.submit("a0", "a1", lane="one")
    proxy.submit("x0", "x1", "x2", lane="two")

    proxy.collector.learn(proxy.collector.caps, ceiling=100)
    proxy.collector.flush()

    assert proxy.upstream.batches == [["b0", "b1"], ["a0", "a1"], ["x0", "x1"], ["x2"]]


def test_callers_that_come_and_go_leave_no_memory_behind() -> None:
    """However long the one before them waits."""
    proxy = harness(slots=1)
    proxy.submit("busy")
    proxy.submit("waits")

    for _ in range(100):
        proxy.submit("a").done.cancel()

    [lane] = proxy.collector.queue.lanes
    assert len(lane._parts) <= 2


def test_lanes_that_come_and_go_leave_no_memory_behind() -> None:
    """However long one of them waits."""
    proxy = harness(slots=1)
    proxy.submit("busy")
    proxy.submit("waits")

    for number in range(1000):
        proxy.submit("a", lane=f"lane {number}").done.cancel()

    assert len(proxy.collector.queue._ready._due._heap) <= 100
    assert len(proxy.collector.queue._ready._due._listed) <= 100


def test_a_flush_holds_though_settings_are_read_again() -> None:
    """Settings that are read again while the proxy stops change nothing."""
    proxy = harness()
    proxy.collector.flush()

    proxy.collector.max_wait_s = 60
    proxy.collector.learn(proxy.collector.caps, ceiling=100)
    proxy.submit("a")

    assert proxy.upstream.batches == [["a"]]


def test_a_shorter_wait_holds_for_what_waits_already() -> None:
    """Their lane may never be empty, and would keep the old wait for ever."""
    proxy = harness(max_wait_s=60)
    proxy.submit("a")

    proxy.collector.max_wait_s = 1
    proxy.collector.learn(proxy.collector.caps, ceiling=100)
    proxy.clock.advance(1)

    assert proxy.upstream.batches == [["a"]]


def test_a_call_to_an_idle_upstream_does_not_wait_for_the_turn_to_end() -> None:
    """A lone call leaves in the turn in which it came."""
    proxy = harness()

    proxy.submit_in_this_turn("alone")

    assert proxy.upstream.batches == [["alone"]]
    assert not proxy.clock.getDelayedCalls()


def test_calls_of_one_turn_leave_together() -> None:
    """While the upstream is busy, what arrived together is sent together."""
    proxy = harness(slots=9)
    proxy.submit_in_this_turn("busy")

    for text in texts(3):
        proxy.submit_in_this_turn(text)
    before = list(proxy.upstream.batches)
    proxy.clock.advance(0)

    assert before == [["busy"]]
    assert proxy.upstream.batches[1] == ["t0", "t1", "t2"]


def test_a_batch_that_is_full_does_not_wait_for_the_turn_to_end() -> None:
    """No other call has room in it."""
    proxy = harness(calls=2, slots=9)
    proxy.submit_in_this_turn("busy")

    for text in texts(3):
        proxy.submit_in_this_turn(text)

    assert proxy.upstream.batches == [["busy"], ["t0", "t1"]]
    proxy.collector.stop()


def test_stopping_in_mid_turn_leaves_no_timer() -> None:
    """Whatever the moment, nothing is left behind."""
    proxy = harness()
    proxy.submit_in_this_turn("busy")
    proxy.submit_in_this_turn("next")

    proxy.collector.stop()

    assert not proxy.clock.getDelayedCalls()


def test_what_is_left_over_leaves_beside_many_full_batches() -> None:
    """Though all slots are taken, no call waits for a whole round."""
    proxy = harness(items=2)
    proxy.collector.budget.slots = LearnedSlots()
    for number in range(10):
        proxy.submit("two", "more", lane=f"full {number}")

    for number in range(12):
        proxy.submit("one", lane=f"left over {number}")

    assert proxy.upstream.batches[10:] == [["one"]] * (8 + 10 // 4)


def test_without_splitting_a_call_has_to_fit_in_inputs_and_bytes() -> None:
    """What is left to the upstream to refuse is left to it whole."""
    proxy = harness(items=4, size=100)
    proxy.collector.splits = False

    taken = [
        proxy.collector.takes(call_of(*inputs).items.raw)
        for inputs in (texts(4), texts(5), ["x" * 60, "y" * 60])
    ]

    assert taken == [True, False, False]


# Several servers


def test_calls_that_wait_are_divided_among_the_servers() -> None:
    """A batch leaves as many to the others, which have a slot each."""
    proxy = harness(items=32, calls=32, slots=1)
    proxy.collector.learn(proxy.collector.caps, 1536, 3)

    proxy.submit("first")
    for text in texts(8):
        proxy.submit_in_this_turn(text)
    proxy.clock.advance(0)

    assert [len(batch) for batch in proxy.upstream.batches] == [1, 3, 3]


def test_a_call_larger_than_its_share_stays_whole() -> None:
    """To divide it would take more requests, and its rows might not be alike."""
    proxy = harness(items=32, calls=32, slots=1)
    proxy.collector.learn(proxy.collector.caps, 1536, 3)

    proxy.submit("first")
    proxy.submit(*texts(6))

    assert [len(batch) for batch in proxy.upstream.batches] == [1, 6]
