"""After a shared request has failed, each call gets what it gets alone."""

import tracemalloc
from collections.abc import Callable
from math import ceil, log2
from typing import Any

import msgspec
import pytest
from twisted.logger import capturedLogs, formatEvent

from abproxy.errors import (
    CannotConnect,
    HandshakeFailed,
    InternalError,
    RefusedTogether,
    UpstreamTimeout,
)
from abproxy.events import Observer
from abproxy.telemetry.sharing import Sharing
from support.batching import Harness, Outcome, harness, texts
from support.upstream import Sent, reply, row_of

Rule = Callable[[list[str]], tuple[int, bytes] | None]
"""How an upstream refuses the inputs of a request; None if it does not."""


def together(number: int, **more: Any) -> tuple[Harness, list[Outcome]]:
    """Make *number* calls that share one batch."""
    proxy = harness(calls=number, items=max(number, 32), max_wait_s=1, **more)
    calls = [proxy.submit(text) for text in texts(number)]
    return proxy, calls


def answer(sent: Sent, rule: Rule) -> None:
    """Answer one request as the *rule* says."""
    refused = rule(sent.inputs)
    if refused is None:
        sent.answer()
    else:
        sent.done.callback(reply(*refused))


def work(proxy: Harness, rule: Rule, seconds: float = 30) -> None:
    """Let the upstream answer all by a *rule*, for some *seconds* at most."""
    for _ in range(int(seconds / 0.05)):
        while proxy.upstream.open:
            answer(proxy.upstream.open[0], rule)
        proxy.clock.advance(0.05)


def of_items(status: int, *bad: str) -> Rule:
    """Refuse requests with *bad* inputs in them, quoting all of them."""

    def rule(inputs: list[str]) -> tuple[int, bytes] | None:
        return (status, msgspec.json.encode(inputs)) if set(bad) & {*inputs} else None

    return rule


def of_size(status: int, most: int) -> Rule:
    """Refuse requests with more than so many inputs."""
    return lambda inputs: (status, b"too many") if len(inputs) > most else None


@pytest.mark.parametrize("bad", [0, 3, 7])
def test_a_call_that_is_over_a_quota_alone_costs_no_other_its_answer(bad: int) -> None:
    """It waits as for any lack of room, but behind the others."""
    proxy, calls = together(8)

    work(proxy, of_items(429, f"t{bad}"))

    assert calls[bad].reply.status == 429
    assert all(call.is_right for call in calls if call is not calls[bad])
    assert proxy.is_at_rest


def deadly_behind_gateway(proxy: Harness, deadly: str) -> Rule:
    """Be away for half a second after a request with a *deadly* input."""
    back_at = 0.0

    def rule(inputs: list[str]) -> tuple[int, bytes] | None:
        nonlocal back_at
        if proxy.clock.seconds() < back_at:
            return 502, b"bad gateway"
        if deadly in inputs:
            back_at = proxy.clock.seconds() + 0.5
            return 502, b"bad gateway"
        return None

    return rule


@pytest.mark.parametrize("status", [400, 401, 403, 404, 413, 422, 500, 418, 599])
@pytest.mark.parametrize("bad", range(8))
def test_a_bad_input_fails_its_sender_only(bad: int, status: int) -> None:
    """Whatever the status, and wherever the bad input is."""
    proxy, calls = together(8)

    work(proxy, of_items(status, f"t{bad}"))

    assert calls[bad].reply.status == status
    assert calls[bad].reply.body == msgspec.json.encode([f"t{bad}"])
    assert all(call.is_right for call in calls if call is not calls[bad])
    assert len(proxy.upstream.sent) <= 1 + 2 * 3 + 2
    assert proxy.is_at_rest


@pytest.mark.parametrize("bad", [(0, 7), (0, 1), (3, 4), (2, 6)])
def test_two_bad_inputs_fail_their_senders_only(bad: tuple[int, int]) -> None:
    """Also where they are first and last, or side by side."""
    proxy, calls = together(8)

    work(proxy, of_items(500, *(f"t{number}" for number in bad)))

    assert [call.reply.status for call in calls] == [
        500 if number in bad else 200 for number in range(8)
    ]
    assert len(proxy.upstream.sent) <= 1 + 2 * (2 * 3 + 2)


def test_the_refused_call_is_sent_as_its_client_sent_it() -> None:
    """Positions in an error message are those of the client's own body."""
    proxy, calls = together(2)

    work(proxy, of_items(422, "t0"))

    assert {each.request.body for each in proxy.upstream.sent[1:]} == {
        call.call.alone.body for call in calls
    }


@pytest.mark.parametrize("number", [2, 3, 8, 32])
def test_all_bad_inputs_cost_at_most_two_requests_each(number: int) -> None:
    """Isolation has a bound even if every call is bad, and the lane works."""
    proxy, calls = together(number)
    proxy.upstream.sent[0].answer()
    assert all(call.is_right for call in calls)

    later = [proxy.submit(f"bad {text}") for text in texts(number)]
    before = len(proxy.upstream.sent)
    work(proxy, lambda inputs: (422, b"%d" % len(inputs)))

    assert all(call.results for call in later)
    assert len(proxy.upstream.sent) - before <= 2 * number


def test_an_upstream_that_refuses_all_is_probed_twice() -> None:
    """Nothing in the lane has ever worked: another call is tried a second later."""
    proxy, calls = together(8)

    while proxy.upstream.open:
        proxy.upstream.open[0].refuse(404, b"model not found")
    at_once = len(proxy.upstream.sent)
    work(proxy, lambda _inputs: (404, b"model not found"), seconds=1.1)

    assert at_once == 3
    assert len(proxy.upstream.sent) == 4
    assert [call.reply.body for call in calls] == [b"model not found"] * 8


def test_two_bad_calls_that_are_probed_by_chance_are_not_the_answer_to_others() -> None:
    """They got the same words; the others wait until one more was tried."""
    proxy, calls = together(8)

    def rule(inputs: list[str]) -> tuple[int, bytes] | None:
        return (422, b"too long") if {"t3", "t4"} & {*inputs} else None

    work(proxy, rule)

    assert [call.reply.status for call in calls] == [200] * 3 + [422] * 2 + [200] * 3


def test_answers_that_differ_are_shown_to_no_other_caller() -> None:
    """Each quotes a request; who was not tried alone hears an error of ours."""
    proxy, calls = together(8)

    def quoting(inputs: list[str]) -> tuple[int, bytes]:
        return 500, msgspec.json.encode(inputs)

    work(proxy, quoting, seconds=2)

    own = [call for call in calls if not hasattr(call.results[0], "value")]
    others = [call for call in calls if call not in own]
    assert len(own) == 3
    assert all(call.reply.body == b'["%b"]' % text_of(call) for call in own)
    assert all(isinstance(call.error, RefusedTogether) for call in others)


def text_of(call: Outcome) -> bytes:
    """Return the one text of a call."""
    text: str = msgspec.json.decode(call.call.alone.body)["inputs"][0]
    return text.encode()


def test_a_lane_that_is_out_is_tried_once_a_second() -> None:
    """One call is sent alone each second; the others wait, and hear of two probes."""
    proxy, _ = together(8)
    while proxy.upstream.open:
        proxy.upstream.open[0].refuse(500, b"broken")
    before = len(proxy.upstream.sent)

    for second in range(5):
        for number in range(8):
            proxy.submit(f"later {second} {number}")
        work(proxy, lambda _inputs: (500, b"broken"), seconds=1)

    assert len(proxy.upstream.sent) - before <= 6
    assert {len(sent.inputs) for sent in proxy.upstream.sent[before:]} == {1}


def test_a_lane_that_is_back_goes_on_as_before() -> None:
    """Who waited for it is answered, and shares batches again."""
    proxy, _ = together(8)
    while proxy.upstream.open:
        proxy.upstream.open[0].refuse(500, b"broken")
    calls = [proxy.submit(f"later {number}") for number in range(8)]

    work(proxy, lambda _inputs: None)

    assert all(call.is_right for call in calls)
    assert proxy.is_at_rest


def test_a_lane_that_is_out_keeps_no_other_waiting() -> None:
    """Another lane is another matter."""
    proxy, _ = together(8)
    while proxy.upstream.open:
        proxy.upstream.open[0].refuse(500, b"broken")

    other = [proxy.submit(text, lane="other") for text in texts(8)]
    proxy.upstream.open[0].answer()

    assert all(call.is_right for call in other)


@pytest.mark.parametrize("body", [b"[[1]]", b"[]", b"", b"[[1],[2]", b"{}", b"[[1],"])
def test_an_answer_that_cannot_be_shared_out_is_asked_for_alone(body: bytes) -> None:
    """Nothing is guessed: each call gets what it gets alone."""
    proxy, calls = together(2)

    proxy.upstream.sent[0].done.callback(reply(200, body))
    work(proxy, lambda _inputs: None)

    assert all(call.is_right for call in calls)
    assert proxy.is_at_rest


def test_a_size_that_is_refused_is_learned() -> None:
    """The next batches are no larger than what passed."""
    proxy, calls = together(16)

    work(proxy, of_size(400, 10))
    before = len(proxy.upstream.sent)
    later = [proxy.submit(f"later {number}") for number in range(16)]
    work(proxy, of_size(400, 10))

    assert all(call.is_right for call in [*calls, *later])
    sizes = [len(sent.inputs) for sent in proxy.upstream.sent[before:]]
    assert max(sizes) <= 10
    assert len(sizes) <= 4


def test_lists_that_are_refused_altogether_are_sent_no_more() -> None:
    """Calls are sent one by one then, as their clients sent them."""
    proxy, _ = together(8)

    work(proxy, of_size(400, 1))
    before = len(proxy.upstream.sent)
    later = [proxy.submit(f"later {number}") for number in range(8)]
    work(proxy, of_size(400, 1))

    assert all(call.is_right for call in later)
    assert len(proxy.upstream.sent) - before == 8


def test_a_quota_that_a_request_exceeds_is_a_matter_of_size() -> None:
    """With the client's own key: asked one by one all are answered."""
    proxy = harness(calls=16, items=32, max_wait_s=1)
    calls = [proxy.submit(text, lane="personal: key") for text in texts(16)]

    work(proxy, of_size(429, 6))

    assert all(call.is_right for call in calls)


def test_a_size_that_is_over_a_quota_is_learned() -> None:
    """Half as much passes at once, and so the next calls are not refused at all."""
    proxy = harness(calls=16, items=32, max_wait_s=1)
    for text in texts(16):
        proxy.submit(text)
    work(proxy, of_size(429, 8), seconds=2)
    first = [len(batch) for batch in proxy.upstream.batches]

    calls = [proxy.submit(text) for text in texts(16, "later")]
    work(proxy, of_size(429, 8), seconds=2)

    assert all(call.is_right for call in calls)
    assert first == [16, 8, 8]
    assert [len(batch) for batch in proxy.upstream.batches[3:]] == [8, 8]


def test_a_refusal_of_what_passed_lately_teaches_no_size() -> None:
    """It is over in a moment, and then as many go together as before."""
    proxy = harness(calls=16, items=32, max_wait_s=1)
    for turn in range(3):
        for text in texts(16):
            proxy.submit(f"{turn} {text}")
        if turn == 1:
            proxy.upstream.open[0].refuse(429)
            proxy.clock.advance(0.05)
        work(proxy, of_size(429, 16), seconds=2)

    assert [len(batch) for batch in proxy.upstream.batches] == [16, 16, 16, 16]


def test_a_size_that_was_refused_again_is_halved_though_it_passed_lately() -> None:
    """The calls are others by now, and may cost more."""
    proxy = harness(calls=16, items=32, max_wait_s=1)
    for turn in range(2):
        for text in texts(16):
            proxy.submit(f"{turn} {text}")
        work(proxy, of_size(429, (16, 8)[turn]), seconds=2)

    assert [len(batch) for batch in proxy.upstream.batches] == [16, 16, 16, 8, 8]


def test_refusals_of_one_wave_count_as_one() -> None:
    """They were in flight together, and tell the same."""
    proxy = harness(calls=16, items=32, max_wait_s=1)
    for text in texts(16, "first"):
        proxy.submit(text)
    work(proxy, of_size(429, 16), seconds=2)
    for text in texts(48, "later"):
        proxy.submit(text)
    for request in list(proxy.upstream.open):
        request.refuse(429)

    work(proxy, of_size(429, 16), seconds=2)

    assert [len(batch) for batch in proxy.upstream.batches] == [16] * 7


def test_a_size_learned_from_a_429_is_put_to_the_test_ever_later() -> None:
    """Ten, twenty, forty seconds later: perhaps a quota was used up for a moment."""
    proxy = harness(calls=16, items=32, max_wait_s=1)
    tests = []
    for second in range(100):
        before = len(proxy.upstream.batches)
        for text in texts(16):
            proxy.submit(f"{second} {text}")
        work(proxy, of_size(429, 8), seconds=1)
        sizes = [len(batch) for batch in proxy.upstream.batches[before:]]
        if 16 in sizes:
            tests.append(second)

    assert tests == [0, 11, 32, 73]


def test_a_single_call_that_passes_teaches_no_size() -> None:
    """It tells nothing of how many would be too many."""
    proxy = harness(calls=16, items=32, slots=2, max_wait_s=1)
    for text in texts(16):
        proxy.submit(text, lane="1")
    proxy.submit("other", lane="2")
    proxy.clock.advance(1)
    proxy.upstream.open[0].refuse(429)
    proxy.upstream.open[0].answer()

    work(proxy, of_size(429, 8))

    assert [len(batch) for batch in proxy.upstream.batches] == [16, 1, 8, 8]


def test_a_part_of_a_large_call_that_is_over_a_quota_is_sent_in_pieces() -> None:
    """It is retried half as large, as no call of its own is to blame."""
    proxy = harness(calls=16, items=32)
    call = proxy.submit(*texts(64))

    work(proxy, of_size(429, 8))

    assert call.is_right


def test_neighbours_of_a_sender_who_repeats_itself_stop_paying() -> None:
    """After two bad calls its next ones are sent alone."""
    proxy = harness(calls=4, max_wait_s=1)
    rule = of_items(500, *(f"bad {turn}" for turn in range(9)))

    def turn(number: int) -> list[list[str]]:
        before = len(proxy.upstream.sent)
        good = [proxy.submit(f"{number} {text}") for text in texts(3)]
        bad = proxy.submit(f"bad {number}", sender="who repeats itself")
        work(proxy, rule, seconds=2)
        assert bad.reply.status == 500
        assert all(call.is_right for call in good)
        return [sent.inputs for sent in proxy.upstream.sent[before:]]

    first, second, third = turn(0), turn(1), turn(2)

    assert len(first) > 2
    assert len(second) > 2
    assert sorted(map(len, third)) == [1, 3]


def test_an_item_that_has_failed_is_sent_alone_whoever_sends_it() -> None:
    """Its neighbours do not pay for it twice."""
    proxy = harness(calls=4, max_wait_s=1)
    for text in ("a", "b", "c", "bad"):
        proxy.submit(text)
    work(proxy, of_items(500, "bad"), seconds=2)
    before = len(proxy.upstream.sent)

    for text in ("d", "e", "bad", "f"):
        proxy.submit(text)
    work(proxy, of_items(500, "bad"), seconds=2)

    sizes = sorted(len(sent.inputs) for sent in proxy.upstream.sent[before:])
    assert sizes == [1, 3]


def test_after_a_deadline_pieces_are_sent_one_after_the_other() -> None:
    """A slow upstream is not asked for more at a time, and all are answered."""
    proxy, calls = together(8)
    most = 0

    proxy.clock.advance(3)
    proxy.upstream.sent[0].fail(UpstreamTimeout("too slow"))
    while proxy.upstream.open:
        most = max(most, len(proxy.upstream.open))
        proxy.clock.advance(0.3 * len(proxy.upstream.open[0].inputs))
        proxy.upstream.open[0].answer()

    assert most == 1
    assert all(call.is_right for call in calls)
    assert proxy.is_at_rest


def test_calls_are_not_sent_again_after_the_time_that_they_may_wait() -> None:
    """A server that says nothing would take that time for each request of each."""
    proxy, calls = together(32)
    proxy.collector.call_timeout_s = 300

    while proxy.upstream.open:
        proxy.clock.advance(120)
        for sent in list(proxy.upstream.open):
            sent.fail(UpstreamTimeout("too slow"))

    assert proxy.clock.seconds() <= 300 + 120
    assert all(isinstance(call.error, UpstreamTimeout) for call in calls)
    assert proxy.is_at_rest


def test_a_deadline_that_was_missed_is_not_missed_again() -> None:
    """Only so much is in flight as is answered in half of the time."""
    proxy = harness(calls=32, items=32, max_wait_s=1)

    def serve() -> int:
        """Take 0.3 s for each item, one request at a time; give up after 3 s."""
        missed = 0
        while proxy.upstream.open:
            waiting = sum(len(sent.inputs) for sent in proxy.upstream.open)
            sent = proxy.upstream.open[0]
            if 0.3 * len(sent.inputs) >= 3:
                proxy.clock.advance(3)
                sent.fail(UpstreamTimeout("too slow"))
                missed += 1
            else:
                proxy.clock.advance(0.3 * len(sent.inputs))
                sent.answer()
            missed += 0.3 * waiting > 3 + 0.3 * 20
        return missed

    first = [proxy.submit(text) for text in texts(20)]
    proxy.clock.advance(1)
    assert serve() > 0
    second = [proxy.submit(f"later {text}") for text in texts(20)]
    proxy.clock.advance(1)
    in_flight = sum(len(sent.inputs) for sent in proxy.upstream.open)

    assert serve() == 0
    assert 0.3 * in_flight <= 3
    assert all(call.is_right for call in [*first, *second])


@pytest.mark.parametrize("status", [502, 504])
def test_a_gateway_without_its_server_is_waited_for(status: int) -> None:
    """A restart behind it is a delay, for a lone call as well."""
    proxy = harness()
    call = proxy.submit("a")

    work(proxy, lambda _inputs: (status, b"bad gateway"), seconds=2)
    assert call.is_open
    work(proxy, lambda _inputs: None, seconds=3)

    assert call.is_right
    assert proxy.is_at_rest


def test_a_gateway_whose_server_stays_away_is_the_answer_in_the_end() -> None:
    """To a call that was sent alone, in the gateway's own words."""
    proxy = harness()
    call = proxy.submit("a")

    work(proxy, lambda _inputs: (502, b"bad gateway"), seconds=10)

    assert call.reply.body == b"bad gateway"
    proxy.collector.stop()
    assert proxy.is_at_rest


def test_calls_that_share_an_outage_hear_of_it_in_our_words() -> None:
    """The gateway's words are an answer to no call alone."""
    proxy, calls = together(2)

    work(proxy, lambda inputs: (502, msgspec.json.encode(inputs)), seconds=10)

    errors = [call.results[0] for call in calls]
    assert all(call.results for call in calls)
    assert any(
        isinstance(getattr(e, "value", None), CannotConnect) for e in errors
    ) or [call.reply.body for call in calls] == [b'["t0"]', b'["t1"]']
    proxy.collector.stop()


@pytest.mark.parametrize("deadly", [0, 3, 7])
def test_a_text_that_kills_the_server_behind_a_gateway_fails_alone(deadly: int) -> None:
    """The others are answered when the server is back."""
    proxy, calls = together(8)

    work(proxy, deadly_behind_gateway(proxy, f"t{deadly}"))

    assert calls[deadly].reply.status == 502
    assert all(call.is_right for call in calls if call is not calls[deadly])
    assert proxy.is_at_rest


def test_a_call_that_kills_the_server_behind_a_gateway_is_one_line_in_the_log() -> None:
    """The outages that it causes are none."""
    proxy, _ = together(8)

    with capturedLogs() as events:
        work(proxy, deadly_behind_gateway(proxy, "t3"))

    said = [formatEvent(event) for event in events]
    assert said == ["A batch failed: it was answered with 502 (-)"]


def test_a_gateway_that_is_too_small_for_a_request_is_no_outage() -> None:
    """A quick 504 above so many inputs is a matter of size, and learned."""
    proxy, calls = together(20)

    work(proxy, of_size(504, 4))
    before = len(proxy.upstream.sent)
    later = [proxy.submit(f"later {text}") for text in texts(20)]
    work(proxy, of_size(504, 4))

    assert all(call.is_right for call in [*calls, *later])
    assert max(len(sent.inputs) for sent in proxy.upstream.sent[before:]) <= 4


def test_a_lone_call_is_never_probed() -> None:
    """What it gets is its own."""
    proxy = harness()
    call = proxy.submit("a")

    proxy.upstream.sent[0].refuse(500, b"mine")

    assert call.reply.body == b"mine"
    assert len(proxy.upstream.sent) == 1


def test_a_caller_who_leaves_during_the_search_is_sent_no_more() -> None:
    """Its neighbours are found all the same."""
    proxy, calls = together(8)
    proxy.upstream.sent[0].refuse(500)
    leaving = [call for call in calls if call.is_open][:3]
    for call in leaving:
        call.done.cancel()

    work(proxy, of_items(500, "t7"))

    stay = [call for call in calls if call not in leaving]
    assert all(call.results for call in stay)
    assert proxy.is_at_rest


@pytest.mark.parametrize(
    "probed",
    [
        [(429, b'"error_type":"Overloaded"')],
        [(502, b"away")],
        [(500, b"no"), (429, b'"error_type":"Overloaded"')],
        [(500, b"no"), (500, b"no")],
    ],
)
def test_a_caller_who_leaves_during_a_search_without_result_keeps_no_place(
    probed: list[tuple[int, bytes]],
) -> None:
    """What is left of the search waits again, but not for those who have left."""
    proxy, calls = together(4)
    proxy.upstream.open[0].refuse(500)
    calls[3].done.cancel()
    calls[0].done.cancel()

    for status, body in probed:
        proxy.upstream.open[0].refuse(status, body)
    work(proxy, of_items(500))

    assert proxy.is_at_rest


@pytest.mark.parametrize("number", [2, 5, 8, 20, 32])
@pytest.mark.parametrize("bad", [1, 2])
def test_the_search_stays_within_its_bound(number: int, bad: int) -> None:
    """K bad calls of n cost k (2 log2 n + 2) more requests at most, never over 2 n."""
    proxy, calls = together(number)

    work(proxy, of_items(500, *texts(number)[-bad:]))

    more = len(proxy.upstream.sent) - 1
    assert more <= min(bad * (2 * ceil(log2(number)) + 2), 2 * number)
    assert [call.reply.status for call in calls[-bad:]] == [500] * bad


def test_rows_of_those_found_good_are_their_own() -> None:
    """However the batch was taken apart."""
    proxy, calls = together(32)

    work(proxy, of_items(500, "t5", "t6", "t30"))

    good = [call for at, call in enumerate(calls) if at not in {5, 6, 30}]
    assert [call.rows for call in good] == [
        [row_of(text_of(call).decode())] for call in good
    ]


def test_a_handshake_that_fails_is_told_to_all_at_once() -> None:
    """Nothing was sent, so no call can be at fault."""
    proxy, calls = together(8)

    proxy.upstream.sent[0].fail(HandshakeFailed("the certificate has expired"))

    assert all(isinstance(call.error, HandshakeFailed) for call in calls)
    assert len(proxy.upstream.sent) == 1
    assert proxy.is_at_rest


# What keeps on failing


def silent(proxy: Harness, deadline_s: float = 60) -> None:
    """Let each request end at its deadline."""
    while proxy.upstream.open:
        proxy.clock.advance(deadline_s)
        proxy.upstream.open[0].fail(UpstreamTimeout("too slow"))


@pytest.mark.parametrize("number", [2, 3, 32])
def test_a_silent_upstream_is_asked_twice_more_whoever_waits(number: int) -> None:
    """No call waits for the deadlines of all others, one after the other."""
    proxy, calls = together(number)

    silent(proxy)

    assert len(proxy.upstream.sent) == 3
    assert all(isinstance(call.error, UpstreamTimeout) for call in calls)
    assert proxy.is_at_rest


def test_deadlines_of_some_do_not_fail_others_of_a_lane_that_works() -> None:
    """Two slow calls were probed by chance; another batch was answered meanwhile."""
    proxy, calls = together(8)
    slow = {text_of(call).decode() for call in calls[3:5]}
    proxy.clock.advance(3)
    others = [proxy.submit(f"other {number}") for number in range(8)]
    proxy.upstream.open[1].answer()
    proxy.clock.advance(3)
    proxy.upstream.open[0].fail(UpstreamTimeout("too slow"))

    while proxy.upstream.open:
        sent = proxy.upstream.open[0]
        if slow & {*sent.inputs}:
            proxy.clock.advance(6)
            sent.fail(UpstreamTimeout("too slow"))
        else:
            sent.answer()

    assert all(call.is_right for call in [*others, *calls[:3], *calls[5:]])
    assert all(isinstance(call.error, UpstreamTimeout) for call in calls[3:5])


def test_pieces_of_a_large_call_that_was_too_slow_go_one_after_the_other() -> None:
    """They would be as slow together as they were before."""
    proxy = harness(items=8, slots=1, budget=8)
    call = proxy.submit(*texts(16))
    proxy.clock.advance(3)
    proxy.upstream.open[0].fail(UpstreamTimeout("too slow"))
    most = 0

    while proxy.upstream.open:
        most = max(most, len(proxy.upstream.open))
        proxy.clock.advance(0.25 * len(proxy.upstream.open[0].inputs))
        proxy.upstream.open[0].answer()

    assert most == 1
    assert [len(sent.inputs) for sent in proxy.upstream.sent[1:3]] == [4, 4]
    assert max(len(sent.inputs) for sent in proxy.upstream.sent[1:]) * 0.25 <= 3 / 2
    assert call.is_right


def test_a_call_larger_than_the_room_is_the_probe_of_a_lane_that_is_out() -> None:
    """It is split first, and the lane is tried with a piece of it."""
    proxy, _ = together(2)
    while proxy.upstream.open:
        proxy.upstream.open[0].refuse(500, b"broken")
    other, _ = proxy.submit("a", lane="other"), proxy.submit("b", lane="other")
    call = proxy.submit(*texts(20))
    proxy.collector.budget.missed_deadline(8)
    other.done.cancel()

    work(proxy, lambda _inputs: None)

    assert call.is_right
    assert proxy.is_at_rest


def test_a_call_whose_pieces_cannot_be_split_off_is_sent_whole_once() -> None:
    """Its answers have another form, and whole it is refused: that is its answer."""
    proxy = harness(items=4)
    call = proxy.submit(*texts(9))

    for _ in range(100):
        if proxy.upstream.open:
            sent = proxy.upstream.open[0]
            if len(sent.inputs) > 4:
                sent.refuse(413, b"batch size")
            else:
                rows = [row_of(text) for text in sent.inputs]
                sent.refuse(200, msgspec.json.encode({"embeddings": rows}))

    assert call.reply.status == 413
    assert len(proxy.upstream.sent) <= 2 * 3
    assert proxy.is_at_rest


def test_a_bug_in_isolation_is_an_error_for_those_it_affects(
    nothing_leaked: list[object],
) -> None:
    """And the proxy goes on."""

    class Buggy(Observer):
        def extra_request(self, reason: str) -> None:
            raise RuntimeError(reason)

    proxy, calls = together(2, observer=Buggy())
    while proxy.upstream.open:
        proxy.upstream.open[0].refuse(500, b"broken")

    assert all(isinstance(call.error, InternalError) for call in calls)
    assert proxy.is_at_rest
    nothing_leaked.clear()


# What is learned


def sizes_of(proxy: Harness, rule: Rule, number: int = 16) -> list[int]:
    """Send so many calls at once; return how many inputs each request had."""
    before = len(proxy.upstream.sent)
    calls = [proxy.submit(f"{before} {text}") for text in texts(number)]
    work(proxy, rule, 3)
    assert all(call.is_right for call in calls)
    return [len(sent.inputs) for sent in proxy.upstream.sent[before:]]


def test_a_size_that_was_refused_is_tried_again_step_by_step() -> None:
    """One step each ten minutes, also in a lane that is never without calls."""
    proxy, _ = together(16)
    work(proxy, of_size(400, 10))
    most = []

    for _ in range(12):
        most.append(max(sizes_of(proxy, lambda _inputs: None)))
        proxy.clock.advance(600)

    assert most[:3] == [8, 12, 14]
    assert most[-1] == 16


def test_a_step_too_far_costs_nothing_of_what_had_passed() -> None:
    """The limit stays between what passed and what did not."""
    proxy, _ = together(16)
    work(proxy, of_size(400, 10))

    for _ in range(8):
        proxy.clock.advance(600)
        sizes_of(proxy, of_size(400, 10))
        assert 8 <= max(sizes_of(proxy, of_size(400, 10))) <= 10


def test_calls_that_were_sent_alone_for_their_answers_share_again() -> None:
    """After ten minutes, also in a lane that is never without calls."""
    proxy, calls = together(8)
    rows = [row_of(text) for text in texts(8)]
    proxy.upstream.sent[0].refuse(200, msgspec.json.encode({"embeddings": rows}))
    work(proxy, lambda _inputs: None, 2)
    assert all(call.is_right for call in calls)

    assert max(sizes_of(proxy, lambda _inputs: None, 8)) == 1
    proxy.clock.advance(600)
    assert max(sizes_of(proxy, lambda _inputs: None, 8)) == 8


def test_an_upstream_that_fails_now_and_then_has_no_limit_of_size() -> None:
    """As many items passed shortly before: their number is not the cause."""
    proxy, _ = together(16)
    work(proxy, lambda _inputs: None, 2)

    for _ in range(5):
        fails = iter([(500, b"hiccup")])
        sizes_of(proxy, lambda _inputs, fails=fails: next(fails, None))
        assert sizes_of(proxy, lambda _inputs: None) == [16]


def bad_and_good(proxy: Harness, number: int) -> None:
    """Send a bad call and three good ones, all of one sender."""
    for text in texts(3):
        proxy.submit(f"{number} {text}", sender="an app")
    proxy.submit(f"bad {number}", sender="an app")
    work(proxy, of_items(500, f"bad {number}"), 2)


def shared(proxy: Harness) -> bool:
    """Return whether four good calls of that sender share a request."""
    before = len(proxy.upstream.sent)
    for text in texts(4):
        proxy.submit(f"{before} {text}", sender="an app")
    work(proxy, lambda _inputs: None, 2)
    return len(proxy.upstream.sent) - before == 1


def test_a_bad_call_now_and_then_is_no_habit() -> None:
    """Two within ten minutes are."""
    proxy = harness(calls=4, max_wait_s=1)

    for number in range(5):
        bad_and_good(proxy, number)
        assert shared(proxy)
        proxy.clock.advance(600)


def test_a_sender_of_good_calls_is_sent_alone_no_longer() -> None:
    """Behind one key, or one connection, may be many clients."""
    proxy = harness(calls=4, max_wait_s=1)
    bad_and_good(proxy, 1)
    bad_and_good(proxy, 2)

    assert [shared(proxy) for _ in range(3)] == [False, False, True]


def test_a_probe_that_finds_no_room_says_nothing_of_its_sender() -> None:
    """All wait, as after any refusal, and share again."""
    proxy = harness(calls=4, max_wait_s=1)
    for _ in range(3):
        calls = [proxy.submit(text, sender="an app") for text in texts(4)]
        proxy.upstream.open[0].refuse(500, b"hiccup")
        proxy.upstream.open[0].refuse(503, b"")
        assert not proxy.upstream.open
        work(proxy, lambda _inputs: None, 2)
        assert all(call.is_right for call in calls)

    assert shared(proxy)


def test_lanes_leave_no_bytes_of_their_clients_behind() -> None:
    """That they have worked is kept in mind, but not their options."""
    proxy = harness()
    tracemalloc.start()
    try:
        for number in range(40):
            proxy.submit("a", lane=f"{number}" + "y" * 100_000)
            proxy.upstream.open[0].answer()
            proxy.upstream.sent.clear()
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert kept < 1_000_000


def everyone_at_once(proxy: Harness, share: int, rounds: int) -> tuple[int, int]:
    """Send 16 calls a round, each *share*-th bad; return requests and good calls."""
    before, good = len(proxy.upstream.sent), 0
    for _ in range(rounds):
        start = len(proxy.upstream.sent)
        calls = [
            proxy.submit(f"{'good' if at % share else 'bad'} {start} {at}")
            for at in range(16)
        ]
        bad = [text_of(call).decode() for call in calls[::share]]
        work(proxy, of_items(500, *bad), 5)
        assert all(call.results for call in calls)
        good += sum(at % share and call.is_right for at, call in enumerate(calls))
    return len(proxy.upstream.sent) - before, good


@pytest.mark.parametrize("share", [2, 3, 8])
def test_a_lane_with_many_bad_calls_costs_little_more_than_alone(share: int) -> None:
    """The more of them are bad, the fewer share a request."""
    proxy = harness(calls=16, items=32, max_wait_s=0.1, slots=16)
    everyone_at_once(proxy, share, 6)

    requests, good = everyone_at_once(proxy, share, 20)

    assert good == 20 * (16 - ceil(16 / share))
    assert requests <= 1.1 * 20 * 16


def test_a_lane_whose_calls_are_good_again_shares_as_before() -> None:
    """Twice as many after some good requests, until all do."""
    proxy = harness(calls=16, items=32, max_wait_s=0.1, slots=16)
    everyone_at_once(proxy, 2, 4)
    assert max(sizes_of(proxy, lambda _inputs: None)) < 8

    for _ in range(20):
        last = sizes_of(proxy, lambda _inputs: None)

    assert last == [16]


def test_many_bad_calls_of_one_lane_keep_no_other_from_sharing() -> None:
    """It is that lane whose calls go alone."""
    proxy = harness(calls=16, items=32, max_wait_s=0.1, slots=16)
    everyone_at_once(proxy, 2, 4)
    before = len(proxy.upstream.sent)

    others = [proxy.submit(text, lane="other") for text in texts(16)]
    work(proxy, lambda _inputs: None, 1)

    assert all(call.is_right for call in others)
    assert len(proxy.upstream.sent) - before == 1


def test_a_quota_that_is_used_up_is_no_bad_call() -> None:
    """Sent one by one, calls would use it up all the sooner."""
    proxy = harness(calls=8, items=32, max_wait_s=0.1)

    for turn in range(4):
        used_up = iter([(429, b"quota")] * 3)
        calls = [
            proxy.submit(f"{turn} {text}", lane="personal", sender="a key")
            for text in texts(8)
        ]
        work(proxy, lambda _inputs, used_up=used_up: next(used_up, None), 3)
        assert sum(call.reply.status == 429 for call in calls) == 2
    before = len(proxy.upstream.sent)
    for text in texts(8):
        proxy.submit(text, lane="personal", sender="a key")
    work(proxy, lambda _inputs: None, 3)

    assert len(proxy.upstream.sent) - before == 1


def test_a_route_whose_answers_cannot_be_split_is_noted() -> None:
    """The page says that its calls go alone, and what makes them."""

    class Noting(Observer):
        noted = ""

        def went_alone(self, name: str) -> None:
            self.noted = name

    proxy, calls = together(2)
    proxy.collector.isolation.observer = noting = Noting()

    proxy.upstream.sent[0].done.callback(reply(200, b'{"embeddings":[[1],[2]]}'))
    while proxy.upstream.open:
        proxy.upstream.open[0].answer()

    assert noting.noted == "the answers of /embed"
    [shown] = Sharing.of({}, {noting.noted: 1}, {}).alone
    assert shown.setting == ""
    assert all(call.is_right for call in calls)
