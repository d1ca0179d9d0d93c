"""The embedded model as a child of the proxy."""

import socket
from collections.abc import Iterator

import pytest
from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessTerminated
from twisted.logger import capturedLogs

from abproxy.process import KILL_S
from abproxy.upstream.embedded import RESTART_S, ModelChild
from support.processes import SpawningClock

STDOUT = 1


@pytest.fixture
def listening() -> Iterator[socket.socket]:
    """Listen somewhere."""
    with socket.create_server(("127.0.0.1", 0)) as ours:
        yield ours


class Setup:
    """A child, its reactor and its readiness."""

    def __init__(self, listening: socket.socket) -> None:
        self.reactor = SpawningClock()
        self.ready: Deferred[object] = Deferred()
        self.child = ModelChild(
            reactor=self.reactor,
            model="static",
            listening=listening,
            is_ready=lambda: self.ready,
        )
        self.done: list[str] = []

    def start(self) -> None:
        """Start the child."""
        started = Deferred.fromCoroutine(self.child.start())
        started.addCallback(lambda _: self.done.append("started"))
        started.addErrback(lambda failed: self.done.append(failed.getErrorMessage()))

    def stop(self) -> None:
        """Stop the child."""
        stopped = Deferred.fromCoroutine(self.child.stop())
        stopped.addCallback(lambda _: self.done.append("stopped"))


@pytest.fixture
def setup(listening: socket.socket) -> Setup:
    """Prepare a child."""
    return Setup(listening)


def test_it_has_started_when_it_answers(setup: Setup) -> None:
    """Clients are accepted when the model answers, not before."""
    setup.start()
    before = list(setup.done)
    setup.ready.callback(None)

    assert before == []
    assert setup.done == ["started"]


def test_it_inherits_the_socket(setup: Setup) -> None:
    """Its address is known from the start, and survives it."""
    setup.start()

    [process] = setup.reactor.started
    assert process.files[3] == setup.child.listening.fileno()
    assert "--listen-fd" in process.arguments
    assert setup.child.url.startswith("http://127.0.0.1:")


def test_a_child_that_ends_is_started_again(setup: Setup) -> None:
    """A crash of the model costs a second, and the log says what it was."""
    setup.start()
    setup.ready.callback(None)

    with capturedLogs() as captured:
        setup.reactor.started[0].ends(ProcessTerminated(signal=9))
    setup.reactor.advance(RESTART_S)

    assert len(setup.reactor.started) == 2
    assert [event["how"] for event in captured] == ["signal 9"]


def test_a_child_that_ends_before_it_is_ready_is_not_started_again(
    setup: Setup,
) -> None:
    """It would end again and again, and callers would wait for ever."""
    setup.start()

    setup.reactor.started[0].ends(ProcessTerminated(exitCode=1))
    setup.reactor.advance(10)

    assert setup.done == ["the embedded model ended with exit code 1"]
    assert len(setup.reactor.started) == 1


def test_a_child_that_cannot_begin_is_not_tried_again(setup: Setup) -> None:
    """As where Python may not be executed."""
    setup.reactor.error = OSError("no room")

    setup.start()
    setup.stop()

    why = "the embedded model ended with an error before it began: no room"
    assert setup.done == [why, "stopped"]
    assert not setup.reactor.getDelayedCalls()


def test_a_restart_that_cannot_begin_is_tried_again(setup: Setup) -> None:
    """A machine that is full now may have memory soon."""
    setup.start()
    setup.ready.callback(None)
    setup.reactor.started[0].ends()
    setup.reactor.error = OSError("no room")
    setup.reactor.advance(RESTART_S)
    setup.reactor.error = None

    setup.reactor.advance(RESTART_S)

    assert len(setup.reactor.started) == 2


def test_stopping_waits_for_its_end(setup: Setup) -> None:
    """It may finish what it was given."""
    setup.start()
    setup.ready.callback(None)
    [process] = setup.reactor.started

    setup.stop()
    before = list(setup.done)
    process.ends()

    assert before == ["started"]
    assert setup.done == ["started", "stopped"]
    assert process.signals == ["TERM"]
    assert not setup.reactor.getDelayedCalls()


def test_a_child_that_does_not_end_is_killed(setup: Setup) -> None:
    """A model that hangs does not keep the proxy from ending."""
    setup.start()
    [process] = setup.reactor.started

    setup.stop()
    setup.reactor.advance(KILL_S)
    process.ends()

    assert process.signals == ["TERM", "KILL"]
    assert setup.done == ["stopped"]


def test_a_child_that_has_just_ended_by_itself_is_no_trouble(setup: Setup) -> None:
    """Its end may be known to the kernel before it is to us."""
    setup.start()
    [process] = setup.reactor.started
    process.has_ended = True

    setup.stop()
    process.ends()

    assert setup.done == ["stopped"]


def test_stopping_between_two_runs_starts_no_other(setup: Setup) -> None:
    """A restart that was planned is called off."""
    setup.start()
    setup.ready.callback(None)
    setup.reactor.started[0].ends()

    setup.stop()
    setup.reactor.advance(10)

    assert setup.done == ["started", "stopped"]
    assert len(setup.reactor.started) == 1
    assert not setup.reactor.getDelayedCalls()


def test_what_it_says_is_passed_on_by_lines(setup: Setup) -> None:
    """Half a line waits for its other half."""
    setup.start()
    [process] = setup.reactor.started

    with capturedLogs() as captured:
        process.writes(b"one\ntw", STDOUT)
        process.writes(b"o\n", STDOUT)

    assert [event["line"] for event in captured] == ["one", "two"]
