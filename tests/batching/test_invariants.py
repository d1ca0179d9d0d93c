"""
Each item gets its own row exactly once, whatever happens in which order.

Hypothesis plays clients, clock and upstream at random; at the end everything
still open is answered, and the proxy must be as if nothing had happened.
"""

from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError
from twisted.python.failure import Failure

from abproxy.errors import (
    CannotConnect,
    ConnectionBroken,
    Overloaded,
    ProxyError,
    RefusedTogether,
    UpstreamTimeout,
)
from support.batching import Harness, Outcome, harness

BAD = "bad"

PROBES = 3
"""So many have to fail until all who wait are told."""

FULL = b"no room for "

calm = st.one_of(
    st.tuples(
        st.just("submit"),
        st.integers(1, 9),
        st.sampled_from(["", "a", "b"]),
        st.booleans(),
    ),
    st.tuples(st.just("advance"), st.sampled_from([0.1, 0.5, 1.0, 5.0])),
    st.tuples(st.just("answer"), st.integers(0, 50)),
    st.tuples(st.just("cancel"), st.integers(0, 50)),
)
storm = st.one_of(
    st.tuples(st.just("break"), st.integers(0, 50)),
    st.tuples(st.just("stall"), st.integers(0, 50)),
    st.tuples(st.just("garble"), st.integers(0, 50)),
    st.tuples(st.just("overload"), st.integers(0, 50)),
    st.tuples(st.just("refuse"), st.integers(0, 50)),
    st.tuples(st.just("have_no_room"), st.sampled_from([1, 6])),
)
plays = st.one_of(
    st.lists(calm, min_size=10, max_size=60),
    st.lists(calm | storm, min_size=10, max_size=60),
)


class Play:
    """One proxy and everything that was done to it."""

    def __init__(self, proxy: Harness, *, in_one_turn: bool) -> None:
        self.proxy = proxy
        self.submit_to = proxy.submit_in_this_turn if in_one_turn else proxy.submit
        self.calls: list[Outcome] = []
        self.cancelled: set[int] = set()
        self.most_in_flight = 0

    def submit(self, count: int, lane: str, has_bad: bool) -> None:  # noqa: FBT001
        number = len(self.calls)
        # Of many lengths, as those that are alike may be sent together.
        texts = [
            f"call {number} item {item}" + "!" * (5 * (number + item) % 7)
            for item in range(count)
        ]
        if has_bad:
            texts[-1] = f"{BAD} {number}"
        try:
            self.calls.append(self.submit_to(*texts, lane=lane))
        except Overloaded:
            return

    def advance(self, seconds: float) -> None:
        self.proxy.clock.advance(seconds)

    def cancel(self, which: int) -> None:
        if self.calls:
            which %= len(self.calls)
            if self.calls[which].is_open:
                self.cancelled.add(which)
                self.calls[which].done.cancel()

    def _open(self, which: int) -> Any:
        waiting = self.proxy.upstream.open
        return waiting[which % len(waiting)] if waiting else None

    def answer(self, which: int) -> None:
        sent = self._open(which)
        if sent is None:
            return
        if any(item.startswith(BAD) for item in sent.inputs):
            sent.refuse(422, sent.request.body)
        else:
            sent.answer()

    def fail(self, which: int, error: Exception) -> None:
        sent = self._open(which)
        if sent is not None:
            sent.fail(error)

    def garble(self, which: int) -> None:
        sent = self._open(which)
        if sent is not None:
            sent.refuse(200, b"[[0],[")

    def overload(self, which: int) -> None:
        sent = self._open(which)
        if sent is not None:
            # As some do, it quotes the request that it has no room for.
            sent.refuse(503, FULL + sent.request.body)

    def have_no_room(self, seconds: int) -> None:
        for _ in range(2 * seconds):
            for _ in range(len(self.proxy.upstream.open)):
                self.overload(0)
            self.advance(0.5)

    def step(self, verb: str, *arguments: Any) -> None:
        if verb == "break":
            self.fail(arguments[0], ConnectionBroken("broken"))
        elif verb == "refuse":
            self.fail(arguments[0], CannotConnect("refused"))
        elif verb == "stall":
            self.fail(arguments[0], UpstreamTimeout("slow"))
        else:
            getattr(self, verb)(*arguments)
        sent = self.proxy.upstream.open
        in_flight = sum(len(each.inputs) for each in sent)
        self.most_in_flight = max(self.most_in_flight, in_flight)

    def end(self) -> None:
        while self.proxy.upstream.open or self.proxy.clock.getDelayedCalls():
            self.step("answer", 0)
            self.step("advance", 1.0)


def check(
    call: Outcome, *, was_cancelled: bool, was_calm: bool, bad_calls: int
) -> None:
    """A call has one outcome, and it is its own."""
    assert len(call.results) == 1
    if was_cancelled:
        assert isinstance(call.error, CancelledError)
        return
    if isinstance(call.results[0], Failure) and call.results[0].check(RefusedTogether):
        # After two different probes and a third a lane counts as out in which
        # nothing has worked.
        assert not was_calm or bad_calls >= PROBES
        return
    has_bad = BAD.encode() in call.call.alone.body
    if not was_calm and not hasattr(call.results[0], "status"):
        assert isinstance(call.error, ProxyError)
    elif call.reply.status == 422:
        assert has_bad
    elif call.reply.status == 503:
        quoted = msgspec.json.decode(call.reply.body.removeprefix(FULL))["inputs"]
        assert set(quoted) <= set(msgspec.json.decode(call.call.alone.body)["inputs"])
    elif call.reply.body != b"[[0],[":
        assert not has_bad
        assert call.is_right


@settings(max_examples=600, deadline=None)
@given(
    play=plays,
    max_wait_s=st.sampled_from([0.0, 1.0]),
    calls=st.sampled_from([1, 3, 100]),
    size=st.sampled_from([60, 100_000]),
    slots=st.integers(1, 3),
    in_one_turn=st.booleans(),
    packs=st.booleans(),
)
def test_each_item_gets_its_own_row_exactly_once(
    *,
    play: list[Any],
    max_wait_s: float,
    calls: int,
    size: int,
    slots: int,
    in_one_turn: bool,
    packs: bool,
) -> None:
    """No row is lost, doubled, swapped or given to a stranger, and nothing leaks."""
    proxy = harness(
        calls=calls,
        items=4,
        size=size,
        budget=8,
        slots=slots,
        max_wait_s=max_wait_s,
        max_waiting_items=40,
        packs=packs,
    )
    game = Play(proxy, in_one_turn=in_one_turn)

    for step in play:
        game.step(*step)
    game.end()

    storms = {"break", "stall", "garble", "overload", "refuse", "have_no_room"}
    was_calm = all(step[0] not in storms for step in play)
    for number, call in enumerate(game.calls):
        bad_calls = sum(
            BAD.encode() in each.call.alone.body
            for each in game.calls
            if each.call.lane_key == call.call.lane_key
        )
        check(
            call,
            was_cancelled=number in game.cancelled,
            was_calm=was_calm,
            bad_calls=bad_calls,
        )
    assert game.most_in_flight <= 8
    assert proxy.is_at_rest
