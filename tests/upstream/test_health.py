"""What the latest attempts say of the upstream."""

import pytest
from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent

from abproxy.errors import (
    CannotConnect,
    ConnectionBroken,
    ProxyError,
    UpstreamTimeout,
)
from abproxy.events import UpstreamState
from abproxy.http.messages import Response, UpstreamRequest
from abproxy.upstream.client import Upstream
from abproxy.upstream.health import Health
from support.upstream import RecordingUpstream, make_upstream, reply

QUESTION = UpstreamRequest(path=b"/embed", headers=(), body=b"")
AWAY = CannotConnect("cannot reach the inference server")


@define(eq=False)
class Attempts:
    """Requests to an upstream, one after the other, and what is thought of it."""

    clock: Clock = field(factory=Clock)
    upstream: RecordingUpstream = field(factory=RecordingUpstream)
    server: Upstream = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.server = make_upstream(self.upstream.send, self.clock)

    @property
    def condition(self) -> Health:
        """What is thought of the upstream."""
        return self.server.health

    def send(self) -> "Deferred[Response]":
        """Send one request."""
        return self.server.send(QUESTION)

    def answered(self, status: int) -> Response:
        """Send a request that is answered; what its sender gets."""
        found: list[Response] = []
        self.send().addCallback(found.append)
        self.upstream.open[0].done.callback(reply(status, b""))
        return found[0]

    def failed(self, error: ProxyError) -> BaseException:
        """Send a request that fails; what its sender gets."""
        found: list[BaseException] = []
        self.send().addErrback(lambda failure: found.append(failure.value))
        self.upstream.open[0].fail(error)
        return found[0]


def test_at_first_nothing_is_known() -> None:
    """Nobody has asked yet."""
    condition = Attempts().condition

    assert condition.state is UpstreamState.UNKNOWN
    assert not condition.state.answers
    assert condition.why == "not checked yet"


@pytest.mark.parametrize("status", [200, 404, 422, 500])
def test_an_upstream_that_answers_is_up(status: int) -> None:
    """Whatever it says, it is there."""
    attempts = Attempts()

    attempts.answered(status)

    assert attempts.condition.state is UpstreamState.UP
    assert attempts.condition.state.answers
    assert attempts.condition.why == ""


@pytest.mark.parametrize("status", [429, 503])
def test_an_upstream_without_room_is_full(status: int) -> None:
    """It answers all the same."""
    attempts = Attempts()

    attempts.answered(status)

    assert attempts.condition.state is UpstreamState.FULL
    assert attempts.condition.state.answers
    assert attempts.condition.why == f"it answers with {status}"


def test_an_upstream_that_cannot_be_connected_to_is_unreachable() -> None:
    """The reason is the error's own."""
    attempts = Attempts()

    attempts.failed(AWAY)

    assert attempts.condition.state is UpstreamState.UNREACHABLE
    assert not attempts.condition.state.answers
    assert attempts.condition.why == "cannot reach the inference server"


@pytest.mark.parametrize(
    "error", [ConnectionBroken("it broke off"), UpstreamTimeout("it broke off")]
)
def test_an_upstream_that_breaks_off_or_is_late_fails(error: ProxyError) -> None:
    """It is there, but of no use."""
    attempts = Attempts()

    attempts.failed(error)

    assert attempts.condition.state is UpstreamState.FAILING
    assert not attempts.condition.state.answers
    assert attempts.condition.why == "it broke off"


def test_a_request_that_was_cancelled_says_nothing() -> None:
    """Its callers have left; that is no word of the upstream's."""
    attempts = Attempts()
    attempts.answered(200)

    asked = attempts.send()
    asked.addErrback(lambda _: None)
    asked.cancel()

    assert attempts.condition.state is UpstreamState.UP


def test_whoever_sends_hears_what_was_said() -> None:
    """Watching changes neither answers nor errors."""
    attempts = Attempts()

    assert attempts.answered(422) == reply(422, b"")
    assert attempts.failed(AWAY) is AWAY


def test_a_state_counts_from_when_it_began() -> None:
    """Saying the same again is no news; the reason is the latest one."""
    attempts = Attempts()
    attempts.clock.advance(1)
    attempts.failed(AWAY)

    attempts.clock.advance(1)
    attempts.failed(CannotConnect("still not"))

    assert attempts.condition.since == 1
    assert attempts.condition.why == "still not"


@pytest.mark.parametrize("status", [200, 503], ids=["up", "full"])
def test_an_upstream_that_is_back_is_one_line_in_the_log(status: int) -> None:
    """With how long it was away; that it is full now is another matter."""
    attempts = Attempts()
    attempts.failed(AWAY)
    attempts.clock.advance(12.34)

    with capturedLogs() as events:
        attempts.answered(status)
        attempts.answered(200)

    said = [formatEvent(event) for event in events]
    assert said == ["The inference server answers again after 12.3 s"]


def test_an_upstream_that_was_only_full_was_never_away() -> None:
    """Nothing is said of its return."""
    attempts = Attempts()
    attempts.answered(200)
    attempts.answered(429)

    with capturedLogs() as events:
        attempts.answered(200)

    assert events == []
