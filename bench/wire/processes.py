"""
Processes that are measured: started on a core, watched, and ended for certain.

Each is the child of a context, so that nothing is left behind, whatever
happens in between.  What it says goes into a file, which is shown if it ends
before its time.
"""

import os
import socket
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPException
from pathlib import Path

from attrs import field, frozen

from bench.telemetry_cost import cpu_s
from bench.wire.errors import CannotMeasure

__all__ = ["Child", "child", "free_port", "is_healthy"]

OK = 200
READY_S = 30
ENDED_S = 5


@frozen(kw_only=True)
class Child:
    """A server that answers."""

    url: str
    pid: int
    log: Path = field(repr=False)

    @property
    def cpu_s(self) -> float:
        """Read its CPU time up to now."""
        return cpu_s(self.pid)

    @property
    def resident_bytes(self) -> int:
        """Read how much memory it has."""
        status = Path(f"/proc/{self.pid}/status").read_text(encoding="ascii")
        [line] = [each for each in status.splitlines() if each.startswith("VmRSS:")]
        return int(line.split()[1]) << 10


def free_port() -> int:
    """Find a port that no process listens on at the moment."""
    with socket.create_server(("127.0.0.1", 0)) as ours:
        return int(ours.getsockname()[1])


@contextmanager
def child(  # noqa: PLR0913
    name: str,
    command: Sequence[str | Path],
    port: int,
    *,
    cores: Sequence[int],
    folder: Path,
    environ: Mapping[str, str] = {},
    ready_s: float = READY_S,
) -> Iterator[Child]:
    """
    Run a server that listens on *port*, until the context is left.

    Args:
        name: what to call it in messages.
        command: the program and its options.
        port: where it will listen.
        cores: the numbers of the cores it may use.
        folder: where it runs, and where its log is.
        environ: its environment, beside PATH.
        ready_s: how long it may take until it answers.

    Raises:
        CannotMeasure: it ended, or did not answer in time; with what it said.
    """
    log = folder / f"{name}-{port}.log"
    with log.open("wb") as output:
        started = subprocess.Popen(  # noqa: S603
            command,
            cwd=folder,
            env={"PATH": os.environ["PATH"], **environ},  # none of our settings
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        os.sched_setaffinity(started.pid, cores)
        _wait_for(name, started, port, log, ready_s)
        yield Child(url=f"http://127.0.0.1:{port}", pid=started.pid, log=log)
    finally:
        _end(started)


def _wait_for(
    name: str,
    started: "subprocess.Popen[bytes]",
    port: int,
    log: Path,
    ready_s: float,
) -> None:
    give_up_at = time.monotonic() + ready_s
    while not is_healthy(port):
        if started.poll() is not None:
            raise CannotMeasure(f"{name} ended at once:\n{_tail(log)}")
        if time.monotonic() > give_up_at:
            raise CannotMeasure(f"{name} did not answer in {ready_s} s:\n{_tail(log)}")
        time.sleep(0.05)


def is_healthy(port: int, host: str = "127.0.0.1") -> bool:
    """Return whether what listens there answers that it is healthy."""
    connection = HTTPConnection(host, port, timeout=1)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == OK
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()


def _tail(log: Path) -> str:
    return "\n".join(log.read_text(errors="replace").splitlines()[-10:])


def _end(started: "subprocess.Popen[bytes]") -> None:
    started.terminate()
    try:
        started.wait(ENDED_S)
    except subprocess.TimeoutExpired:
        pass
    finally:  # also if an impatient user interrupts the waiting
        started.kill()
        started.wait()
