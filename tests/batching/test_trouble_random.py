"""
Whatever is refused in which order, no lane pays for another, and none hears of it.

Hypothesis plays an upstream that refuses as gateways do, each time with the
request in the body and its lane in a header.
"""

from typing import Any

from attrs import define, field
from hypothesis import example, given, settings
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError

from abproxy.batching.refusal import RetryTimeouts
from abproxy.errors import CannotConnect, ProxyError
from abproxy.http.messages import Response
from support.batching import Harness, Outcome, harness
from support.upstream import Sent, reply

LANES = ["one", "two", "three", "personal: four"]
STATUSES = [429, 502, 503, 504]
OVERLOADED = b'"error_type":"Overloaded"'

submits = st.tuples(st.just("submit"), st.sampled_from(LANES), st.integers(1, 5))
times = st.tuples(st.just("pass_"), st.sampled_from([0.05, 0.2, 1.5, 6.0]))
answers = st.tuples(st.just("answer"), st.integers(0, 9))
leaves = st.tuples(st.just("leave"), st.integers(0, 30))
refusals = st.tuples(
    st.just("refuse"),
    st.integers(0, 9),
    st.sampled_from(STATUSES),
    st.sampled_from([b"", b"", b"1", b"9"]),
)
prompt_refusals = st.tuples(
    st.just("refuse"), st.integers(0, 9), st.sampled_from([429, 503]), st.just(b"")
)
"""These are never taken for a deadline, after which less may be in flight."""

overloads = st.tuples(st.just("overload"), st.integers(0, 9))
failures = st.tuples(st.just("fail"), st.integers(0, 9))


def lane_of(sent: Sent) -> str:
    """Return the lane that a request was sent for."""
    return dict(sent.request.headers)[b"Authorization"].decode()


@define(eq=False)
class Play:
    """Callers of several lanes, and an upstream that refuses some."""

    proxy: Harness
    calls: list[tuple[str, Outcome]] = field(factory=list)
    left: set[int] = field(factory=set)
    refused_since_answer: set[str] = field(factory=set)

    def step(self, verb: str, *arguments: Any) -> None:
        """Let one thing happen."""
        getattr(self, verb)(*arguments)

    def submit(self, lane: str, calls: int) -> None:
        """Send calls that name themselves and their lane in each text."""
        for items in range(1, calls + 1):
            number = len(self.calls)
            texts = [f"<{lane}:{number}:{item}>" for item in range(items)]
            self.calls.append((lane, self.proxy.submit(*texts, lane=lane)))

    def pass_(self, seconds: float) -> None:
        """Let time pass."""
        self.proxy.clock.advance(seconds)

    def answer(self, which: int) -> None:
        """Answer a request with its rows."""
        if (sent := self._open(which)) is not None:
            self.refused_since_answer.clear()
            sent.answer()

    def refuse(self, which: int, status: int, retry_after: bytes) -> None:
        """Refuse a request, in words that are for its callers only."""
        if (sent := self._open(which)) is not None:
            self.refused_since_answer.add(lane_of(sent))
            lines = [(b"X-Lane", lane_of(sent).encode())]
            lines += [(b"Retry-After", retry_after)] if retry_after else []
            sent.done.callback(reply(status, b"you sent " + sent.request.body, *lines))

    def overload(self, which: int) -> None:
        """Refuse a request as TEI does."""
        if (sent := self._open(which)) is not None:
            body = b"{" + OVERLOADED + b',"sent":' + sent.request.body + b"}"
            line = b"X-Lane", lane_of(sent).encode()
            sent.done.callback(reply(429, body, line))

    def fail(self, which: int) -> None:
        """Let no connection be made for a request."""
        if (sent := self._open(which)) is not None:
            sent.fail(CannotConnect("refused"))

    def leave(self, which: int) -> None:
        """Let a caller leave."""
        if self.calls and self.calls[which % len(self.calls)][1].is_open:
            self.left.add(which % len(self.calls))
            self.calls[which % len(self.calls)][1].done.cancel()

    def _open(self, which: int) -> Sent | None:
        found = self.proxy.upstream.open
        return found[which % len(found)] if found else None

    def end(self) -> None:
        """Answer all that is open, until nothing is left to happen."""
        for _ in range(2000):
            if not (self.proxy.upstream.open or self.proxy.clock.getDelayedCalls()):
                return
            self.answer(0)
            self.pass_(1.0)


def check(lane: str, number: int, call: Outcome) -> None:
    """Check that a call has one outcome, in which there is nothing of another."""
    [told] = call.results
    if not isinstance(told, Response):
        assert isinstance(call.error, ProxyError)
        assert "<" not in str(call.error)
        return
    if told.status == 200:
        assert call.is_right
        return
    assert dict(told.headers)[b"X-Lane"].decode() == lane
    if not lane.startswith("personal"):
        own = told.body.count(f":{number}:".encode())
        assert own == told.body.count(b"<") > 0


TOGETHER = [("submit", "one", 3), ("answer", 0), ("refuse", 0, 429, b"9")]
"""Two calls share a request that is refused, for longer than they may wait."""

BEHIND = [
    ("submit", "one", 5),
    *[("refuse", 0, 429, b"")] * 3,
    ("pass_", 6.0),
    ("refuse", 0, 429, b""),
]
"""Calls wait for longer than they may behind others that are refused."""


@settings(max_examples=80, deadline=None)
@example(play=TOGETHER, slots=1, max_wait_s=0.0)
@example(play=BEHIND, slots=1, max_wait_s=0.0)
@given(
    play=st.lists(
        submits | times | answers | leaves | refusals | overloads | failures,
        min_size=8,
        max_size=30,
    ),
    slots=st.integers(1, 2),
    max_wait_s=st.sampled_from([0.0, 0.1]),
)
def test_no_caller_is_told_what_another_was(
    play: list[Any], slots: int, max_wait_s: float
) -> None:
    """Neither body nor headers, under any order of events; and every call ends."""
    proxy = harness(calls=4, items=6, slots=slots, max_wait_s=max_wait_s)
    game = Play(proxy)

    for step in play:
        game.step(*step)
    game.end()

    for number, (lane, call) in enumerate(game.calls):
        if number in game.left:
            assert isinstance(call.error, CancelledError)
        else:
            check(lane, number, call)
    assert proxy.is_at_rest


@settings(max_examples=80, deadline=None)
@given(
    play=st.lists(
        submits | times | answers | leaves | prompt_refusals, min_size=8, max_size=40
    )
)
def test_a_lane_that_was_not_refused_sends_while_others_are(play: list[Any]) -> None:
    """As long as fewer than two lanes were refused since the last answer."""
    proxy = harness(slots=500, budget=10_000)
    game = Play(proxy)

    for step in play:
        game.step(*step)
        if len(game.refused_since_answer) > 1 or proxy.collector.queue.quarantine.first:
            continue
        before = len(proxy.upstream.sent)
        game.submit("never refused", 1)
        assert len(proxy.upstream.sent) == before + 1
        proxy.upstream.sent[-1].answer()
        game.refused_since_answer.clear()
        assert game.calls.pop()[1].is_right
    game.end()
    assert proxy.is_at_rest


@settings(max_examples=15, deadline=None)
@example(callers=[3, 2, 3, 1, 1, 3, 1], how=[429, "fail"], slots=3)
@given(
    callers=st.lists(st.integers(1, 5), min_size=2, max_size=7),
    how=st.lists(st.sampled_from([429, 503, "overload", "fail"]), min_size=1),
    slots=st.integers(1, 3),
)
def test_while_all_are_refused_each_lane_has_its_turn(
    callers: list[int], how: list[Any], slots: int
) -> None:
    """However many calls wait in one of them, and however old these are."""
    proxy = harness(slots=slots)
    proxy.collector.retry_timeouts = RetryTimeouts(connect_s=1000, overload_s=1000)
    game = Play(proxy)
    for at, count in enumerate(callers):
        for _ in range(count):
            game.submit(f"lane {at}", 1)

    probes: list[str] = []
    for at in range(1000):
        for sent in list(proxy.upstream.open):
            probes.append(lane_of(sent))
            said = how[at % len(how)]
            if said == "overload":
                game.overload(0)
            elif said == "fail":
                game.fail(0)
            else:
                game.refuse(0, said, b"")
        game.pass_(0.05)

    last = probes[-4 * len(callers) :]
    assert {f"lane {at}" for at in range(len(callers))} == set(last)
    game.end()
    assert all(call.is_right for _, call in game.calls)
    assert proxy.is_at_rest
