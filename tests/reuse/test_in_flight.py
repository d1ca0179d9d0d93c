"""Equal items that are asked for at the same time are computed once."""

from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from twisted.internet.defer import CancelledError, Deferred

from abproxy.dialects.call import Call, PartResult
from abproxy.errors import CannotConnect, QueueFull
from abproxy.events import Observer
from abproxy.http.messages import Response
from abproxy.reuse.inflight import AT_ONCE, InFlight
from abproxy.upstream.identity import Source
from support.batching import Outcome, call_of, harness
from support.reuse import BAD, EVENTS, Computer, alone, check, may_join, play, texts_of


class Reused(Observer):
    """Counts what was not computed again."""

    items = 0

    def reused(
        self, source: str, items: int, trace: Any = None, others: Sequence[Any] = ()
    ) -> None:
        """Count."""
        del trace, others
        assert source == "in_flight"
        self.items += items


def submit(in_flight: InFlight, *texts: str, lane: str = "") -> Outcome:
    """Submit one call, and follow it."""
    call = call_of(*texts, lane=lane)
    return Outcome(call, in_flight.submit(call))


def shared(server: Computer, *calls: Sequence[str], **about: Any) -> list[Outcome]:
    """Submit calls at the same time."""
    in_flight = InFlight(compute=server.compute, **about)
    return [submit(in_flight, *texts) for texts in calls]


def test_equal_calls_are_computed_once() -> None:
    """Forty callers who ask the same at once cost one computation."""
    server, reused = Computer(), Reused()
    calls = shared(server, *[["a"]] * 40, observer=reused)
    assert server.batches == [["a"]]
    server.answer()
    assert all(call.is_right for call in calls)
    assert reused.items == 39


def test_a_lone_call_gets_its_answer_as_it_came() -> None:
    """No other waits for it, so nothing is cut."""
    server = Computer()
    [call] = shared(server, ["a", "b"])
    answer = Response(status=200, reason=b"Fine", headers=((b"A", b"b"),), body=b"[ ]")
    server.answer_with(answer)
    assert call.reply is answer


def test_only_what_is_not_being_computed_is_asked_for() -> None:
    """Items are shared across calls of different size."""
    server = Computer()
    calls = shared(server, ["a", "b"], ["b", "c", "a"], ["c"])
    assert server.batches == [["a", "b"], ["c"]]
    server.answer_all()
    assert all(call.is_right for call in calls)


def test_an_item_that_stands_twice_in_a_call_is_computed_once() -> None:
    """And its row stands twice in the answer."""
    server = Computer()
    [call] = shared(server, ["a", "b", "a", "a"])
    assert server.batches == [["a", "b"]]
    server.answer()
    assert call.is_right


def test_lanes_share_nothing() -> None:
    """Other credentials might get another answer."""
    server = Computer()
    in_flight = InFlight(compute=server.compute)
    submit(in_flight, "a", lane="one")
    submit(in_flight, "a", lane="two")
    assert len(server.open) == 2


def test_nothing_is_kept_once_it_is_answered() -> None:
    """The next one who asks gets an answer of its own."""
    server = Computer()
    in_flight = InFlight(compute=server.compute)
    submit(in_flight, "a")
    server.answer()
    assert not in_flight.items
    submit(in_flight, "a")
    assert len(server.asked) == 2


def test_who_computes_may_leave() -> None:
    """What others wait for goes on."""
    server = Computer()
    first, second = shared(server, ["a"], ["a"])
    first.done.cancel()
    assert isinstance(first.error, CancelledError)
    server.answer()
    assert second.is_right


def test_who_follows_may_leave() -> None:
    """It takes nothing from the one who computes."""
    server = Computer()
    first, second = shared(server, ["a"], ["b", "a"])
    second.done.cancel()
    assert isinstance(second.error, CancelledError)
    assert [texts_of(call) for call, _ in server.open] == [["a"]]
    server.answer()
    assert first.is_right


def test_the_last_who_leaves_cancels_the_work() -> None:
    """There is no one for whom the server should do it."""
    server = Computer()
    for call in shared(server, ["a"], ["a"], ["a"]):
        assert server.open
        call.done.cancel()
    assert not server.open


@pytest.mark.parametrize("texts", [["a"], ["a", "b"], ["a", "a"]])
def test_a_lone_caller_who_leaves_cancels_its_call(texts: list[str]) -> None:
    """As it would without others."""
    server = Computer()
    [call] = shared(server, texts)
    call.done.cancel()
    assert isinstance(call.error, CancelledError)
    assert not server.open


def test_what_is_answered_at_once_is_handed_on() -> None:
    """An answer may be there before its call is known to be computed."""
    server = Computer(is_quick=True)
    [call] = shared(server, ["a", "b", "a"])
    assert call.is_right


def test_a_full_queue_refuses_only_what_would_be_computed() -> None:
    """Who follows needs no room."""
    server = Computer()
    in_flight = InFlight(compute=server.compute)
    first = submit(in_flight, "a")
    server.is_full = True
    second = submit(in_flight, "a")
    server.answer()
    assert first.is_right
    assert second.is_right
    assert not in_flight.items


class Filling(Computer):
    """Ends all that is open before it has accepted one more, as a full batch may."""

    ends = "answer"

    def compute(self, call: Call) -> Deferred[list[PartResult]]:
        """Accept one call, which fills the batch."""
        for _ in self.open:
            getattr(self, self.ends)()
        return super().compute(call)


def test_work_that_ends_while_the_rest_is_accepted_is_not_missed() -> None:
    """Its rows are for those who have just begun to follow it, too."""
    first, second = shared(server := Filling(), ["a", "b"], ["b", "c", "a"])
    assert first.is_right
    server.answer()
    assert server.batches == [["a", "b"], ["c"]]
    assert second.is_right


def test_work_that_fails_while_the_rest_is_accepted_leaves_its_follower_alone() -> None:
    """Who followed is sent as his client wrote it, and nothing else for him."""
    server = Filling()
    in_flight = InFlight(compute=server.compute)
    first = submit(in_flight, "a", "b")
    server.ends = "fail"
    second = submit(in_flight, "b", "c", "a")
    assert isinstance(first.error, CannotConnect)
    assert [texts_of(call) for call, _ in server.open] == [["b", "c", "a"]]
    server.answer()
    assert second.is_right
    assert not in_flight.items


def test_a_call_that_is_refused_follows_nothing() -> None:
    """It is over, so what it would have followed may be cancelled."""
    server = Computer()
    in_flight = InFlight(compute=server.compute)
    first = submit(in_flight, "a")
    server.is_full = True
    with pytest.raises(QueueFull):
        submit(in_flight, "a", "b")
    first.done.cancel()
    assert not server.open


def test_callers_of_one_bad_item_cost_two_requests() -> None:
    """The answer of two probes is that of all who asked for the same."""
    server = Computer()
    calls = shared(server, *[[BAD]] * 40)
    server.answer_all()
    assert server.batches == [[BAD]] * 2
    assert {call.reply.status for call in calls} == {422}
    assert len({call.reply.body for call in calls}) == 1


def test_an_answer_that_differs_is_that_of_its_caller_only() -> None:
    """Then all are sent by themselves, four at a time."""
    server = Computer()
    calls = shared(server, *[[BAD]] * 40)
    most = 0
    for number in range(len(calls)):
        most = max(most, len(server.open))
        body = b'{"error":"id %d"}' % number
        server.answer_with(Response(status=500, reason=b"", headers=(), body=body))
    assert not server.open
    assert most == AT_ONCE
    assert len({call.reply.body for call in calls}) == len(calls)


def test_a_failure_reaches_no_other_item() -> None:
    """Who followed a bad call for one good item of it gets that."""
    server = Computer()
    bad, good = shared(server, ["a", BAD], ["a"])
    server.answer_all()
    assert bad.reply.body == alone(["a", BAD]).body
    assert good.is_right


def test_a_failure_of_ours_is_no_outcome_for_followers() -> None:
    """They were not sent yet."""
    server = Computer()
    first, second, third = shared(server, ["a"], ["a"], ["a"])
    server.fail()
    assert isinstance(first.error, CannotConnect)
    server.answer_all()
    assert second.is_right
    assert third.is_right


def test_an_answer_that_cannot_be_cut_is_for_its_own_caller() -> None:
    """Followers are sent by themselves."""
    server = Computer()
    first, second = shared(server, ["a", "b"], ["b"])
    odd = Response(status=200, reason=b"", headers=(), body=b"[[1]]")
    server.answer_with(odd)
    server.answer_all()
    assert first.reply is odd
    assert second.is_right


def test_only_so_much_is_held_for_those_who_follow(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What is over that is computed by itself, and counts as other calls do."""
    monkeypatch.setattr("abproxy.reuse.inflight.MAX_HELD_BYTES", 100)
    server = Computer()
    in_flight = InFlight(compute=server.compute)
    text = "x" * 40
    calls = [submit(in_flight, text) for _ in range(4)]
    assert len(server.asked) == 3
    calls[1].done.cancel()
    calls.append(submit(in_flight, text))
    assert len(server.asked) == 3
    server.answer_all()
    assert [call.is_right for call in calls if call is not calls[1]] == [True] * 4
    assert not in_flight.held_bytes


def test_work_of_the_old_model_is_not_followed() -> None:
    """Who asks once it is known that there is a new one gets rows of that alone."""
    server = Computer()
    in_flight = InFlight(compute=server.compute)
    old = submit(in_flight, "a")
    in_flight.forget()
    new = submit(in_flight, "a", "b")
    assert server.batches == [["a"], ["a", "b"]]
    server.answer()
    server.model = 1
    server.answer()
    assert old.reply.body == alone(["a"]).body
    assert new.reply.body == alone(["a", "b"], 1).body
    assert not in_flight.items


def test_work_of_two_models_is_not_joined() -> None:
    """A call that followed both is computed by itself."""
    server = Computer()
    in_flight = InFlight(compute=server.compute, may_join=may_join)
    submit(in_flight, "a")
    submit(in_flight, "b")
    both = submit(in_flight, "a", "b")
    server.answer()
    server.model = 1
    server.answer()
    assert server.batches == [["a"], ["b"], ["a", "b"]]
    server.answer()
    assert both.reply.body == alone(["a", "b"], 1).body
    assert not in_flight.held_bytes


def test_who_follows_work_of_two_models_may_leave() -> None:
    """While it is not known yet that they are two."""
    server, source = Computer(), Source()
    in_flight = InFlight(compute=server.compute, may_join=may_join)
    submit(in_flight, "a")
    submit(in_flight, "b")
    both = submit(in_flight, "a", "b")
    server.answer()
    server.answer_with(replace(alone(["b"]), source=source))
    assert both.is_open
    both.done.cancel()
    source.end()
    assert isinstance(both.error, CancelledError)
    assert not server.open
    assert not in_flight.held_bytes


@given(st.lists(EVENTS, min_size=20, max_size=60))
def test_each_caller_gets_what_it_would_get_alone(
    events: list[tuple[str, Any]],
) -> None:
    """Whatever is submitted, answered, cancelled and fails, in any order."""
    server = Computer()
    in_flight = InFlight(compute=server.compute, may_join=may_join)

    def learn(model: int) -> None:
        del model
        in_flight.forget()

    def ask(texts: list[str]) -> Outcome:
        return submit(in_flight, *texts)

    calls, failures = play(events, server, ask, learn)
    assert not in_flight.items
    assert not in_flight.held_bytes
    check(calls, failures, server.model)


def test_a_parts_own_waiter_is_what_others_follow() -> None:
    """The one who computes costs no second Deferred, and may leave nevertheless."""
    proxy = harness()
    in_flight = InFlight(compute=proxy.collector.submit, is_of_collector=True)
    first = submit(in_flight, "a")
    second, third = submit(in_flight, "a"), submit(in_flight, "b", "a")
    proxy.clock.advance(0)
    first.done.cancel()
    assert isinstance(first.error, CancelledError)
    assert proxy.upstream.batches == [["a"], ["b"]]
    while proxy.upstream.open:
        proxy.upstream.open[0].answer()
    assert second.is_right
    assert third.is_right
    assert not in_flight.items


def test_the_last_follower_of_a_part_cancels_its_request() -> None:
    """Its own caller had left before."""
    proxy = harness()
    in_flight = InFlight(compute=proxy.collector.submit, is_of_collector=True)
    calls = [submit(in_flight, "a") for _ in range(3)]
    for call in calls:
        assert proxy.upstream.open
        call.done.cancel()
    assert not proxy.upstream.open
    assert not in_flight.items
    assert proxy.is_at_rest


@pytest.mark.parametrize("inputs", [1, 4, 40])
def test_what_is_followed_may_be_of_any_size(inputs: int) -> None:
    """One part of a batch, a whole batch, or a call of several batches."""
    proxy = harness(items=4)
    in_flight = InFlight(compute=proxy.collector.submit, is_of_collector=True)
    some = [f"text {number}" for number in range(inputs)]
    calls = [submit(in_flight, *some) for _ in range(3)]
    calls[0].done.cancel()
    proxy.clock.advance(0)
    while proxy.upstream.open:
        proxy.upstream.open[0].answer()
    assert all(call.is_right for call in calls[1:])
    assert sum(map(len, proxy.upstream.batches)) == inputs
    assert proxy.is_at_rest
