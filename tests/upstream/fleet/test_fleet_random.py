"""
Whatever dies, hangs, refuses, comes and goes: each call has its rows or one error.

Hypothesis plays the servers of a fleet, behind the real queue.  In the end all are
well again, and nothing is counted as in flight anywhere.
"""

from collections.abc import Callable
from typing import Any

from attrs import define, field
from hypothesis import example, given, settings
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, Deferred, fail

from abproxy.errors import CannotConnect, ConnectionBroken, ProxyError
from abproxy.http.messages import Response, UpstreamRequest
from support.batching import Harness, Outcome, harness
from support.fleet import Servers
from support.upstream import RecordingUpstream, Sent, reply

LETTERS = "abc"
REFUSALS = [401, 404, 429, 500, 503]

servers_ = st.sampled_from(LETTERS)
actions = st.one_of(
    st.tuples(st.just("submit"), st.integers(1, 5)),
    st.tuples(st.just("submit"), st.integers(1, 5)),
    st.tuples(st.just("pass_"), st.sampled_from([0.01, 0.2, 1.0, 4.0])),
    st.tuples(st.just("answer"), servers_, st.integers(0, 5)),
    st.tuples(st.just("answer"), servers_, st.integers(0, 5)),
    st.tuples(
        st.just("refuse"),
        servers_,
        st.integers(0, 5),
        st.sampled_from(REFUSALS),
    ),
    st.tuples(st.just("die"), servers_),
    st.tuples(st.just("come_back"), servers_),
    st.tuples(st.just("answer_questions"), servers_),
    st.tuples(st.just("drain"), servers_, st.booleans()),
    st.tuples(st.just("replace"), servers_),
    st.tuples(st.just("leave"), st.integers(0, 30)),
)


@define(eq=False)
class Mortal(RecordingUpstream):
    """A server that may be away."""

    is_away: bool = False

    def send(self, request: UpstreamRequest) -> Deferred[Response]:
        """Keep one request, or refuse the connection."""
        if self.is_away:
            return fail(CannotConnect("refused"))
        return super().send(request)


@define(eq=False)
class Play:
    """Callers, a queue, and three servers."""

    proxy: Harness
    servers: Servers
    calls: list[Outcome] = field(factory=list)
    left: set[int] = field(factory=set)
    gone: list[RecordingUpstream] = field(factory=list)

    def submit(self, items: int) -> None:
        """Send a call that names itself in each text."""
        number = len(self.calls)
        texts = [f"{number}:{item}" for item in range(items)]
        self.calls.append(self.proxy.submit(*texts))

    def pass_(self, seconds: float) -> None:
        """Let time pass."""
        self.proxy.clock.advance(seconds)

    def answer(self, letter: str, which: int) -> None:
        """Let a server answer with the right rows."""
        self._with_one(letter, which, Sent.answer)

    def refuse(self, letter: str, which: int, status: int) -> None:
        """Let a server answer with an error."""
        self._with_one(letter, which, lambda sent: sent.refuse(status))

    def die(self, letter: str) -> None:
        """End all connections to a server, which is away then."""
        end = self._end_of(letter)
        end.is_away = True
        for sent in end.open:
            if not sent.done.called:
                sent.fail(ConnectionBroken("it died"))

    def come_back(self, letter: str) -> None:
        """Let a server accept connections."""
        self._end_of(letter).is_away = False

    def answer_questions(self, letter: str) -> None:
        """Let a server say that it is there."""
        for sent in self.servers.questions(letter):
            sent.done.callback(reply(404, b""))

    def drain(self, letter: str, is_drained: bool) -> None:  # noqa: FBT001
        """Let the operator drain a server, or stop that."""
        self.servers.fleet.drain(
            self.servers.members[letter].address, is_drained=is_drained
        )

    def replace(self, letter: str) -> None:
        """Put another server into the place of one, which may have work."""
        self.gone.append(self._end_of(letter))
        self.servers.fleet.remove(self.servers.members[letter])
        add(self.servers, letter)

    def leave(self, which: int) -> None:
        """Let a caller leave."""
        if self.calls and self.calls[which % len(self.calls)].is_open:
            self.left.add(which % len(self.calls))
            self.calls[which % len(self.calls)].done.cancel()

    def end(self) -> None:
        """Let all be well, until nothing is left to do."""
        for letter in LETTERS:
            self.come_back(letter)
            self.drain(letter, False)
        for _ in range(200):
            for letter in LETTERS:
                self.answer_questions(letter)
                self.answer(letter, 0)
            for end in self.gone:
                for sent in end.open:
                    sent.answer() if sent.request.body else sent.refuse(404)
            self.pass_(0.5)
        self.servers.fleet.stop()

    def _end_of(self, letter: str) -> Mortal:
        end = self.servers.ends[letter]
        assert isinstance(end, Mortal)
        return end

    def _with_one(
        self, letter: str, which: int, then: Callable[[Sent], object]
    ) -> None:
        if found := self.servers.batches(letter):
            then(found[which % len(found)])


def add(servers: Servers, letter: str) -> None:
    """Add a server that is mortal."""
    member = servers.add(letter)
    end = servers.ends[letter] = Mortal()
    member.upstream.transport = end.send


def play(steps: list[Any], hedge_after: str | None) -> Play:
    """Play so many steps, and then let all be well."""
    proxy = harness(budget=96)
    servers = Servers(0, clock=proxy.clock, permits=32)
    for letter in LETTERS:
        add(servers, letter)
    proxy.collector.sender.send_request = servers.fleet.send
    proxy.collector.quarantine.is_alive = servers.fleet.is_alive
    proxy.collector.budget.servers = 3
    servers.fleet.sender.hedging.after = hedge_after
    servers.fleet.start()
    here = Play(proxy, servers)
    for verb, *arguments in steps:
        getattr(here, verb)(*arguments)
    here.end()
    return here


def check(here: Play) -> None:
    """Check that each call has one outcome, and that nothing is left."""
    for number, call in enumerate(here.calls):
        [told] = call.results
        if number in here.left:
            assert isinstance(call.error, CancelledError)
        elif isinstance(told, Response):
            assert call.is_right if told.status == 200 else told.status in REFUSALS
        else:
            assert isinstance(call.error, ProxyError)
    assert here.servers.is_at_rest
    assert not here.servers.fleet.sender._open
    assert here.proxy.is_at_rest, here.proxy.clock.getDelayedCalls()


@settings(max_examples=100, deadline=None)
@given(
    st.lists(actions, max_size=40),
    st.sampled_from([None, "0.1", "p95"]),
)
@example([("submit", 5), ("die", "a"), ("die", "b"), ("die", "c"), ("submit", 2)], None)
def test_each_call_has_its_rows_or_one_error(
    steps: list[Any], hedge_after: str | None
) -> None:
    """And nothing is in flight in the end, nor any timer left."""
    check(play(steps, hedge_after))
