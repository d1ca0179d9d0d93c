"""
Load, and what its clients saw: from wrk, or from Python where there is no wrk.

A client has one connection and one call on its way at a time.  Python measures
less: one process of it cannot keep up with what is measured.
"""

import asyncio
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

from attrs import frozen

from bench import load as in_python
from bench.wire.errors import CannotMeasure

__all__ = ["Load", "Seen", "choose", "read_wrk"]

SCRIPT = Path(__file__).with_name("wire.lua")
PATIENCE_S = 60
_LINE = re.compile(r"^wire ((?:\w+=\d+ ?)+)$", re.MULTILINE)
_ERRORS = ("connect", "read", "write", "status", "timeout")


@frozen(kw_only=True)
class Seen:
    """What the clients of one run saw."""

    calls: int
    """All that were answered."""

    took_s: float
    p50_ms: float
    p99_ms: float
    errors: str = ""
    """Empty if every answer was a good one."""

    @property
    def calls_per_s(self) -> float:
        """Tell the rate."""
        return self.calls / self.took_s


Load = Callable[[str, Sequence[bytes], int, int], Seen]
"""Send requests in turn to the server at a URL: how many clients, and seconds."""


def choose(cores: Sequence[int], folder: Path) -> tuple[str, Load]:
    """Take the best there is, and its name; wrk runs on *cores*."""
    if (wrk := shutil.which("wrk")) is None:
        return "Python", _from_python

    def load(url: str, requests: Sequence[bytes], clients: int, seconds: int) -> Seen:
        file = folder / "requests"
        file.write_bytes(b"".join(each + b"\0" for each in requests))
        size = ("--connections", str(clients), "--duration", f"{seconds}s")
        return read_wrk(_said_by([wrk, *size, url], file, cores, seconds))

    return "wrk", load


def _said_by(
    command: Sequence[str], requests: Path, cores: Sequence[int], seconds: int
) -> str:
    options = ("--threads", "1", "--timeout", f"{PATIENCE_S}s", "--script", SCRIPT)
    started = subprocess.Popen(  # noqa: S603
        [*command, *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "WIRE_REQUESTS": str(requests)},
    )
    try:
        os.sched_setaffinity(started.pid, cores)
        said, _ = started.communicate(timeout=seconds + PATIENCE_S)
    finally:
        started.kill()
        started.wait()
    return said


def read_wrk(said: str) -> Seen:
    """
    Read what our script let wrk print at the end.

    Raises:
        CannotMeasure: it did not come so far.
    """
    found = _LINE.search(said)
    if found is None:
        raise CannotMeasure(f"wrk did not finish:\n{said.strip()}")
    told = {
        name: int(value)
        for name, value in (pair.split("=") for pair in found[1].split())
    }
    errors = ", ".join(f"{name} {told[name]}" for name in _ERRORS if told[name])
    if not told["calls"]:
        errors = errors or "no call was answered"
    return Seen(
        calls=told["calls"],
        took_s=told["took_us"] / 1e6,
        p50_ms=told["p50_us"] / 1e3,
        p99_ms=told["p99_us"] / 1e3,
        errors=errors,
    )


def _from_python(
    url: str, requests: Sequence[bytes], clients: int, seconds: int
) -> Seen:
    tally, took_s = asyncio.run(in_python.run(url, clients, seconds, requests))
    errors = ", ".join(f"{what} {count}" for what, count in tally.errors.items())
    if not tally.latencies_s:
        raise CannotMeasure(f"no call was answered: {errors}")
    return Seen(
        calls=len(tally.latencies_s),
        took_s=took_s,
        p50_ms=tally.percentile(50),
        p99_ms=tally.percentile(99),
        errors=errors,
    )
