"""A worker as its supervisor sees it."""

from pathlib import Path

import msgspec
import pytest
from childdoubles import FakeProcess, SpawningClock
from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessTerminated
from twisted.logger import LogEvent, capturedLogs

from abproxy.process import FIRST_DELAY_S, KILL_S, LONG_S
from abproxy.settings import Settings
from abproxy.workers.control import (
    CONTROL_IN,
    CONTROL_OUT,
    END,
    PORT,
    READY,
    STDERR,
)
from abproxy.workers.process import WorkerProcess

SESAME = Settings(api_keys=("sesame",))
KILLED = ProcessTerminated(signal=9)


class Home:
    """A worker, its reactor, and what becomes of it."""

    def __init__(self) -> None:
        self.reactor = SpawningClock()
        self.ended: list[str] = []
        self.worker = WorkerProcess(
            reactor=self.reactor,
            name="1",
            folder=Path("/private"),
            port_fd=42,
            settings=SESAME,
            on_end=self.ended.append,
        )
        self.done: list[str] = []

    def start(self) -> FakeProcess:
        """Start it."""
        starting = Deferred.fromCoroutine(self.worker.start())
        starting.addCallback(lambda _: self.done.append("started"))
        starting.addErrback(lambda failed: self.done.append(failed.getErrorMessage()))
        return self.reactor.started[-1]

    def start_well(self) -> FakeProcess:
        """Start it, and let it let clients in."""
        process = self.start()
        process.writes(READY + b"\n", CONTROL_OUT)
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
    process.writes(READY + b"\n", CONTROL_OUT)

    assert before == []
    assert home.done == ["started"]


def test_it_inherits_the_port_and_its_output(home: Home) -> None:
    """And three pipes to its supervisor."""
    process = home.start()

    assert process.files == {
        CONTROL_IN: "w",
        1: 1,
        STDERR: "r",
        CONTROL_OUT: "r",
        PORT: 42,
    }


def test_its_settings_are_written_to_it_and_stand_on_no_command_line(
    home: Home,
) -> None:
    """Everybody on the machine can read that."""
    process = home.start()

    [line] = process.received
    assert msgspec.json.decode(line)["api_keys"] == ["sesame"]
    assert process.arguments[1:] == ["-m", "abproxy.workers", "/private/1"]


def test_a_first_life_that_begins_badly_is_the_last(home: Home) -> None:
    """Another would begin no better; what it said tells why."""
    process = home.start()
    process.writes(b"cannot write to /log\n", STDERR)

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
    assert home.ended == ["1"]
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

    received = [first.received[1], *home.reactor.started[1].received]
    keys = [msgspec.json.decode(line)["api_keys"] for line in received]
    assert keys == [["open"], ["open"]]


def test_it_is_told_to_end_and_waited_for(home: Home) -> None:
    """It answers what it has accepted, and nobody comes in its place."""
    process = home.start_well()

    home.stop()
    before = list(home.done)
    process.ends()
    home.reactor.advance(60)

    assert process.received[1:] == [END]
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
    process.has_ended = True

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


def shown(event: LogEvent) -> str:
    """Return an event as the log shows it."""
    return str(event["log_format"]).format(**event)


def test_what_it_writes_is_logged_by_lines(home: Home) -> None:
    """Half a line waits for its other half, on each pipe by itself."""
    process = home.start_well()

    with capturedLogs() as events:
        process.writes(b'{"level":"info","logger":"a","mess', CONTROL_OUT)
        process.writes(b"Trace", STDERR)
        process.writes(b'age":"so"}\n', CONTROL_OUT)
        process.writes(b"back\n", STDERR)

    assert list(map(shown, events)) == ["worker 1: so", "worker 1: Traceback"]


def logged(home: Home, line: bytes) -> LogEvent:
    """Return what the supervisor logs when worker 1 logs *line*."""
    process = home.start_well()
    with capturedLogs() as events:
        process.writes(line + b"\n", CONTROL_OUT)
    [event] = events
    return event


def test_what_a_worker_logs_is_logged_with_its_name(home: Home) -> None:
    """As important as it was, from where it was, with what it was about."""
    line = b'{"time":"t","level":"warn","logger":"a.b","message":"so","n":3}'

    event = logged(home, line)

    assert shown(event) == "worker 1: so"
    assert (event["log_level"].name, event["log_namespace"]) == ("warn", "a.b")
    assert (event["worker"], event["n"]) == ("1", 3)


def test_a_traceback_of_a_worker_is_not_lost(home: Home) -> None:
    """Nor is it a failure of the supervisor's."""
    line = b'{"level":"critical","logger":"a","message":"oh","traceback":"Traceback"}'

    assert shown(logged(home, line)) == "worker 1: oh\nTraceback"


@pytest.mark.parametrize("member", ["said", "worker", "text"])
def test_a_member_of_any_name_is_no_trouble(home: Home, member: str) -> None:
    """Modules call the fields of their events as they like."""
    line = msgspec.json.encode(
        {"level": "info", "logger": "a", "message": "so", member: "x"}
    )

    assert shown(logged(home, line)) == "worker 1: so"


def test_what_python_itself_writes_is_a_warning(home: Home) -> None:
    """It is never written on purpose."""
    process = home.start_well()

    with capturedLogs() as events:
        process.writes(b"Segmentation f\xffault\n", STDERR)

    [event] = events
    assert shown(event) == "worker 1: Segmentation f\N{REPLACEMENT CHARACTER}ault"
    assert event["log_level"].name == "warn"
