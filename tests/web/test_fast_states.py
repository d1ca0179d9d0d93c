"""The states of a connection with the fast path, whatever happens to it."""

import re
from collections.abc import Callable
from typing import Any

import pytest
from attrs import define, field
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.error import ConnectionDone
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure

from abproxy.web.fast import connection
from abproxy.web.fast.connection import FastChannel, State
from support.proxy import InMemoryProxy, in_memory_proxy
from support.upstream import HeldUpstream

BODY = b'{"inputs":"a"}'
CALL = (
    b"POST /embed HTTP/1.1\r\nHost: proxy\r\nContent-Type: application/json\r\n"
    b"Content-Length: %d\r\n\r\n%b" % (len(BODY), BODY)
)
NO_CALL = CALL.replace(b'{"inputs"', b'["inputs"')
ORDINARY = b"GET /info HTTP/1.1\r\nHost: proxy\r\n\r\n"
AT_ONCE = b"GET /-/nothing HTTP/1.1\r\nHost: proxy\r\n\r\n"


def read_table() -> set[tuple[State, State]]:
    """Read which state may follow which in the table of the module."""
    _, *rows = re.split(r"^ {4}-[- ]+$", connection.__doc__ or "", flags=re.MULTILINE)
    may_follow: set[tuple[State, State]] = set()
    froms: list[State] = []
    for row in rows[0].split("\n\n")[0].splitlines():
        if name := row[4:16].strip():
            froms = list(State) if name == "any" else [State[name]]
        tos = re.findall(r"\b[A-Z]{4,}\b", row[60:])
        may_follow |= {(a, State[b]) for a in froms for b in tos}
    return may_follow


@define(eq=False)
class Changes:
    """Stands in for the attribute, and notes which state follows which."""

    seen: set[tuple[State, State]] = field(factory=set)

    def __get__(self, channel: Any, _type: object) -> State:
        """Return the state of *channel*."""
        state: State = channel.__dict__.get("_state", State.IDLE)
        return state

    def __set__(self, channel: Any, state: State) -> None:
        """Set the state of *channel*."""
        self.seen.add((self.__get__(channel, None), state))
        channel.__dict__["_state"] = state


class Transport(StringTransport):
    """One that may be told to close twice, as a real one."""

    def unregisterProducer(self) -> None:  # noqa: N802
        """Forget the producer, if there is one."""
        self.producer = None


@define(eq=False)
class Connected:
    """A proxy, and one connection to it."""

    upstream: HeldUpstream = field(factory=HeldUpstream)
    proxy: InMemoryProxy = field(init=False)
    channel: Any = field(init=False)
    transport: Transport = field(factory=Transport)

    def __attrs_post_init__(self) -> None:
        """Connect."""
        # After a few calls, others are refused at once for a while.
        self.proxy = in_memory_proxy(self.upstream, rate_limit=1.0)
        self.channel = self.proxy.site.buildProtocol(None)
        # A connection that is told to close does so a moment later, as a real one.
        self.channel.makeConnection(self.transport)

    def send(self, data: bytes) -> None:
        """Send *data*, if the connection is still read from."""
        if not self.transport.disconnecting:
            self.channel.dataReceived(data)

    def answer(self) -> None:
        """Let the upstream answer everything that has come to it."""
        self.proxy.flush()
        for at, request in enumerate(self.upstream.requests):
            if not request.finished and not request._disconnected:
                self.upstream.answer(at, b"[[1]]")
        self.proxy.flush()

    def read(self, *, reads: bool) -> None:
        """Let the client read its answers, or not."""
        if self.transport.disconnecting:
            return
        if reads:
            self.channel.resumeProducing()
        else:
            self.channel.pauseProducing()

    def wait(self) -> None:
        """Let so much time pass that a request is slow."""
        self.proxy.clock.pump([1] * 61)

    def drain(self) -> None:
        """Begin to drain."""
        if not self.proxy.site.is_draining:
            self.proxy.site.drain(1)

    def leave(self) -> None:
        """Lose the connection."""
        self.channel.connectionLost(Failure(ConnectionDone()))

    def check(self) -> None:
        """Check what has to be true between two turns of the reactor."""
        state, waiting = self.channel._state, len(self.channel._waiting)
        may_begin = not self.channel._waitingForTransport
        assert state is not State.SUBMITTING
        assert (self.channel._request is not None) is (state is State.ANSWERING)
        if state is State.RECEIVING:
            assert waiting
            assert waiting < self.channel._needed or not may_begin
        elif state is State.IDLE:
            assert not waiting or not may_begin
        elif state is not State.ANSWERING:
            assert not waiting


def sending(data: bytes) -> Callable[[Connected], None]:
    """Return a step that sends *data*."""
    return lambda here: here.send(data)


STEPS: dict[str, Callable[[Connected], None]] = {
    "a call": sending(CALL),
    "a part of a call": sending(CALL[:-5]),
    "the rest of it": sending(CALL[-5:]),
    "two calls and a half": sending(CALL + CALL + CALL[:-5]),
    "what is no call": sending(NO_CALL),
    "a part of what is none": sending(NO_CALL[:-5]),
    "another request": sending(ORDINARY),
    "one that is answered at once": sending(AT_ONCE),
    "another, and a call": sending(ORDINARY + CALL),
    "far too much": sending(CALL * 150),
    "answers": Connected.answer,
    "time": Connected.wait,
    "a client that does not read": lambda here: here.read(reads=False),
    "a client that reads": lambda here: here.read(reads=True),
    "the end": Connected.drain,
}


@pytest.fixture(scope="module")
def changes() -> Any:
    """Note all changes of state."""
    noted = Changes()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(FastChannel, "_state", noted)
        yield noted


def test_the_table_is_read() -> None:
    """All states are in it, and not all may follow each other."""
    table = read_table()

    assert {state for pair in table for state in pair} == set(State)
    assert (State.IDLE, State.SUBMITTING) in table
    assert (State.ANSWERING, State.TWISTED) not in table


@settings(deadline=None)
@given(steps=st.lists(st.sampled_from(sorted(STEPS)), max_size=12))
def test_states_follow_each_other_as_the_table_says(
    changes: Changes, steps: list[str]
) -> None:
    """In whatever order things happen; and with the connection all of it is over."""
    here = Connected()

    for step in steps:
        STEPS[step](here)
        here.check()
    here.leave()
    here.check()

    assert changes.seen <= read_table()
    assert not here.proxy.site.requests
    assert not here.proxy.site.channels


def test_each_row_of_the_table_can_happen(changes: Changes) -> None:
    """What never happens would only be one more thing to know."""
    for steps in (
        ["a call", "answers", "a part of a call", "the rest of it", "answers"],
        ["a part of a call", "time"],
        ["a part of what is none", "the rest of it", "answers"],
        ["another request", "another request", "answers", "answers"],
        ["a call", "the end", "answers"],
        ["a call", "answers"] * 3,
    ):
        here = Connected()
        for step in steps:
            STEPS[step](here)
        here.leave()

    moved = {pair for pair in read_table() if State.CLOSED not in pair}
    assert moved - {(State.TWISTED, State.TWISTED)} <= changes.seen
