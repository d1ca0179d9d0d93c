"""A process of ours that cannot start, whenever that comes to light."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import ClassVar

import pytest
from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.error import ReactorNotRunning
from twisted.logger import LogEvent, Logger, capturedLogs, formatEvent

from abproxy import __version__
from abproxy.service.lifetime import Lifetime, ProcessContext
from abproxy.service.signals import Signals
from support.processes import TWISTD, outcome


@define(eq=False)
class Reactor:
    """Runs and stops as a real one does, but nothing happens in it."""

    is_running: bool = False
    stops: int = 0
    _hooks: list[Callable[[], object]] = field(factory=list)

    def callWhenRunning(self, hook: Callable[[], object]) -> None:  # noqa: N802
        """Call *hook* now, or when it runs."""
        if self.is_running:
            hook()
        else:
            self._hooks.append(hook)

    def run(self) -> None:
        """Begin to run."""
        self.is_running = True
        for hook in self._hooks:
            hook()

    def stop(self) -> None:
        """Stop, which only one can that runs."""
        if not self.is_running:
            raise ReactorNotRunning
        self.is_running = False
        self.stops += 1


@define(kw_only=True, eq=False)
class Process(Lifetime):
    """A process whose start fails when the test says so."""

    failing: Deferred[None] = field(factory=Deferred)
    codes: list[int]
    _log: ClassVar[Logger] = Logger()

    def _listen_to_signals(self) -> None:
        pass

    async def _start(self) -> None:
        await self.failing

    async def _stop(self) -> None:
        pass


@pytest.fixture
def process() -> Process:
    """Make a process."""
    reactor = Reactor()
    codes: list[int] = []
    return Process(
        reactor=reactor,
        process=ProcessContext(end_with=codes.append),
        signals=Signals(reactor),
        model=None,
        upstream_url="",
        codes=codes,
    )


@pytest.fixture
def logged() -> Iterator[list[LogEvent]]:
    """Give what is logged."""
    with capturedLogs() as events:
        yield events


def _fails(process: Process, logged: list[LogEvent]) -> bool:
    """Say whether it ended once, with one line and exit code 1."""
    said = [formatEvent(event) for event in logged]
    one_line = said == [f"abproxy {__version__}", "Cannot start: no room"]
    return one_line and process.reactor.stops == 1 and process.codes == [1]


def test_who_fails_before_the_reactor_runs_ends_as_soon_as_it_does(
    process: Process, logged: list[LogEvent]
) -> None:
    """A reactor that does not run yet cannot be stopped."""
    process.failing.errback(OSError("no room"))

    process.startService()
    early = process.reactor.stops
    process.reactor.run()

    assert early == 0
    assert _fails(process, logged)


def test_who_fails_while_the_reactor_runs_ends_at_once(
    process: Process, logged: list[LogEvent]
) -> None:
    """As when a model or a worker ends before it is ready."""
    process.startService()
    process.reactor.run()

    process.failing.errback(OSError("no room"))

    assert _fails(process, logged)


def test_who_fails_when_the_end_has_come_anyway_is_no_trouble(
    process: Process, logged: list[LogEvent]
) -> None:
    """The reactor stops once."""
    process.startService()
    process.reactor.run()
    process.reactor.stop()

    process.failing.errback(OSError("no room"))

    assert process.reactor.stops == 1
    assert len(logged) == 2


NOT_FOUND = "an error before it began: [Errno 2] No such file or directory"


@pytest.mark.parametrize(
    ("option", "reason"),
    [
        ("--embedded", f"the embedded model ended with {NOT_FOUND}: '/no/python'"),
        ("--workers=2", f"worker 1 ended with {NOT_FOUND}: '/no/python'"),
    ],
)
def test_a_real_process_ends_that_cannot_start_another(
    tmp_path: Path, option: str, reason: str
) -> None:
    """As with a `--uid` that may not execute Python."""
    lost = "import sys; sys.executable = '/no/python'"
    twistd = f"{lost}; from twisted.scripts.twistd import run; run()"
    start = [sys.executable, "-c", twistd, "--nodaemon", "--pidfile=", "abproxy"]

    code, said = outcome(tmp_path, [*start, "--port=0", option])

    assert (code, reasons(said)) == (1, [reason])


def test_a_real_process_ends_whose_workers_have_no_room_for_a_socket(
    tmp_path: Path,
) -> None:
    """The path of a socket has about a hundred bytes."""
    folder = tmp_path / ("x" * 90)
    folder.mkdir()
    start = [str(TWISTD), "--nodaemon", "--pidfile=", "abproxy", "--port=0"]

    code, said = outcome(tmp_path, [*start, "--workers=2"], TMPDIR=str(folder))

    [reason] = reasons(said)
    assert code == 1
    assert reason.startswith("WORKERS needs a folder for sockets: ")
    assert "AF_UNIX path too long; set TMPDIR to " in reason
    assert list(folder.iterdir()) == []


def reasons(said: str) -> list[str]:
    """Find why the process cannot start."""
    lines = [line for line in said.splitlines() if "#critical" in line]
    return [line.partition("Cannot start: ")[2] for line in lines]
