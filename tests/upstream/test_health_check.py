"""One question to the upstream, however many ask."""

from collections.abc import Iterator
from typing import Any

import pytest
from attrs import define, field
from twisted.internet.defer import CancelledError
from twisted.internet.task import Clock

from abproxy.errors import CannotConnect, InternalError, UpstreamTimeout
from abproxy.http.messages import UpstreamRequest
from abproxy.upstream.health import Answer, HealthCheck
from support.upstream import RecordingUpstream, reply

QUESTION = UpstreamRequest(method=b"GET", path=b"/health", headers=(), body=b"")
FINE = reply(200, b"fine")


@define(eq=False)
class Callers:
    """Callers that query the health, and the upstream that is asked for them."""

    clock: Clock = field(factory=Clock)
    upstream: RecordingUpstream = field(factory=RecordingUpstream)
    heard: list[Answer] = field(factory=list)
    probe: HealthCheck = field(init=False)

    def __attrs_post_init__(self) -> None:
        send, clock = self.upstream.send, self.clock
        clock.advance(1000)
        self.probe = HealthCheck(question=QUESTION, send=send, clock=clock)

    def ask(self) -> Any:
        """Let one more ask."""
        asked = self.probe.ask()
        asked.addCallback(self.heard.append)
        return asked

    def ask_and_leave(self) -> None:
        """Let one more ask, and give up at once."""
        asked = self.ask()
        asked.addErrback(lambda failure: failure.trap(CancelledError))
        asked.cancel()

    @property
    def questions(self) -> int:
        """How often the upstream was asked."""
        return len(self.upstream.sent)

    def answer(self) -> None:
        """Let the upstream answer what is open."""
        self.upstream.open[0].done.callback(FINE)


@pytest.fixture
def asking() -> Iterator[Callers]:
    """Have a probe that was not used yet, and that leaves no timer behind."""
    asking = Callers()
    yield asking
    assert not asking.clock.getDelayedCalls()


def test_the_upstreams_own_answer_is_given(asking: Callers) -> None:
    """Its status, its headers and its body."""
    asking.ask()
    asking.answer()

    assert asking.heard == [FINE]
    assert asking.upstream.sent[0].request is QUESTION


def test_those_who_ask_together_share_a_question(asking: Callers) -> None:
    """A thousand probes a second are one for the upstream."""
    asking.ask()
    asking.ask()
    asking.ask()
    asking.answer()

    assert asking.questions == 1
    assert asking.heard == [FINE] * 3


def test_an_answer_is_good_for_a_second(asking: Callers) -> None:
    """Whoever asks meanwhile gets the same."""
    asking.ask()
    asking.answer()

    asking.clock.advance(0.9)
    asking.ask()

    assert asking.questions == 1
    assert asking.heard == [FINE, FINE]


def test_after_a_second_the_upstream_is_asked_again(asking: Callers) -> None:
    """A server that has died since is found out."""
    asking.ask()
    asking.answer()

    asking.clock.advance(1)
    asking.ask()
    asking.upstream.open[0].fail(CannotConnect("gone"))

    assert asking.questions == 2
    assert isinstance(asking.heard[1], CannotConnect)


def test_why_there_is_no_answer_is_an_answer(asking: Callers) -> None:
    """Also to those who ask within the second."""
    asking.ask()
    asking.upstream.open[0].fail(CannotConnect("nobody there"))
    asking.ask()

    assert [str(answer) for answer in asking.heard] == ["nobody there"] * 2


def test_an_upstream_that_is_silent_is_not_waited_for(asking: Callers) -> None:
    """A supervisor that asks has little patience itself."""
    asking.ask()

    asking.clock.advance(4.9)
    early = list(asking.heard)
    asking.clock.advance(0.1)

    [answer] = asking.heard
    assert early == []
    assert isinstance(answer, UpstreamTimeout)
    assert str(answer) == "the inference server did not answer within 5 seconds"
    assert asking.upstream.sent[0].was_cancelled


def test_who_leaves_takes_no_answer_from_the_others(asking: Callers) -> None:
    """A probe that gives up harms nobody who still waits."""
    asking.ask_and_leave()
    asking.ask()

    asking.answer()

    assert asking.heard == [FINE]


def test_when_all_have_left_the_next_one_is_answered(asking: Callers) -> None:
    """By the question that is still under way."""
    asking.ask_and_leave()

    asking.answer()
    asking.ask()

    assert asking.questions == 1
    assert asking.heard == [FINE]


def test_a_bug_is_an_answer_and_not_the_end(
    asking: Callers, nothing_leaked: list[object]
) -> None:
    """Whoever asks hears of it, and the next one asks anew."""
    asking.ask()
    asking.upstream.open[0].fail(ZeroDivisionError("a bug"))

    asking.clock.advance(1)
    asking.ask()
    asking.answer()

    assert isinstance(asking.heard[0], InternalError)
    assert asking.heard[1] == FINE
    assert len(nothing_leaked) == 1
    nothing_leaked.clear()
