"""A worker as its foreman sees it."""

from pathlib import Path
from typing import Any

import msgspec
import pytest
from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.error import (
    ProcessDone,
    ProcessExitedAlready,
    ProcessTerminated,
)
from twisted.internet.task import Clock
from twisted.logger import capturedLogs
from twisted.python.failure import Failure

from abproxy.process import FIRST_DELAY_S, KILL_S, LONG_S
from abproxy.settings import Settings
from abproxy.workers.child import WorkerProcess
from abproxy.workers.orders import END, IN, OUT, PUBLIC, READY, STDERR

SESAME = Settings(api_keys=("sesame",))
KILLED = ProcessTerminated(signal=9)


class Process:
    """A worker that does what the test says."""

    def __init__(self, pipes: Any, arguments: list[str], files: Any) -> None:
        self.pipes = pipes
        self.arguments = arguments
        self.files = files
        self.heard: list[bytes] = []
        self.signals: list[str] = []
        self.is_over = False

    def writeToChild(self, _file: int, data: bytes) -> None:  # noqa: N802
        """Hear the foreman."""
        if self.is_over:
            raise KeyError(IN)
        self.heard += data.splitlines()

    def signalProcess(self, name: str) -> None:  # noqa: N802
        """Hear a signal."""
        if self.is_over:
            raise ProcessExitedAlready
        self.signals.append(name)

    def says(self, data: bytes, file: int = OUT) -> None:
        """Say something."""
        self.pipes.childDataReceived(file, data)

    def ends(self, how: Exception | None = None) -> None:
        """End."""
        self.is_over = True
        self.pipes.processEnded(Failure(how or ProcessDone(0)))


class Processes(Clock):
    """A reactor that starts such workers."""

    def __init__(self) -> None:
        super().__init__()
        self.started: list[Process] = []
        self.error: OSError | None = None

    def spawnProcess(  # noqa: N802
        self, pipes: Any, _path: str, arguments: list[str], **how: Any
    ) -> Process:
        """Start one, unless that is an error."""
        if self.error is not None:
            raise self.error
        self.started.append(Process(pipes, arguments, how["childFDs"]))
        return self.started[-1]


@define
class Ears:
    """Whoever takes in what a worker says."""

    said: list[tuple[str, str, bytes]] = field(factory=list)

    def logged(self, name: str, line: bytes) -> None:
        """Hear a line for the log."""
        self.said.append(("log", name, line))

    def wrote(self, name: str, line: bytes) -> None:
        """Hear a line on standard error."""
        self.said.append(("error", name, line))


class Home:
    """A worker, its reactor, and what becomes of it."""

    def __init__(self) -> None:
        self.reactor = Processes()
        self.ears = Ears()
        self.gone: list[str] = []
        self.worker = WorkerProcess(
            reactor=self.reactor,
            name="1",
            folder=Path("/private"),
            port=42,
            settings=SESAME,
            hears=self.ears,
            gone=self.gone.append,
        )
        self.done: list[str] = []

    def start(self) -> Process:
        """Start it."""
        starting = Deferred.fromCoroutine(self.worker.start())
        starting.addCallback(lambda _: self.done.append("started"))
        starting.addErrback(lambda failed: self.done.append(failed.getErrorMessage()))
        return self.reactor.started[-1]

    def start_well(self) -> Process:
        """Start it, and let it let clients in."""
        process = self.start()
        process.says(READY + b"\n")
        return process

    def stop(self) -> None:
        """Wait for its end."""
        self.worker.end()
        stopping = Deferred.fromCoroutine(self.worker.stop(5.0))
        stopping.addCallback(lambda _: self.done.append("stopped"))


@pytest.fixture
def home() -> Home:
    """Make a home for a worker."""
    return Home()


def test_it_has_started_when_it_lets_clients_in(home: Home) -> None:
    """It says so itself."""
    process = home.start()
    before = list(home.done)
    process.says(READY + b"\n")

    assert before == []
    assert home.done == ["started"]


def test_it_inherits_the_port_and_its_output(home: Home) -> None:
    """And three pipes to its foreman."""
    process = home.start()

    assert process.files == {IN: "w", 1: 1, STDERR: "r", OUT: "r", PUBLIC: 42}


def test_its_settings_are_written_to_it_and_stand_on_no_command_line(
    home: Home,
) -> None:
    """Everybody on the machine can read that."""
    process = home.start()

    [line] = process.heard
    assert msgspec.json.decode(line)["api_keys"] == ["sesame"]
    assert process.arguments[1:] == ["-m", "abproxy.workers", "/private/1"]


def test_a_first_life_that_begins_badly_is_the_last(home: Home) -> None:
    """Another would begin no better; what it said tells why."""
    process = home.start()
    process.says(b"cannot write to /log\n", STDERR)

    process.ends(ProcessTerminated(exitCode=1))
    home.reactor.advance(60)

    assert home.done == ["worker 1 ended with exit code 1: cannot write to /log"]
    assert len(home.reactor.started) == 1


def test_a_first_life_that_cannot_begin_is_the_last(home: Home) -> None:
    """As where Python may not be executed."""
    home.reactor.error = OSError("no room")

    starting = Deferred.fromCoroutine(home.worker.start())
    starting.addErrback(lambda failed: home.done.append(failed.getErrorMessage()))
    home.stop()

    why = "worker 1 ended with an error before it began: no room"
    assert home.done == [why, "stopped"]
    assert not home.reactor.getDelayedCalls()


def test_a_later_life_that_cannot_begin_is_tried_again(home: Home) -> None:
    """A machine that is full now may have room soon."""
    home.start_well().ends(KILLED)
    home.reactor.error = OSError("no room")
    home.reactor.advance(FIRST_DELAY_S)
    home.reactor.error = None

    home.reactor.advance(2 * FIRST_DELAY_S)

    assert len(home.reactor.started) == 2


def test_who_had_lived_for_a_while_is_replaced_at_once(home: Home) -> None:
    """The log says so, and its figures are kept."""
    process = home.start_well()
    home.reactor.advance(LONG_S)

    with capturedLogs() as events:
        process.ends(KILLED)
    home.reactor.advance(0)

    assert len(home.reactor.started) == 2
    assert [(e["worker"], e["how"], e["pause_s"]) for e in events] == [
        ("1", "signal 9", 0)
    ]
    assert home.gone == ["1"]
    assert home.worker.restarts == 1


def test_who_dies_young_is_replaced_after_a_pause(home: Home) -> None:
    """It will probably die again."""
    home.start_well().ends(KILLED)

    home.reactor.advance(FIRST_DELAY_S - 0.1)
    early = len(home.reactor.started)
    home.reactor.advance(0.1)

    assert (early, len(home.reactor.started)) == (1, 2)


def test_a_later_life_that_begins_badly_is_not_the_last(home: Home) -> None:
    """The others still work; somebody may mend what is wrong."""
    home.start_well().ends(KILLED)
    home.reactor.advance(FIRST_DELAY_S)

    home.reactor.started[1].ends(ProcessTerminated(exitCode=1))
    home.reactor.advance(2 * FIRST_DELAY_S)

    assert len(home.reactor.started) == 3


def test_new_settings_are_for_this_life_and_the_next(home: Home) -> None:
    """Whoever comes later does not begin with the old ones."""
    first = home.start_well()
    home.worker.send(Settings(api_keys=("open",)))
    first.ends(KILLED)
    home.reactor.advance(FIRST_DELAY_S)

    heard = [first.heard[1], *home.reactor.started[1].heard]
    keys = [msgspec.json.decode(line)["api_keys"] for line in heard]
    assert keys == [["open"], ["open"]]


def test_it_is_told_to_end_and_waited_for(home: Home) -> None:
    """It answers what it has accepted, and nobody comes in its place."""
    process = home.start_well()

    home.stop()
    before = list(home.done)
    process.ends()
    home.reactor.advance(60)

    assert process.heard[1:] == [END]
    assert before == ["started"]
    assert home.done == ["started", "stopped"]
    assert len(home.reactor.started) == 1
    assert not home.reactor.getDelayedCalls()


def test_one_that_does_not_end_is_killed(home: Home) -> None:
    """Long after all calls should be answered."""
    process = home.start_well()

    home.stop()
    home.reactor.advance(5.0 + KILL_S)
    process.ends(KILLED)

    assert process.signals == ["KILL"]
    assert home.done == ["started", "stopped"]


def test_one_that_is_being_replaced_is_not_waited_for(home: Home) -> None:
    """Its next life is called off."""
    home.start_well().ends(KILLED)

    home.stop()
    home.reactor.advance(60)

    assert home.done == ["started", "stopped"]
    assert len(home.reactor.started) == 1


def test_one_that_dies_while_it_is_told_something_is_no_trouble(home: Home) -> None:
    """Its end may be known to the kernel before it is to us."""
    process = home.start_well()
    process.is_over = True

    home.stop()
    process.ends(KILLED)

    assert home.done == ["started", "stopped"]


def test_one_that_ends_between_the_wish_and_the_wait_is_not_replaced(
    home: Home,
) -> None:
    """It has only done what it was told."""
    process = home.start_well()
    home.worker.end()

    process.ends()
    home.reactor.advance(60)

    assert len(home.reactor.started) == 1


def test_what_it_says_is_passed_on_by_lines(home: Home) -> None:
    """Half a line waits for its other half, on each pipe by itself."""
    process = home.start_well()

    process.says(b'{"a')
    process.says(b"Trace", STDERR)
    process.says(b'": 1}\n')
    process.says(b"back\n", STDERR)

    assert home.ears.said == [("log", "1", b'{"a": 1}'), ("error", "1", b"Traceback")]
