"""The embedded model as a child of the proxy."""

import socket
from collections.abc import Iterator

import pytest
from childdoubles import SpawningClock
from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessTerminated
from twisted.logger import capturedLogs

from abproxy.process import KILL_S
from abproxy.upstream.embedded import RESTART_S, ModelChild

STDOUT = 1


@pytest.fixture
def listening() -> Iterator[socket.socket]:
    """Listen somewhere."""
    with socket.create_server(("127.0.0.1", 0)) as ours:
        yield ours


class Home:
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
def home(listening: socket.socket) -> Home:
    """Make a home for a child."""
    return Home(listening)


def test_it_has_started_when_it_answers(home: Home) -> None:
    """Clients are accepted when the model answers, not before."""
    home.start()
    before = list(home.done)
    home.ready.callback(None)

    assert before == []
    assert home.done == ["started"]


def test_it_inherits_the_socket(home: Home) -> None:
    """Its address is known from the start, and survives it."""
    home.start()

    [process] = home.reactor.started
    assert process.files[3] == home.child.listening.fileno()
    assert "--listen-fd" in process.arguments
    assert home.child.url.startswith("http://127.0.0.1:")


def test_a_child_that_ends_is_started_again(home: Home) -> None:
    """A crash of the model costs a second, and the log says what it was."""
    home.start()
    home.ready.callback(None)

    with capturedLogs() as captured:
        home.reactor.started[0].ends(ProcessTerminated(signal=9))
    home.reactor.advance(RESTART_S)

    assert len(home.reactor.started) == 2
    assert [event["how"] for event in captured] == ["signal 9"]


def test_a_child_that_ends_before_it_is_ready_is_not_started_again(home: Home) -> None:
    """It would end again and again, and callers would wait for ever."""
    home.start()

    home.reactor.started[0].ends(ProcessTerminated(exitCode=1))
    home.reactor.advance(10)

    assert home.done == ["the embedded model ended with exit code 1"]
    assert len(home.reactor.started) == 1


def test_a_child_that_cannot_begin_is_not_tried_again(home: Home) -> None:
    """As where Python may not be executed."""
    home.reactor.error = OSError("no room")

    home.start()
    home.stop()

    why = "the embedded model ended with an error before it began: no room"
    assert home.done == [why, "stopped"]
    assert not home.reactor.getDelayedCalls()


def test_a_restart_that_cannot_begin_is_tried_again(home: Home) -> None:
    """A machine that is full now may have room soon."""
    home.start()
    home.ready.callback(None)
    home.reactor.started[0].ends()
    home.reactor.error = OSError("no room")
    home.reactor.advance(RESTART_S)
    home.reactor.error = None

    home.reactor.advance(RESTART_S)

    assert len(home.reactor.started) == 2


def test_stopping_waits_for_its_end(home: Home) -> None:
    """It may finish what it was given."""
    home.start()
    home.ready.callback(None)
    [process] = home.reactor.started

    home.stop()
    before = list(home.done)
    process.ends()

    assert before == ["started"]
    assert home.done == ["started", "stopped"]
    assert process.signals == ["TERM"]
    assert not home.reactor.getDelayedCalls()


def test_a_child_that_does_not_end_is_killed(home: Home) -> None:
    """A model that hangs does not keep the proxy from ending."""
    home.start()
    [process] = home.reactor.started

    home.stop()
    home.reactor.advance(KILL_S)
    process.ends()

    assert process.signals == ["TERM", "KILL"]
    assert home.done == ["stopped"]


def test_a_child_that_has_just_ended_by_itself_is_no_trouble(home: Home) -> None:
    """Its end may be known to the kernel before it is to us."""
    home.start()
    [process] = home.reactor.started
    process.has_ended = True

    home.stop()
    process.ends()

    assert home.done == ["stopped"]


def test_stopping_between_two_runs_starts_no_other(home: Home) -> None:
    """A restart that was planned is called off."""
    home.start()
    home.ready.callback(None)
    home.reactor.started[0].ends()

    home.stop()
    home.reactor.advance(10)

    assert home.done == ["started", "stopped"]
    assert len(home.reactor.started) == 1
    assert not home.reactor.getDelayedCalls()


def test_what_it_says_is_passed_on_by_lines(home: Home) -> None:
    """Half a line waits for its other half."""
    home.start()
    [process] = home.reactor.started

    with capturedLogs() as captured:
        process.writes(b"one\ntw", STDOUT)
        process.writes(b"o\n", STDOUT)

    assert [event["line"] for event in captured] == ["one", "two"]
