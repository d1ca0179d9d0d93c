"""A worker as its supervisor sees it."""

from pathlib import Path

import msgspec
import pytest
from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessTerminated
from twisted.logger import LogEvent, capturedLogs

from abproxy.process import FIRST_DELAY_S, KILL_S, LONG_S
from abproxy.settings.settings import Settings
from abproxy.workers.control import (
    CONTROL_IN,
    CONTROL_OUT,
    END,
    PORT,
    READY,
    STDERR,
)
from abproxy.workers.process import WorkerProcess
from support.processes import FakeProcess, SpawningClock

SESAME = Settings(api_keys=("sesame",))
KILLED = ProcessTerminated(signal=9)


class Setup:
    """A worker, its reactor, and what becomes of it."""

    def __init__(self) -> None:
        self.reactor = SpawningClock()
        self.ended: list[str] = []
        self.worker = WorkerProcess(
            reactor=self.reactor,
            kill_after_s=5.0,
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
        """Start it, and let it accept clients."""
        process = self.start()
        process.writes(READY + b"\n", CONTROL_OUT)
        return process

    def stop(self) -> None:
        """Wait for its end."""
        self.worker.end()
        stopping = Deferred.fromCoroutine(self.worker.stop())
        stopping.addCallback(lambda _: self.done.append("stopped"))


@pytest.fixture
def setup() -> Setup:
    """Prepare a worker."""
    return Setup()


def test_it_has_started_when_it_accepts_clients(setup: Setup) -> None:
    """It says so itself."""
    process = setup.start()
    before = list(setup.done)
    process.writes(READY + b"\n", CONTROL_OUT)

    assert before == []
    assert setup.done == ["started"]


def test_it_inherits_the_port_and_its_output(setup: Setup) -> None:
    """And three pipes to its supervisor."""
    process = setup.start()

    assert process.files == {
        CONTROL_IN: "w",
        1: 1,
        STDERR: "r",
        CONTROL_OUT: "r",
        PORT: 42,
    }


def test_its_settings_are_written_to_it_and_stand_on_no_command_line(
    setup: Setup,
) -> None:
    """Every user of the machine can read that."""
    process = setup.start()

    [line] = process.received
    assert msgspec.json.decode(line)["api_keys"] == ["sesame"]
    assert process.arguments[1:] == ["-m", "abproxy.workers", "/private/1"]


def test_a_worker_whose_first_run_ends_early_is_not_started_again(setup: Setup) -> None:
    """Another would begin no better; what it said tells why."""
    process = setup.start()
    process.writes(b"cannot write to /log\n", STDERR)

    process.ends(ProcessTerminated(exitCode=1))
    setup.reactor.advance(60)

    assert setup.done == ["worker 1 ended with exit code 1: cannot write to /log"]
    assert len(setup.reactor.started) == 1


def test_a_worker_that_cannot_be_spawned_at_first_is_not_tried_again(
    setup: Setup,
) -> None:
    """As where Python may not be executed."""
    setup.reactor.error = OSError("no room")

    starting = Deferred.fromCoroutine(setup.worker.start())
    starting.addErrback(lambda failed: setup.done.append(failed.getErrorMessage()))
    setup.stop()

    why = "worker 1 ended with an error before it began: no room"
    assert setup.done == [why, "stopped"]
    assert not setup.reactor.getDelayedCalls()


def test_a_later_run_that_cannot_be_spawned_is_tried_again(setup: Setup) -> None:
    """A machine that is full now may have memory soon."""
    setup.start_well().ends(KILLED)
    setup.reactor.error = OSError("no room")
    setup.reactor.advance(FIRST_DELAY_S)
    setup.reactor.error = None

    setup.reactor.advance(2 * FIRST_DELAY_S)

    assert len(setup.reactor.started) == 2


def test_a_worker_that_had_run_for_a_while_is_replaced_at_once(setup: Setup) -> None:
    """The log says so, and its figures are kept."""
    process = setup.start_well()
    setup.reactor.advance(LONG_S)

    with capturedLogs() as events:
        process.ends(KILLED)
    setup.reactor.advance(0)

    assert len(setup.reactor.started) == 2
    assert [(e["worker"], e["how"], e["pause_s"]) for e in events] == [
        ("1", "signal 9", 0)
    ]
    assert setup.ended == ["1"]
    assert setup.worker.restarts == 1


def test_a_worker_that_ends_soon_is_replaced_after_a_pause(setup: Setup) -> None:
    """It will probably end again."""
    setup.start_well().ends(KILLED)

    setup.reactor.advance(FIRST_DELAY_S - 0.1)
    early = len(setup.reactor.started)
    setup.reactor.advance(0.1)

    assert (early, len(setup.reactor.started)) == (1, 2)


def test_a_later_run_that_ends_early_is_not_the_last(setup: Setup) -> None:
    """The others still work; what is wrong may be mended."""
    setup.start_well().ends(KILLED)
    setup.reactor.advance(FIRST_DELAY_S)

    setup.reactor.started[1].ends(ProcessTerminated(exitCode=1))
    setup.reactor.advance(2 * FIRST_DELAY_S)

    assert len(setup.reactor.started) == 3


def test_new_settings_are_for_this_run_and_the_next(setup: Setup) -> None:
    """One that comes later does not begin with the old ones."""
    first = setup.start_well()
    setup.worker.send(Settings(api_keys=("open",)))
    first.ends(KILLED)
    setup.reactor.advance(FIRST_DELAY_S)

    received = [first.received[1], *setup.reactor.started[1].received]
    keys = [msgspec.json.decode(line)["api_keys"] for line in received]
    assert keys == [["open"], ["open"]]


def test_it_is_told_to_end_and_waited_for(setup: Setup) -> None:
    """It answers what it has accepted, and no other is started."""
    process = setup.start_well()

    setup.stop()
    before = list(setup.done)
    process.ends()
    setup.reactor.advance(60)

    assert process.received[1:] == [END]
    assert before == ["started"]
    assert setup.done == ["started", "stopped"]
    assert len(setup.reactor.started) == 1
    assert not setup.reactor.getDelayedCalls()


def test_one_that_does_not_end_is_killed(setup: Setup) -> None:
    """Long after all calls should be answered."""
    process = setup.start_well()

    setup.stop()
    setup.reactor.advance(Settings().drain_timeout_s)
    before = list(process.signals)
    setup.reactor.advance(KILL_S)
    process.ends(KILLED)

    assert before == []
    assert process.signals == ["KILL"]
    assert setup.done == ["started", "stopped"]


def test_one_that_is_being_replaced_is_not_waited_for(setup: Setup) -> None:
    """Its next run is cancelled."""
    setup.start_well().ends(KILLED)

    setup.stop()
    setup.reactor.advance(60)

    assert setup.done == ["started", "stopped"]
    assert len(setup.reactor.started) == 1


def test_one_that_ends_while_it_is_written_to_is_no_trouble(setup: Setup) -> None:
    """Its end may be known to the kernel before it is to us."""
    process = setup.start_well()
    process.has_ended = True

    setup.stop()
    process.ends(KILLED)

    assert setup.done == ["started", "stopped"]


def test_one_that_ends_before_it_is_waited_for_is_not_replaced(
    setup: Setup,
) -> None:
    """It has only done what it was told."""
    process = setup.start_well()
    setup.worker.end()

    process.ends()
    setup.reactor.advance(60)

    assert len(setup.reactor.started) == 1


def shown(event: LogEvent) -> str:
    """Return an event as the log shows it."""
    return str(event["log_format"]).format(**event)


def test_what_it_writes_is_logged_by_lines(setup: Setup) -> None:
    """Half a line waits for its other half, on each pipe by itself."""
    process = setup.start_well()

    with capturedLogs() as events:
        process.writes(b'{"level":"info","logger":"a","mess', CONTROL_OUT)
        process.writes(b"Trace", STDERR)
        process.writes(b'age":"so"}\n', CONTROL_OUT)
        process.writes(b"back\n", STDERR)

    assert list(map(shown, events)) == ["worker 1: so", "worker 1: Traceback"]


def logged(setup: Setup, line: bytes) -> LogEvent:
    """Return what the supervisor logs when worker 1 logs *line*."""
    process = setup.start_well()
    with capturedLogs() as events:
        process.writes(line + b"\n", CONTROL_OUT)
    [event] = events
    return event


def test_what_a_worker_logs_is_logged_with_its_name(setup: Setup) -> None:
    """As important as it was, from where it was, with what it was about."""
    line = b'{"time":"t","level":"warn","logger":"a.b","message":"so","n":3}'

    event = logged(setup, line)

    assert shown(event) == "worker 1: so"
    assert (event["log_level"].name, event["log_namespace"]) == ("warn", "a.b")
    assert (event["worker"], event["n"]) == ("1", 3)


def test_a_traceback_of_a_worker_is_not_lost(setup: Setup) -> None:
    """Nor is it a failure of the supervisor's."""
    line = b'{"level":"critical","logger":"a","message":"oh","traceback":"Traceback"}'

    assert shown(logged(setup, line)) == "worker 1: oh\nTraceback"


@pytest.mark.parametrize("member", ["said", "worker", "text"])
def test_a_member_of_any_name_is_no_trouble(setup: Setup, member: str) -> None:
    """Modules call the fields of their events as they like."""
    line = msgspec.json.encode(
        {"level": "info", "logger": "a", "message": "so", member: "x"}
    )

    assert shown(logged(setup, line)) == "worker 1: so"


def test_what_python_itself_writes_is_a_warning(setup: Setup) -> None:
    """It is never written on purpose."""
    process = setup.start_well()

    with capturedLogs() as events:
        process.writes(b"Segmentation f\xffault\n", STDERR)

    [event] = events
    assert shown(event) == "worker 1: Segmentation f\N{REPLACEMENT CHARACTER}ault"
    assert event["log_level"].name == "warn"
