"""Events come to their connections as ever, with nothing around them."""

import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from attrs import define, field
from twisted.internet.interfaces import IReadDescriptor
from twisted.internet.task import Clock
from twisted.logger import capturedLogs
from twisted.python import context
from twisted.python.log import ILogContext
from zope.interface import implementer

from abproxy.tuning import skip_log_context

epollreactor = pytest.importorskip("twisted.internet.epollreactor")


@implementer(IReadDescriptor)
@define(eq=False)
class Ear:
    """One end of a pair of sockets, and what to do when something comes."""

    heard: Callable[[bytes], Any]
    ours: socket.socket = field(init=False)
    theirs: socket.socket = field(init=False)
    lost: list[Any] = field(init=False, factory=list)

    def __attrs_post_init__(self) -> None:
        """Connect the two ends."""
        self.ours, self.theirs = socket.socketpair()

    def fileno(self) -> int:
        """Say which socket it is."""
        return self.ours.fileno()

    def logPrefix(self) -> str:  # noqa: N802
        """Say what the old log would call it."""
        return "ear"

    def doRead(self) -> Any:  # noqa: N802
        """Take in what has come."""
        return self.heard(self.ours.recv(100))

    def connectionLost(self, reason: Any) -> None:
        """Note why it is over."""
        self.lost.append(reason.value)

    def close(self) -> None:
        """Close both ends."""
        self.ours.close()
        self.theirs.close()


@define(eq=False)
class Loop:
    """A reactor of its own, which turns when it is told to."""

    reactor: Any = field(factory=epollreactor.EPollReactor)
    ears: list[Ear] = field(factory=list)

    def listen(self, heard: Callable[[bytes], Any]) -> Ear:
        """Call *heard* with what comes."""
        ear = Ear(heard)
        self.ears.append(ear)
        self.reactor.addReader(ear)
        return ear


@pytest.fixture
def loop() -> Iterator[Loop]:
    """Make a reactor that polls directly, and take it down."""
    loop = Loop()
    skip_log_context(loop.reactor)
    yield loop
    loop.reactor.removeAll()
    loop.reactor._poller.close()
    for ear in loop.ears:
        ear.close()


def test_what_comes_is_heard(loop: Loop) -> None:
    """Once, and by whom it is for."""
    heard: list[bytes] = []
    ear = loop.listen(heard.append)
    loop.listen(lambda _: heard.append(b"wrong"))
    ear.theirs.send(b"hello")

    loop.reactor.doIteration(1)
    loop.reactor.doIteration(0)

    assert heard == [b"hello"]


def test_without_a_timeout_it_waits_for_the_next_event(loop: Loop) -> None:
    """However long that takes."""
    heard: list[bytes] = []
    loop.listen(heard.append).theirs.send(b"hello")

    loop.reactor.doIteration(None)

    assert heard == [b"hello"]


def test_nothing_is_around_an_event(loop: Loop) -> None:
    """The old log would say which connection a line is about."""
    around: list[Any] = []
    ear = loop.listen(lambda _: around.append(context.get(ILogContext)))
    ear.theirs.send(b"hello")

    loop.reactor.doIteration(1)

    assert "ear" not in str(around)


def test_who_was_closed_by_an_event_before_hears_nothing(loop: Loop) -> None:
    """Both came at once."""
    heard: list[bytes] = []

    def close_the_other(which: int) -> Callable[[bytes], None]:
        def hear(data: bytes) -> None:
            heard.append(data)
            loop.reactor.removeReader(loop.ears[1 - which])

        return hear

    for which in range(2):
        loop.listen(close_the_other(which)).theirs.send(b"%d" % which)

    loop.reactor.doIteration(1)

    assert len(heard) == 1


def test_a_mistake_costs_its_own_connection_only(loop: Loop) -> None:
    """It is logged, as by Twisted."""
    heard: list[bytes] = []
    bad, good = loop.listen(lambda _: 1 / 0), loop.listen(heard.append)
    bad.theirs.send(b"x")
    good.theirs.send(b"y")

    with capturedLogs() as events:
        loop.reactor.doIteration(1)

    assert heard == [b"y"]
    assert isinstance(bad.lost[0], ZeroDivisionError)
    assert [type(event["failure"].value) for event in events] == [ZeroDivisionError]


def test_who_hangs_up_is_let_go(loop: Loop) -> None:
    """As ever."""
    ear = loop.listen(lambda data: None if data else ConnectionError())
    ear.theirs.close()

    loop.reactor.doIteration(1)

    assert len(ear.lost) == 1
    assert ear not in loop.reactor.getReaders()


def test_another_reactor_is_left_as_it_is() -> None:
    """Whatever it is."""
    clock = Clock()

    skip_log_context(clock)

    assert "doIteration" not in vars(clock)
