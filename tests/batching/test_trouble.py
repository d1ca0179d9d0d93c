"""Trouble belongs to the lane that has it: the others go on, and never hear of it."""

from collections.abc import Callable, Sequence
from typing import Any

import pytest
from attrs import define, field

from abproxy.errors import CannotConnect, UpstreamFull
from support.batching import Harness, Outcome, harness
from support.upstream import Sent, reply

OVERLOADED = b'{"error":"Model is overloaded","error_type":"Overloaded"}'

Answer = Callable[[Sent], None]


def lane_of(sent: Sent) -> str:
    """Return the lane that a request was sent for."""
    named = dict(sent.request.headers).get(b"Authorization", b"")
    return named.decode()


@define(eq=False)
class Callers:
    """Clients that each send their next call when the one before is answered."""

    proxy: Harness
    refuse: Answer
    """What becomes of a request for a lane that is refused."""

    refused: Sequence[str] = ()
    loops: list[tuple[str, Outcome | None]] = field(factory=list)
    foreign: list[Any] = field(factory=list)
    """Answers to calls of good lanes that are not their own rows."""

    told: list[Outcome] = field(factory=list)
    """Calls of refused lanes that have an outcome."""

    sends: dict[str, int] = field(factory=dict)
    _due: list[tuple[float, Sent]] = field(factory=list)
    _seen: int = 0

    def add(self, *lanes: str) -> None:
        """Add one client for each of *lanes*."""
        self.loops += [(lane, None) for lane in lanes]

    def run(self, seconds: float) -> None:
        """Let so much time pass, a millisecond at a time."""
        for _ in range(round(1000 * seconds)):
            self._submit()
            self._take_in()
            self.proxy.clock.advance(0.001)
            self._answer()

    def good_sends(self) -> int:
        """Return how many requests were sent for lanes that are not refused."""
        return sum(n for lane, n in self.sends.items() if lane not in self.refused)

    def _submit(self) -> None:
        for at, (lane, call) in enumerate(self.loops):
            if call is not None and call.is_open:
                continue
            if call is not None:
                self._note(lane, call)
            self.loops[at] = lane, self.proxy.submit(f"of {at}", lane=lane)

    def _note(self, lane: str, call: Outcome) -> None:
        if lane in self.refused:
            self.told.append(call)
        elif not call.is_right:
            self.foreign.append(call.results)

    def _take_in(self) -> None:
        now = self.proxy.clock.seconds()
        for sent in self.proxy.upstream.sent[self._seen :]:
            lane = lane_of(sent)
            self.sends[lane] = self.sends.get(lane, 0) + 1
            took_s = 0.001 if lane in self.refused else 0.01
            self._due.append((now + took_s, sent))
        self._seen = len(self.proxy.upstream.sent)

    def _answer(self) -> None:
        now = self.proxy.clock.seconds() + 1e-9
        due = [sent for at, sent in self._due if at <= now]
        self._due = [(at, sent) for at, sent in self._due if at > now]
        for sent in due:
            if sent.done.called:
                continue
            if lane_of(sent) in self.refused:
                self.refuse(sent)
            else:
                sent.answer()


def _refusing(status: int) -> Answer:
    def refuse(sent: Sent) -> None:
        quoted = b'{"error":"not loaded; you sent ' + sent.request.body + b'"}'
        sent.done.callback(reply(status, quoted, (b"X-Debug", b"of a caller")))

    return refuse


def _good_alone(*lanes: str, seconds: float) -> int:
    alone = Callers(harness(slots=8), _refusing(503))
    alone.add(*lanes)
    alone.run(seconds)
    return alone.good_sends()


@pytest.mark.parametrize("status", [429, 502, 503, 504])
@pytest.mark.parametrize("bad", [["nope"], ["nope 1", "nope 2"]])
def test_a_lane_that_is_refused_costs_the_others_next_to_nothing(
    status: int, bad: list[str]
) -> None:
    """Good callers keep their sends beside a model that is not there."""
    beside = Callers(harness(slots=8), _refusing(status), bad)
    beside.add("good", "good", "good", "good", *bad)
    beside.run(6)

    without = _good_alone("good", "good", "good", "good", seconds=6)
    assert beside.good_sends() >= 0.9 * without
    assert not beside.foreign
    assert beside.told


@pytest.mark.parametrize("status", [429, 502, 503])
def test_eight_callers_keep_their_sends_beside_another_model(status: int) -> None:
    """Each with a lane of its own, on the same route."""
    good = [f"good {at}" for at in range(8)]
    beside = Callers(harness(slots=8), _refusing(status), ["nope 1", "nope 2"])
    beside.add(*good, "nope 1", "nope 2")
    beside.run(6)

    assert beside.good_sends() >= 0.9 * _good_alone(*good, seconds=6)
    assert not beside.foreign


def test_the_only_caller_beside_a_refused_one_keeps_its_sends() -> None:
    """Though between its answers there is nothing that speaks for the server."""
    beside = Callers(harness(), _refusing(503), ["nope"])
    beside.add("good", "nope")
    beside.run(6)

    assert beside.good_sends() >= 0.9 * _good_alone("good", seconds=6)


@pytest.mark.parametrize(("status", "requests"), [(429, 1), (502, 2), (503, 1)])
def test_a_refused_lane_is_asked_no_more_often_than_once_a_second(
    status: int, requests: int
) -> None:
    """After pauses that double; a batch that a gateway fails has a probe each time."""
    beside = Callers(harness(slots=8), _refusing(status), ["nope"])
    beside.add("good", *["nope"] * 20)
    beside.run(0.01)
    first_wave = beside.sends["nope"]
    beside.run(10)

    assert first_wave <= 8 * requests
    assert 10 * requests <= beside.sends["nope"] - first_wave <= 14 * requests


def test_a_refused_lane_does_not_shrink_the_budget() -> None:
    """What one lane is refused for tells nothing of the server's room."""
    beside = Callers(harness(slots=8, budget=64), _refusing(503), ["nope"])
    beside.add("good", "good", "nope")
    beside.run(2)

    assert beside.proxy.collector.budget.limit.items == 64


def test_two_refused_lanes_halve_the_budget_and_stop_all() -> None:
    """If nothing is answered meanwhile it is the server that has no room."""
    proxy = harness(slots=1, budget=64)
    proxy.submit("a", lane="1")
    proxy.submit("b", lane="2")
    proxy.submit("c", lane="3")

    proxy.upstream.open[0].refuse(503, b"no")
    after_one = len(proxy.upstream.open)
    proxy.upstream.open[0].refuse(503, b"no")

    assert after_one == 1
    assert not proxy.upstream.open
    assert proxy.collector.budget.limit.items == 32


@pytest.mark.parametrize("why", ["overloaded", "no connection"])
def test_what_is_proved_to_be_for_all_stops_all(why: str) -> None:
    """TEI's own word for having no room, and a port that is closed."""
    proxy = harness(slots=1)
    proxy.submit("a", lane="1")
    proxy.submit("b", lane="2")

    if why == "overloaded":
        proxy.upstream.open[0].refuse(429, OVERLOADED)
    else:
        proxy.upstream.open[0].fail(CannotConnect("refused"))

    assert not proxy.upstream.open


@pytest.mark.parametrize("why", ["overloaded", "no connection", "two lanes"])
def test_in_a_stop_for_all_the_probe_rotates_over_the_lanes(why: str) -> None:
    """The oldest call is not the only one that may find out."""
    proxy = harness(slots=1)
    lanes = [f"lane {at}" for at in range(4)]
    for lane in lanes:
        proxy.submit(f"of {lane}", lane=lane)

    probes = []
    for _ in range(400):
        for sent in proxy.upstream.open:
            probes.append(lane_of(sent))
            if why == "overloaded":
                sent.refuse(503, OVERLOADED)
            elif why == "two lanes":
                sent.refuse(503, b"no")
            else:
                sent.fail(CannotConnect("refused"))
        proxy.clock.advance(0.01)

    assert sorted(probes[:4]) == lanes
    assert sorted(probes[-4:]) == lanes


def test_the_first_answer_ends_a_stop_for_all() -> None:
    """Those that were not refused themselves go on at once."""
    proxy = harness(slots=1)
    calls = [proxy.submit(lane, lane=lane) for lane in ("1", "2", "3", "4")]
    proxy.upstream.open[0].refuse(503, b"no")
    proxy.upstream.open[0].refuse(503, b"no")
    proxy.clock.advance(0.05)

    proxy.upstream.open[0].answer()
    at_once = len(proxy.upstream.open)
    while proxy.upstream.open:
        proxy.upstream.open[0].answer()
        proxy.clock.advance(0.1)

    assert at_once == 1
    assert all(call.is_right for call in calls)
    assert proxy.is_at_rest


def test_patience_is_each_lanes_own() -> None:
    """A lane in trouble for long does not shorten the wait of another."""
    proxy = harness(slots=4)
    old = proxy.submit("a", lane="1")
    for _ in range(9):
        for sent in proxy.upstream.open:
            sent.refuse(503, b"no")
        proxy.clock.advance(0.5)
    young = proxy.submit("b", lane="2")
    for _ in range(4):
        for sent in proxy.upstream.open:
            sent.refuse(503, b"no")
        proxy.clock.advance(0.5)

    assert not old.is_open
    assert young.is_open
    proxy.collector.stop()


def test_who_loses_patience_through_others_hears_our_words() -> None:
    """Never the words that another lane was told."""
    proxy = harness(slots=1)
    calls = [proxy.submit(f"text {at}", lane=f"lane {at}") for at in range(12)]
    for _ in range(20):
        for sent in proxy.upstream.open:
            sent.refuse(503, OVERLOADED + sent.request.body)
        proxy.clock.advance(0.5)

    told = [call.results[0] for call in calls]
    ours = [
        each for each in told if isinstance(getattr(each, "value", None), UpstreamFull)
    ]
    own = [
        call
        for call in calls
        if hasattr(call.results[0], "body")
        and call.reply.body == OVERLOADED + call.call.alone.body
    ]
    assert len(ours) + len(own) == len(calls)
    assert ours
    proxy.collector.stop()


def test_a_gateway_without_one_model_does_not_take_a_call_for_a_killer() -> None:
    """While others are answered nothing has died: nobody stands apart for it."""
    beside = Callers(harness(slots=8), _refusing(502), ["nope"])
    beside.add("good", "good", "nope")
    asked = []
    was_alive = beside.proxy.collector.quarantine.is_alive
    beside.proxy.collector.quarantine.is_alive = lambda: asked.append(1) or was_alive()
    beside.run(4)

    assert not asked


def test_a_retry_after_holds_its_lane_only() -> None:
    """A quota that is used up for some seconds is that of one tenant."""
    proxy = harness()
    poor = proxy.submit("a", lane="poor")
    proxy.upstream.open[0].done.callback(reply(429, b"quota", (b"Retry-After", b"3")))
    rich = proxy.submit("b", lane="rich")
    proxy.upstream.open[0].answer()
    proxy.clock.advance(2.9)
    early = len(proxy.upstream.open)
    proxy.clock.advance(0.1)
    proxy.upstream.open[0].answer()

    assert rich.is_right
    assert not early
    assert poor.is_right
    assert proxy.is_at_rest


def test_a_refused_lane_has_one_attempt_at_a_time() -> None:
    """A refusal is not multiplied by what waits in the lane."""
    proxy = harness(items=2, calls=2, slots=8)
    proxy.submit("a", lane="1")
    proxy.upstream.open[0].refuse(503, b"no")
    for text in "bcdefg":
        proxy.submit(text, lane="1")
    proxy.clock.advance(0.05)
    first = len(proxy.upstream.open)
    proxy.clock.advance(0.9)
    before_a_second = len(proxy.upstream.open)
    proxy.clock.advance(0.2)

    assert (first, before_a_second) == (1, 1)
    assert len(proxy.upstream.open) == 2


def test_a_lane_in_trouble_is_forgotten_when_it_is_answered() -> None:
    """Then it is as any other."""
    proxy = harness()
    proxy.submit("a", lane="1")
    proxy.upstream.open[0].refuse(503, b"no")
    proxy.clock.advance(0.05)
    proxy.upstream.open[0].answer()

    proxy.submit("b", lane="1")
    proxy.submit("c", lane="1")

    assert len(proxy.upstream.open) == 2
    assert not proxy.collector.backoff.is_any


def test_lanes_in_trouble_need_no_memory_for_ever() -> None:
    """Each call may come with a key of its own."""
    proxy = harness(slots=512, max_waiting_items=100_000)
    for at in range(3000):
        call = proxy.submit("a", lane=f"lane {at}")
        for sent in proxy.upstream.open:
            sent.refuse(503, b"no")
        call.done.cancel()
        proxy.clock.advance(2)

    assert len(list(proxy.collector.backoff.lanes())) <= 1000
    proxy.collector.stop()
