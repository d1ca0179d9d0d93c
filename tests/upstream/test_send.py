"""What is measured of the requests to an upstream."""

import pytest
from attrs import define, field
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from abproxy.errors import CannotConnect, InternalError, UpstreamTimeout
from abproxy.events import Observer
from abproxy.http.messages import Response, UpstreamRequest
from abproxy.upstream.client import Upstream
from abproxy.upstream.server_info import ServerInfo
from support.upstream import RecordingUpstream, make_upstream, reply

TOO_MANY = b'{"error":"batch size 33 > maximum allowed batch size 8"}'
REQUEST = UpstreamRequest(path=b"/embed", headers=(), body=b"")


@define(eq=False)
class Meter(Observer):
    """Notes what it is told."""

    told: list[tuple[str, float]] = field(factory=list)

    def upstream_request_ended(self, outcome: str, took_s: float) -> None:
        self.told.append((outcome, took_s))


@define(eq=False)
class Journey:
    """One request, with a meter on its way."""

    clock: Clock = field(factory=Clock)
    upstream: RecordingUpstream = field(factory=RecordingUpstream)
    meter: Meter = field(factory=Meter)
    results: list[Response | Failure] = field(factory=list)
    server: Upstream = field(init=False)
    under_way: Deferred[None] = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.server = make_upstream(self.upstream.send, self.clock, observer=self.meter)
        self.under_way = self.server.send(REQUEST).addBoth(self.results.append)


def test_an_answer_is_metered_by_its_status() -> None:
    """And by the time from request to whole answer."""
    journey = Journey()

    journey.clock.advance(0.5)
    journey.upstream.sent[0].done.callback(reply(429, b"full"))

    assert journey.meter.told == [("429", 0.5)]
    assert journey.results == [reply(429, b"full")]


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (CannotConnect("away"), "upstream_unreachable"),
        (UpstreamTimeout("late"), "upstream_timeout"),
        (InternalError("a bug"), "bug"),
    ],
)
def test_what_went_wrong_is_metered_by_its_reason(
    error: Exception, outcome: str
) -> None:
    """The error goes on to whoever sent the request."""
    journey = Journey()

    journey.clock.advance(2)
    journey.upstream.sent[0].fail(error)

    [failure] = journey.results
    assert journey.meter.told == [(outcome, 2)]
    assert isinstance(failure, Failure)
    assert failure.value is error


def test_a_bug_in_who_learns_is_metered_as_one() -> None:
    """And goes on to whoever sent the request."""
    journey, bug = Journey(), ZeroDivisionError("a bug")

    def learn(_info: ServerInfo) -> None:
        raise bug

    journey.server.discovery.on_change = learn
    journey.upstream.sent[0].refuse(422, TOO_MANY)

    [failure] = journey.results
    assert journey.meter.told == [("bug", 0)]
    assert isinstance(failure, Failure)
    assert failure.value is bug


def test_a_request_that_nobody_waits_for_is_metered_as_cancelled() -> None:
    """The upstream hears of it."""
    journey = Journey()

    journey.under_way.cancel()

    [failure] = journey.results
    assert journey.meter.told == [("cancelled", 0)]
    assert isinstance(failure, Failure)
    assert failure.check(CancelledError)
    assert journey.upstream.sent[0].was_cancelled


def test_a_request_under_way_is_not_metered_yet() -> None:
    """Nobody knows what comes of it."""
    journey = Journey()

    assert journey.meter.told == []
    assert journey.upstream.sent[0].request is REQUEST
