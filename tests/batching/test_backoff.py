"""What callers see of an upstream that is full, away, or killed by one of them."""

import pytest
from msgspec.structs import replace
from twisted.internet.defer import Deferred, succeed
from twisted.logger import capturedLogs, formatEvent

from abproxy.errors import CannotConnect, ConnectionBroken, Overloaded, UpstreamFull
from support.batching import Harness, Outcome, call_of, harness, texts
from support.upstream import Sent, reply

FULL = b'{"error":"Model is overloaded","error_type":"Overloaded"}'


def _refuse(sent: Sent, *headers: tuple[bytes, bytes]) -> None:
    sent.done.callback(reply(429, FULL, *headers))


def _serve(proxy: Harness) -> None:
    while proxy.upstream.open:
        proxy.upstream.open[0].answer()


@pytest.mark.parametrize("status", [429, 503])
def test_a_refusal_for_want_of_room_is_tried_again(status: int) -> None:
    """No caller is told of a full upstream that has room a moment later."""
    proxy = harness()
    call = proxy.submit("a")

    proxy.upstream.sent[0].refuse(status, FULL)
    at_once = len(proxy.upstream.sent)
    proxy.clock.advance(0.05)
    _serve(proxy)

    assert at_once == 1
    assert call.is_right
    assert proxy.is_at_rest


def test_pauses_grow_and_the_retries_end() -> None:
    """In the end the caller gets the upstream's own refusal."""
    proxy = harness()
    call = proxy.submit("a")
    attempts = []

    while call.is_open:
        attempts.append(round(proxy.clock.seconds(), 2))
        _refuse(proxy.upstream.open[0])
        if call.is_open:
            proxy.clock.advance(
                proxy.clock.getDelayedCalls()[0].getTime() - proxy.clock.seconds()
            )

    assert attempts == [0, 0.05, 0.15, 0.35, 0.75, 1.55, 2.55, 3.55, 4.55, 5.55]
    assert call.reply.status == 429
    assert call.reply.body == FULL
    proxy.collector.stop()
    assert proxy.is_at_rest


def _refuse_until_the_retries_end(proxy: Harness, *others: Outcome) -> None:
    """Refuse whatever is sent, quoting it, until all *others* have heard."""
    while any(call.is_open for call in others):
        for sent in list(proxy.upstream.open):
            sent.refuse(503, b"no room for " + sent.request.body)
        proxy.clock.advance(0.5)


@pytest.mark.parametrize("lane", ["other route", "personal: other key"])
def test_a_call_that_waits_behind_a_refusal_never_gets_its_answer(lane: str) -> None:
    """The words of the upstream are for the call refused; others get ours."""
    proxy = harness(slots=1)
    refused = proxy.submit("mine")
    behind = proxy.submit("yours", lane=lane)

    _refuse_until_the_retries_end(proxy, refused, behind)

    assert b"yours" not in refused.reply.body
    assert isinstance(behind.error, UpstreamFull)
    assert "mine" not in str(behind.error)
    proxy.collector.stop()
    assert proxy.is_at_rest


def test_calls_refused_together_hear_of_it_in_our_words() -> None:
    """An upstream that quotes the request would show each the other's text."""
    proxy = harness(calls=2, max_wait_s=1)
    calls = [proxy.submit("mine"), proxy.submit("yours")]

    _refuse_until_the_retries_end(proxy, *calls)

    assert [type(call.error) for call in calls] == [UpstreamFull, UpstreamFull]
    assert calls[0].error is not calls[1].error
    proxy.collector.stop()
    assert proxy.is_at_rest


def test_a_call_left_alone_in_its_batch_gets_no_answer_that_quotes_the_others() -> None:
    """What was in the request counts, not which callers still wait for it."""
    proxy = harness(calls=2, max_wait_s=1)
    leaving, staying = proxy.submit("mine"), proxy.submit("yours")
    leaving.done.cancel()

    proxy.upstream.sent[0].done.callback(
        reply(503, b"no room for mine", (b"Retry-After", b"60"))
    )

    assert isinstance(staying.error, UpstreamFull)


def test_our_words_keep_the_time_to_come_back() -> None:
    """Calls refused together learn when it makes sense to ask again."""
    proxy = harness(calls=2, max_wait_s=1)
    calls = [proxy.submit("mine"), proxy.submit("yours")]

    _refuse(proxy.upstream.sent[0], (b"Retry-After", b"60"))

    for call in calls:
        assert isinstance(call.error, Overloaded)
        assert call.error.retry_after_s == 60


def test_calls_with_one_key_of_their_own_share_what_is_said_of_its_quota() -> None:
    """They are one client to the upstream, which tells it what it has used up."""
    proxy = harness(calls=2, max_wait_s=1)
    calls = [proxy.submit(text, lane="personal: key") for text in ("a", "b")]

    while proxy.upstream.open:
        proxy.upstream.open[0].refuse(429, b"quota exceeded")

    assert [call.reply.body for call in calls] == [b"quota exceeded"] * 2


def test_refusals_of_one_wave_count_once_and_are_not_multiplied() -> None:
    """One batch goes ahead to see whether there is room again."""
    proxy = harness(items=2, budget=8)
    calls = [proxy.submit(*texts(2, f"{number} ")) for number in range(4)]
    for sent in list(proxy.upstream.open):
        _refuse(sent)

    proxy.clock.advance(0.05)
    ahead = len(proxy.upstream.open)
    _serve(proxy)

    assert ahead == 1
    assert all(call.is_right for call in calls)
    assert len(proxy.upstream.sent) == 8
    assert proxy.is_at_rest


def test_a_refusal_halves_the_budget_and_answers_let_it_grow() -> None:
    """The upstream's room is found by trying, carefully."""
    proxy = harness(items=2, budget=16)
    proxy.submit("a", "b")
    limit = proxy.collector.budget.limit

    _refuse(proxy.upstream.sent[0])
    halved = limit.items
    proxy.clock.advance(0.05)
    proxy.upstream.open[0].answer()

    assert halved == 8
    assert limit.items == 10


def _serve_what_fits(proxy: Harness, room: int) -> None:
    """Be an upstream with *room* for so many inputs in a request."""
    for _ in range(40):
        for sent in list(proxy.upstream.open):
            if len(sent.inputs) > room:
                _refuse(sent)
            else:
                sent.answer()
        proxy.clock.advance(0.5)


def test_batches_are_no_larger_than_the_room_that_others_leave() -> None:
    """A call that would fit alone is not refused because of the others."""
    proxy = harness(calls=9, items=8, budget=64, slots=1)
    calls = [proxy.submit(text) for text in texts(30)]

    _serve_what_fits(proxy, room=3)

    assert all(call.is_right for call in calls)
    assert proxy.is_at_rest


def test_a_part_larger_than_the_room_that_others_leave_is_cut() -> None:
    """It would be refused for ever, and all behind it would wait."""
    proxy = harness(items=8, budget=64)
    large = proxy.submit(*texts(20))
    small = proxy.submit("small")

    _serve_what_fits(proxy, room=3)

    assert large.is_right
    assert small.is_right
    assert proxy.is_at_rest


def test_a_part_that_was_cut_leaves_with_its_caller() -> None:
    """All pieces go, wherever they are."""
    proxy = harness(items=8, budget=8)
    call = proxy.submit(*texts(8))
    _refuse(proxy.upstream.open[0])
    proxy.clock.advance(0.05)

    [piece] = proxy.upstream.open
    call.done.cancel()

    assert len(piece.inputs) == 4
    assert piece.was_cancelled
    proxy.collector.stop()
    assert proxy.is_at_rest


def test_a_bad_input_in_a_part_that_was_cut_is_the_answer() -> None:
    """The upstream's own words about a piece are its words about the call."""
    proxy = harness(items=8, budget=8)
    call = proxy.submit(*texts(8))
    _refuse(proxy.upstream.open[0])
    proxy.clock.advance(0.05)

    proxy.upstream.open[0].refuse(422, b"bad")

    assert call.reply.status == 422
    assert proxy.is_at_rest


def test_what_may_not_be_cut_hears_of_the_refusal() -> None:
    """The operator leaves it to the upstream."""
    proxy = harness(items=8, budget=64)
    proxy.collector.splits = False
    call = proxy.submit(*texts(8))

    _serve_what_fits(proxy, room=3)

    assert call.reply.status == 429


def test_order_survives_a_refusal() -> None:
    """What was first is first again."""
    proxy = harness(calls=2, slots=1)
    for text in texts(5):
        proxy.submit(text)

    for sent in list(proxy.upstream.open):
        _refuse(sent)
    proxy.clock.advance(0.05)
    _serve(proxy)

    again = [text for batch in proxy.upstream.batches[-3:] for text in batch]
    assert again == texts(5)


NOON = b"Tue, 24 Nov 2026 12:00:00 GMT"
DATE = (b"Date", NOON)


@pytest.mark.parametrize("value", [b"2", b"Tue, 24 Nov 2026 12:00:02 GMT"])
def test_retry_after_is_kept(value: bytes) -> None:
    """An upstream that says when is asked then, and not before."""
    proxy = harness()
    call = proxy.submit("a")
    _refuse(proxy.upstream.sent[0], DATE, (b"Retry-After", value))

    proxy.clock.advance(1.9)
    early = len(proxy.upstream.sent)
    proxy.clock.advance(0.1)
    _serve(proxy)

    assert early == 1
    assert call.is_right


@pytest.mark.parametrize("value", [b"3600", b"Tue, 24 Nov 2026 13:00:00 GMT"])
def test_a_pause_that_is_too_long_is_the_callers_to_decide(value: bytes) -> None:
    """No call is kept waiting for a quota that is used up for an hour."""
    proxy = harness()
    call = proxy.submit("a")

    _refuse(proxy.upstream.sent[0], DATE, (b"Retry-After", value))

    assert call.reply.status == 429
    assert proxy.is_at_rest


@pytest.mark.parametrize(
    "headers",
    [
        [DATE, (b"Retry-After", b"soon")],
        [DATE, (b"Retry-After", b"Tue, 24 Nov 2026 11:00:00 GMT")],
        [DATE, (b"Retry-After", b"Tue, 24 Nov 2026 13:00:00 -0000")],
        [(b"Retry-After", NOON)],
    ],
)
def test_a_retry_after_that_says_nothing_is_ignored(
    headers: list[tuple[bytes, bytes]],
) -> None:
    """No time, one that is over, or one that nothing can be compared with."""
    proxy = harness()
    call = proxy.submit("a")

    _refuse(proxy.upstream.sent[0], *headers)
    proxy.clock.advance(0.05)
    _serve(proxy)

    assert call.is_right


def test_a_clients_own_quota_is_its_own() -> None:
    """One client's 429 pauses no other."""
    proxy = harness()
    poor = proxy.submit("a", lane="personal: poor")
    rich = proxy.submit("b", lane="personal: rich")

    proxy.upstream.sent[0].done.callback(reply(429, b"quota exceeded"))
    proxy.upstream.sent[1].answer()

    assert poor.reply.body == b"quota exceeded"
    assert rich.is_right
    assert proxy.is_at_rest


def test_a_server_that_is_not_there_is_waited_for_with_any_key() -> None:
    """A 503 is about no client's quota, also if the client shows its own key."""
    proxy = harness()
    call = proxy.submit("a", lane="personal: key")

    proxy.upstream.sent[0].refuse(503, b"no server is available")
    proxy.clock.advance(0.05)
    _serve(proxy)

    assert call.is_right
    assert proxy.is_at_rest


def test_calls_wait_for_an_upstream_that_restarts() -> None:
    """A refused connection is no error as long as it does not last."""
    proxy = harness()
    calls = [proxy.submit("a"), proxy.submit("b"), proxy.submit("c")]

    for sent in list(proxy.upstream.open):
        sent.fail(CannotConnect("refused"))
    proxy.clock.advance(0.05)
    proxy.upstream.open[0].fail(CannotConnect("refused"))
    proxy.clock.advance(0.1)
    _serve(proxy)

    assert all(call.is_right for call in calls)
    assert proxy.is_at_rest


def test_an_upstream_that_stays_away_is_an_error_for_all() -> None:
    """Also for those that were never sent."""
    proxy = harness(slots=1)
    calls = [proxy.submit("a"), proxy.submit("b", lane="other")]

    for _ in range(120):
        for sent in list(proxy.upstream.open):
            sent.fail(CannotConnect("refused"))
        proxy.clock.advance(0.05)

    assert all(isinstance(call.error, CannotConnect) for call in calls)
    assert calls[0].error is not calls[1].error
    proxy.collector.stop()
    assert proxy.is_at_rest


def test_leaving_while_the_upstream_is_away_is_leaving() -> None:
    """A call that is cancelled while it waits is never sent."""
    proxy = harness()
    call = proxy.submit("a")
    proxy.upstream.sent[0].fail(CannotConnect("refused"))

    call.done.cancel()
    proxy.clock.advance(1)

    assert len(proxy.upstream.sent) == 1
    assert proxy.is_at_rest


class Mortal:
    """An upstream that dies of one text, with everything in flight."""

    def __init__(self, proxy: Harness, deadly: str) -> None:
        self.proxy = proxy
        self.deadly = deadly
        self.deaths = 0

    def work(self) -> None:
        """Answer what is in flight, or die of it."""
        waiting = self.proxy.upstream.open
        if any(self.deadly in sent.inputs for sent in waiting):
            self.deaths += 1
            for sent in waiting:
                sent.fail(ConnectionBroken("dead"))
        else:
            for sent in waiting:
                sent.answer()


@pytest.mark.parametrize("deadly", [0, 13, 63])
def test_a_query_of_death_costs_its_sender_an_error(deadly: int) -> None:
    """One call gets a 502, and all the others their rows."""
    proxy = harness(items=8, budget=64)
    calls = [proxy.submit(text) for text in texts(64)]
    mortal = Mortal(proxy, f"t{deadly}")

    while proxy.upstream.open:
        mortal.work()

    assert isinstance(calls[deadly].error, ConnectionBroken)
    assert all(call.is_right for call in calls if call is not calls[deadly])
    assert mortal.deaths == 3
    assert proxy.is_at_rest


def test_the_call_that_crashes_the_upstream_is_named_in_the_log() -> None:
    """Once, when it is certain; the calls that were sent with it never are."""
    proxy = harness(items=8)
    for text in texts(8):
        call = replace(call_of(text), request_id=text.encode)
        proxy.collector.submit(call).addErrback(lambda _: None)
    proxy.collector.dispatch()
    mortal = Mortal(proxy, "t5")

    with capturedLogs() as events:
        while proxy.upstream.open:
            mortal.work()

    assert mortal.deaths == 3
    assert [formatEvent(event) for event in events] == ["A batch failed: dead (t5)"]


def test_a_part_in_quarantine_is_sent_with_nothing_else_in_flight() -> None:
    """No new call breaks with it."""
    proxy = harness()
    suspect = proxy.submit("suspect")
    proxy.upstream.open[0].fail(ConnectionBroken("1"))
    proxy.upstream.open[0].fail(ConnectionBroken("2"))

    others = [proxy.submit("a"), proxy.submit("b")]
    alone = [sent.inputs for sent in proxy.upstream.open]
    _serve(proxy)

    assert alone == [["suspect"]]
    assert suspect.is_right
    assert all(call.is_right for call in others)


def test_a_part_in_quarantine_waits_for_what_is_in_flight() -> None:
    """What is in flight already is not put at risk."""
    proxy = harness()
    proxy.submit("suspect")
    proxy.upstream.open[0].fail(ConnectionBroken("1"))
    bystander = proxy.submit("bystander")
    proxy.upstream.open[0].fail(ConnectionBroken("2"))
    before = [sent.inputs for sent in proxy.upstream.open]

    proxy.upstream.open[0].answer()

    assert before == [["bystander"]]
    assert bystander.is_right
    assert [sent.inputs for sent in proxy.upstream.open] == [["suspect"]]


def test_a_part_in_quarantine_whose_caller_leaves_is_forgotten() -> None:
    """It is never sent."""
    proxy = harness()
    suspect = proxy.submit("suspect")
    proxy.submit("bystander")
    proxy.upstream.open[0].fail(ConnectionBroken("1"))
    proxy.upstream.open[1].fail(ConnectionBroken("2"))

    suspect.done.cancel()
    _serve(proxy)

    assert proxy.is_at_rest


@pytest.mark.parametrize("breaks", [0, 2])
def test_parts_of_one_call_that_are_given_up_together_are_counted_once(
    breaks: int,
) -> None:
    """The first takes the others along, which are on their way out as well."""
    proxy = harness(items=2)
    call = proxy.submit(*texts(4))
    for _ in range(breaks):
        for sent in list(proxy.upstream.open):
            sent.fail(ConnectionBroken("gone"))

    for _ in range(10):
        for sent in list(proxy.upstream.open):
            sent.fail(CannotConnect("away"))
        proxy.clock.advance(1)

    assert isinstance(call.error, CannotConnect)
    assert proxy.is_at_rest


def test_behind_a_port_that_stays_open_no_call_is_to_blame() -> None:
    """While a server restarts behind a balancer, calls wait as for any other."""
    proxy = harness()
    answers = [False, False, True]
    proxy.collector.quarantine.is_alive = lambda: succeed(answers.pop(0))
    call = proxy.submit("a")
    proxy.upstream.open[0].fail(ConnectionBroken("closed"))
    proxy.upstream.open[0].fail(ConnectionBroken("closed"))

    while not proxy.upstream.open:
        proxy.clock.advance(0.05)
    _serve(proxy)

    assert call.is_right
    assert answers == []
    assert proxy.is_at_rest


def test_a_part_in_quarantine_does_not_wait_for_ever_for_a_server() -> None:
    """It waits no longer than any other."""
    proxy = harness()
    proxy.collector.quarantine.is_alive = lambda: succeed(False)
    call = proxy.submit("a")
    proxy.upstream.open[0].fail(ConnectionBroken("closed"))
    proxy.upstream.open[0].fail(ConnectionBroken("closed"))

    proxy.clock.pump([0.05] * 140)

    assert isinstance(call.error, CannotConnect)
    proxy.collector.stop()
    assert proxy.is_at_rest


def test_a_part_cancelled_while_the_server_is_asked_is_not_sent() -> None:
    """The answer to the question finds the quarantine empty."""
    proxy = harness()
    asked: Deferred[bool] = Deferred()
    proxy.collector.quarantine.is_alive = lambda: asked
    call = proxy.submit("a")
    proxy.upstream.open[0].fail(ConnectionBroken("closed"))
    proxy.upstream.open[0].fail(ConnectionBroken("closed"))
    later = proxy.submit("b")

    call.done.cancel()
    asked.callback(True)
    _serve(proxy)

    assert later.is_right
    assert proxy.is_at_rest
