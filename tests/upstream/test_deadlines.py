"""One timer for the deadlines of all requests in flight."""

from typing import Any

import pytest
from attrs import define, field
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock

from abproxy.errors import UpstreamTimeout
from abproxy.events import Observer
from abproxy.http.messages import Response, UpstreamRequest
from abproxy.upstream.client import Deadlines, Upstream
from support.upstream import RecordingUpstream, make_upstream

REQUEST = UpstreamRequest(path=b"/embed", headers=(), body=b'{"inputs":"a"}')


@define(eq=False)
class Waiting:
    """Deadlines, and what was cancelled by them, at which time."""

    clock: Clock = field(factory=Clock)
    deadlines: Deadlines = field(init=False)
    late: dict[str, float] = field(factory=dict)

    def __attrs_post_init__(self) -> None:
        self.deadlines = Deadlines(self.clock)

    def add(self, name: str, due_at: float) -> Deferred[Any]:
        """Add one more."""
        waiter: Deferred[Any] = Deferred()
        waiter.addErrback(self._cancelled, name)
        self.deadlines.add(waiter, due_at)
        return waiter

    def _cancelled(self, failure: Any, name: str) -> None:
        failure.trap(CancelledError)
        self.late[name] = self.clock.seconds()

    def pass_to(self, at: float) -> None:
        """Let time pass, timer by timer."""
        while calls := [c for c in self.clock.getDelayedCalls() if c.getTime() <= at]:
            self.clock.advance(calls[0].getTime() - self.clock.seconds())
        self.clock.advance(at - self.clock.seconds())


@pytest.mark.parametrize("order", ["abc", "cba", "bca"])
def test_each_is_cancelled_at_its_own_time(order: str) -> None:
    """Whatever is in flight with it, and with whatever deadline."""
    due = {"a": 1.0, "b": 2.0, "c": 3.0}
    here = Waiting()
    for name in order:
        here.add(name, due[name])

    here.pass_to(10)

    assert here.late == due
    assert not here.clock.getDelayedCalls()


def test_what_has_ended_is_left_alone() -> None:
    """Also if the timer was set for it, and others are open."""
    here = Waiting()
    first = here.add("first", 1)
    here.add("second", 2)

    was_in_time = here.deadlines.remove(first)
    here.pass_to(10)

    assert was_in_time
    assert here.late == {"second": 2}


def test_what_was_cancelled_was_not_in_time() -> None:
    """So it can be told from what others have cancelled."""
    here = Waiting()
    waiter = here.add("late", 1)
    here.pass_to(1)

    assert not here.deadlines.remove(waiter)


def test_there_is_one_timer_for_all() -> None:
    """A crowd costs no more than a lone request."""
    here = Waiting()
    for number in range(20):
        here.add(str(number), 5 + number)

    assert len(here.clock.getDelayedCalls()) == 1


def test_the_timer_is_gone_with_the_last() -> None:
    """An idle process is not woken."""
    here = Waiting()
    waiters = [here.add(name, 5) for name in "ab"]
    here.deadlines.remove(waiters[0])
    here.deadlines.rest()
    during = len(here.clock.getDelayedCalls())
    here.deadlines.remove(waiters[1])
    here.deadlines.rest()

    assert (during, here.clock.getDelayedCalls()) == (1, [])


@define(eq=False)
class Order(Observer):
    """Notes in which order things happen."""

    told: list[str] = field(factory=list)

    def upstream_request_ended(self, outcome: str, took_s: float) -> None:  # noqa: ARG002
        self.told.append("counted")

    def waits_for(self, upstream: Upstream) -> None:
        """Send something, and note when it is answered."""
        upstream.send(REQUEST).addCallback(lambda _: self.told.append("answered"))


def test_a_good_answer_is_handed_on_before_it_is_counted() -> None:
    """The client is not to wait for figures."""
    order, server = Order(), RecordingUpstream()
    order.waits_for(make_upstream(server.send, Clock(), observer=order))

    server.open[0].answer()

    assert order.told == ["answered", "counted"]


def test_a_shorter_deadline_counts_from_the_next_request_on() -> None:
    """Those in flight keep the one that they were sent with."""
    clock, server, late = Clock(), RecordingUpstream(), list[str]()
    upstream = make_upstream(server.send, clock, timeout_s=9)

    def failed(failure: Any) -> None:
        failure.trap(UpstreamTimeout)
        late.append(f"{failure.getErrorMessage()} at {clock.seconds():g}")

    before: Deferred[Response] = upstream.send(REQUEST)
    upstream.set_timeout(2)
    after = upstream.send(REQUEST)
    for each in (before, after):
        each.addErrback(failed)
    for _ in range(9):
        clock.advance(1)

    within = "the inference server did not answer within"
    assert late == [f"{within} 2 seconds at 2", f"{within} 9 seconds at 9"]
