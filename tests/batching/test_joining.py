"""A call is answered with rows of one model, or not at all."""

from collections.abc import Sequence

import pytest
from attrs import define, field
from twisted.internet.defer import CancelledError, Deferred

from abproxy.batching.part import Caps
from abproxy.dialects.call import Call, PartResult
from abproxy.errors import ConnectionBroken, ModelChanged
from support.batching import Harness, harness, texts


@define
class Judge:
    """Says whether rows may be joined, when and as the test says."""

    waiting: list[Deferred[bool]] = field(factory=list)
    asked: list[int] = field(factory=list)
    """How many results there were each time."""

    def may_join(
        self, call: Call, results: Sequence[PartResult]
    ) -> bool | Deferred[bool]:
        """Let the test say it."""
        del call
        self.asked.append(len(results))
        answer: Deferred[bool] = Deferred()
        self.waiting.append(answer)
        return answer

    def say(self, *, yes: bool) -> None:
        """Say it to the one that has waited longest."""
        self.waiting.pop(0).callback(yes)


@pytest.fixture
def judge() -> Judge:
    """Return who decides."""
    return Judge()


@pytest.fixture
def flow(judge: Judge) -> Harness:
    """Return a collector for batches of two items."""
    return harness(items=2, may_join=judge.may_join)


def answer_all(flow: Harness) -> None:
    """Answer until nothing is open."""
    while flow.upstream.open:
        flow.upstream.open[0].answer()
        flow.clock.advance(0)


def test_parts_wait_until_it_is_known_that_they_belong_together(
    flow: Harness, judge: Judge
) -> None:
    """A server is perhaps asked for its model first."""
    call = flow.submit(*texts(5))

    answer_all(flow)
    assert call.is_open
    assert judge.asked == [3]

    judge.say(yes=True)
    assert call.is_right
    assert flow.is_at_rest


def test_a_call_in_one_part_is_asked_about_by_nobody(
    flow: Harness, judge: Judge
) -> None:
    """It has one answer only."""
    call = flow.submit(*texts(2))

    answer_all(flow)

    assert call.is_right
    assert not judge.asked


def test_parts_of_two_models_are_computed_again(flow: Harness, judge: Judge) -> None:
    """All of them, as it is not known which are of the model that stays."""
    call = flow.submit(*texts(5))
    answer_all(flow)

    judge.say(yes=False)
    flow.clock.advance(0)
    answer_all(flow)
    judge.say(yes=True)

    first, again = flow.upstream.batches[:3], flow.upstream.batches[3:]
    assert sorted(first) == sorted(again)
    assert call.is_right
    assert flow.is_at_rest


def test_a_call_is_computed_again_only_once(flow: Harness, judge: Judge) -> None:
    """A server that changes its model all the time is no server for it."""
    call = flow.submit(*texts(5))
    for _ in range(2):
        answer_all(flow)
        judge.say(yes=False)
        flow.clock.advance(0)

    assert isinstance(call.error, ModelChanged)
    assert "send it again" in str(call.error)
    assert not flow.upstream.open
    assert flow.is_at_rest


def test_who_leaves_while_it_is_decided_is_not_waited_for(flow: Harness) -> None:
    """Nothing is computed for him again."""
    call = flow.submit(*texts(5))
    answer_all(flow)

    call.done.cancel()
    flow.clock.advance(0)

    assert isinstance(call.error, CancelledError)
    assert flow.is_at_rest
    assert len(flow.upstream.sent) == 3


def test_who_leaves_while_it_is_computed_again_takes_all_with_him(
    flow: Harness, judge: Judge
) -> None:
    """As at the first time."""
    call = flow.submit(*texts(5))
    answer_all(flow)
    judge.say(yes=False)
    flow.clock.advance(0)

    call.done.cancel()
    flow.clock.advance(0)

    again = flow.upstream.sent[3:]
    assert again
    assert all(sent.was_cancelled for sent in again)
    assert flow.is_at_rest


def test_a_bug_in_the_decision_is_told(flow: Harness, judge: Judge) -> None:
    """The caller does not wait for ever."""
    call = flow.submit(*texts(5))
    answer_all(flow)

    judge.waiting[0].errback(ZeroDivisionError("a bug"))

    assert isinstance(call.error, ZeroDivisionError)
    assert flow.is_at_rest


def test_a_second_time_fails_as_the_first_would(flow: Harness, judge: Judge) -> None:
    """What the server says then is the answer."""
    call = flow.submit(*texts(5))
    answer_all(flow)
    judge.say(yes=False)
    flow.clock.advance(0)

    flow.upstream.open[0].refuse(400, b"bad")
    flow.clock.advance(0)

    assert (call.reply.status, call.reply.body) == (400, b"bad")


def test_a_call_that_was_split_after_all_is_looked_at_as_well(
    judge: Judge,
) -> None:
    """The server has said that it was too large, which nobody knew."""
    flow = harness(items=4, may_join=judge.may_join)
    call = flow.submit(*texts(4))
    flow.collector.learn(Caps(calls=8, items=2, size=100_000), 512)
    flow.upstream.open[0].refuse(
        422, b'{"error":"batch size 4 > maximum allowed batch size 2"}'
    )
    flow.clock.advance(0)
    answer_all(flow)
    assert judge.asked == [2]

    judge.say(yes=False)
    flow.clock.advance(0)
    answer_all(flow)
    judge.say(yes=True)

    assert call.is_right
    assert flow.is_at_rest


def test_a_piece_of_a_part_is_looked_at_with_all_parts(
    flow: Harness, judge: Judge
) -> None:
    """And only there: a part that is computed again alone is of another model."""
    call = flow.submit(*texts(4))
    flow.upstream.open[0].refuse(413, b"too large")
    flow.clock.advance(0)
    answer_all(flow)

    assert judge.asked == [3]
    judge.say(yes=True)
    assert call.is_right


def test_a_call_that_broke_is_computed_again_all_the_same(
    flow: Harness, judge: Judge
) -> None:
    """The server that died has come back with another model."""
    call = flow.submit(*texts(4))
    flow.upstream.open[0].answer()
    flow.upstream.open[0].fail(ConnectionBroken("gone"))
    flow.clock.advance(0)
    answer_all(flow)

    judge.say(yes=False)
    flow.clock.advance(0)
    answer_all(flow)
    judge.say(yes=True)

    assert call.is_right
    assert flow.is_at_rest
