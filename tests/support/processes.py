"""Child processes: real ones as operators start them, and fakes."""

import os
import re
import resource
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

from attrs import define, field, frozen
from twisted.internet.error import (
    ProcessDone,
    ProcessExitedAlready,
)
from twisted.internet.task import Clock
from twisted.python.failure import Failure

from bench.breakable import Breakable
from support.client import PATIENCE_S, sleep, the_reactor, until

TWISTD = Path(sys.executable).with_name("twistd")

TWISTD_COMMAND = (TWISTD, "--nodaemon", "--pidfile=")

AT_ONCE = {"PATH": "/usr/bin:/bin", "DRAIN_DELAY": "0"}
"""The environment: no test waits for load balancers that are not there."""

READY_S = 30

STOPPED_S = 15

_PORT = re.compile(r"(?:http://127\.0\.0\.1:|port=)(\d+)")


@frozen(kw_only=True)
class Running:
    """A `twistd` that is ready."""

    url: str
    """Where it answers."""

    log: str
    """What it had said when it was ready."""

    _process: "subprocess.Popen[bytes]" = field(repr=False)

    @property
    def peak_bytes(self) -> int:
        """How much memory it had at most."""
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        [peak] = re.findall(r"VmHWM:\s+(\d+) kB", status)
        return int(peak) << 10

    @contextmanager
    def held_still(self) -> Iterator[None]:
        """Let it do nothing for a while; what is sent to it waits in the kernel."""
        self._process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self._process.send_signal(signal.SIGCONT)


@contextmanager
def running(folder: Path, ready: str, *arguments: str) -> Iterator[Running]:
    """
    Run `twistd` with *arguments* in *folder*.

    Args:
        folder: where it runs and writes its log.
        ready: what its log says when it is ready.
        arguments: the command and its options; the port should be any.
    """
    folder.mkdir()
    log = folder / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(  # noqa: S603
            [*TWISTD_COMMAND, *arguments],
            cwd=folder,
            env=AT_ONCE,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        said = _until_ready(process, log, ready)
        found = _PORT.search(said)
        assert found is not None, said
        url = f"http://127.0.0.1:{found[1]}"
        yield Running(url=url, log=said, process=process)
    finally:
        process.terminate()
        assert process.wait(STOPPED_S) == 0, log.read_text()


def _until_ready(process: "subprocess.Popen[bytes]", log: Path, ready: str) -> str:
    give_up_at = time.monotonic() + READY_S
    while ready not in log.read_text():
        assert process.poll() is None, log.read_text()
        assert time.monotonic() < give_up_at, log.read_text()
        time.sleep(0.02)
    return log.read_text()


@contextmanager
def model_server(folder: Path, *options: str) -> Iterator[str]:
    """Run the embedded model that answers equal bytes for equal texts."""
    arguments = ("abproxy-model", "--model=static", "--port=0", *options)
    with running(folder, " serving ", *arguments) as server:
        yield server.url


@contextmanager
def proxy(folder: Path, upstream: str, ready: str, *options: str) -> Iterator[str]:
    """Run the proxy in front of *upstream*."""
    arguments = ("abproxy", "--port=0", f"--inference-service-url={upstream}", *options)
    with running(folder, ready, *arguments) as server:
        yield server.url


def refusal(folder: Path, *options: str) -> tuple[int, str]:
    """Start the proxy where it cannot start: how it ends, and what it says."""
    command = [*map(str, TWISTD_COMMAND), "abproxy", *options]
    return outcome(folder, command)


def outcome(folder: Path, command: list[str], **environment: str) -> tuple[int, str]:
    """Run a *command* until it ends by itself: how it ends, and what it says."""
    ended = subprocess.run(  # noqa: S603
        command,
        cwd=folder,
        env={"PATH": "/usr/bin:/bin", **environment},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    return ended.returncode, ended.stdout + ended.stderr


ROOT = Path(__file__).parent.parent.parent


@contextmanager
def breakable_process(*options: str) -> Iterator[str]:
    """Run the upstream that breaks on command; says where."""
    command = [sys.executable, "-m", "bench.breakable", "--port=0", *options]
    with _child(command, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        yield child.stdout.readline().decode().split()[-1]


@contextmanager
def load(url: str, clients: int = 20) -> Iterator[None]:
    """Let many clients call until it is enough."""
    command = [sys.executable, "bench/load.py", f"--clients={clients}"]
    command += ["--seconds=600", f"{url}/embed"]
    with _child(command):
        yield


@contextmanager
def _child(
    command: list[str], stdout: int = subprocess.DEVNULL
) -> "Iterator[subprocess.Popen[bytes]]":
    with subprocess.Popen(command, cwd=ROOT, stdout=stdout) as child:  # noqa: S603
        try:
            yield child
        finally:
            child.kill()


class FakeProcess:
    """A child process that does what the test says."""

    def __init__(self, protocol: Any, arguments: list[str], files: Any) -> None:
        self.protocol = protocol
        self.arguments = arguments
        self.files = files
        self.received: list[bytes] = []
        self.signals: list[str] = []
        self.has_ended = False

    def writeToChild(self, file: int, data: bytes) -> None:  # noqa: N802
        """Receive lines, as long as the pipe is open."""
        if self.has_ended:
            raise KeyError(file)
        self.received += data.splitlines()

    def signalProcess(self, name: str) -> None:  # noqa: N802
        """Receive a signal."""
        if self.has_ended:
            raise ProcessExitedAlready
        self.signals.append(name)

    def writes(self, data: bytes, file: int) -> None:
        """Write to one of the pipes."""
        self.protocol.childDataReceived(file, data)

    def ends(self, how: Exception | None = None) -> None:
        """End."""
        self.has_ended = True
        self.protocol.processEnded(Failure(how or ProcessDone(0)))


class SpawningClock(Clock):
    """A reactor that starts such child processes."""

    def __init__(self) -> None:
        super().__init__()
        self.started: list[FakeProcess] = []
        self.error: OSError | None = None

    def spawnProcess(  # noqa: N802
        self, protocol: Any, _path: str, arguments: list[str], **how: Any
    ) -> FakeProcess:
        """Start one, unless that is an error."""
        if self.error is not None:
            raise self.error
        self.started.append(FakeProcess(protocol, arguments, how["childFDs"]))
        return self.started[-1]


@define(kw_only=True, eq=False)
class Daemon:
    """The proxy as an operator starts it: a process of its own."""

    process: "subprocess.Popen[bytes]"
    log: Path
    port: int

    @property
    def resident_bytes(self) -> int:
        """Memory in use."""
        pages = Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]
        return int(pages) * resource.getpagesize()


@asynccontextmanager
async def daemon(
    folder: Path,
    upstream: Breakable,
    *options: str,
    stdin: int = subprocess.DEVNULL,
    files: int | None = None,
    **environment: str,
) -> AsyncIterator[Daemon]:
    """Run `twistd abproxy` in front of *upstream*, with so many open *files*."""
    limit = ["sh", "-c", f'ulimit -n {files} && exec "$@"', "sh"] if files else []
    log = folder / "log"
    url = f"--inference-service-url={upstream.url}"
    ends_at = the_reactor().seconds() + PATIENCE_S
    with log.open("wb") as output:
        process = subprocess.Popen(  # noqa: ASYNC220, S603  it starts at once
            [*limit, *TWISTD_COMMAND, "abproxy", "--port=0", url, *options],
            cwd=folder,
            env={**AT_ONCE, **environment},
            stdin=stdin,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        found: list[str] = []
        while not found:
            assert process.poll() is None, log.read_text()
            assert the_reactor().seconds() < ends_at, log.read_text()
            await sleep(0.05)
            found = re.findall(r"answers on \S*?:(\d+)", log.read_text())
        yield Daemon(process=process, log=log, port=int(found[0]))
    finally:
        process.kill()
        process.wait()


def workers_of(pid: int) -> list[int]:
    """List the processes that a supervisor has."""
    children = Path(f"/proc/{pid}/task/{pid}/children")
    return [int(child) for child in children.read_text().split()]


def state_of(pid: int) -> str:
    """Return the letter that Linux has for the state of a process."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return "X"
    return status.rpartition(")")[2].split()[0]


def has_ended(pid: int) -> bool:
    """Whether a process is gone, or a mere entry in a table."""
    return state_of(pid) in "XZ"


@asynccontextmanager
async def paused(pid: int) -> AsyncIterator[None]:
    """Stop a process for a while."""
    os.kill(pid, signal.SIGSTOP)
    try:
        await until(lambda: state_of(pid) == "T")
        yield
    finally:
        os.kill(pid, signal.SIGCONT)
