"""
A lone call after a pause: one client, on a server that takes its time.

This is what a person feels who types a query.  Nothing of the proxy is in the
caches of the CPU any more, so what costs microseconds in a loop costs much
more here.  `strace` tells how much of it passes before the request is sent on,
and how much after its answer has come.
"""

import os
import re
import shutil
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from statistics import median
from typing import IO
from urllib.parse import urlsplit

from attrs import frozen

from bench.load import Tally
from bench.wire.bench import Bench, Found, say
from bench.wire.checker import OK, check
from bench.wire.contestants import ABPROXY, DIRECT, NAMES
from bench.wire.errors import CannotMeasure
from bench.wire.load import Load, Seen
from bench.wire.processes import Child
from bench.wire.rounds import keep, measure, nothing_yet, turns
from bench.wire.syscalls import NO_STRACE, REFUSED, traced
from bench.wire.workloads import Workload

__all__ = ["COLD", "OwnTime", "cold", "pausing", "read_own_time"]

COLD = Workload(name="cold", clients=1)
PAUSE_MS = 10
UPSTREAM_MS = 5
PATIENCE_S = 30

_OPTIONS = ("-ttt", "-T", "-s", "8", "-e", "trace=recvfrom,sendto")
_CALL = re.compile(
    r"^(?P<at>\d+\.\d+) (?P<name>recvfrom|sendto)"
    r'\(\d+, "(?P<begins>(?:[^"\\]|\\.)*)".* = (?P<size>\d+) <(?P<took>\d+\.\d+)>$',
    re.MULTILINE,
)


def cold(bench: Bench) -> Found:
    """
    Measure the three contestants, and where the time of abproxy goes.

    Raises:
        CannotMeasure: a contestant did not start, or answered wrongly.
    """
    load = pausing(bench.ground.cores.load)
    found = nothing_yet(NAMES)
    with bench.ground.all(COLD.dimensions, UPSTREAM_MS) as contestants:
        for name in NAMES:
            calls = check(contestants[name].url, COLD)
            say(f"check: {COLD.name}, {name}: {calls} answers, all right")
        for at, order in enumerate(turns(NAMES, bench.rounds)):
            for name in order:
                run = measure(contestants[name], COLD, bench.seconds, load)
                keep(run, found[name])
            more_ms = found[ABPROXY]["p50_ms"][-1] - found[DIRECT]["p50_ms"][-1]
            say(f"round {at + 1} of {bench.rounds}: cold: {more_ms:.2f} ms more")
        own = _own_time(bench, contestants[ABPROXY], load)
    return {
        "workload": COLD.described(),
        "pause_ms": PAUSE_MS,
        "upstream_ms": UPSTREAM_MS,
        "contestants": found,
        "own": own,
    }


def pausing(cores: Sequence[int]) -> Load:
    """Make a load of one client on *cores* that pauses before each call."""

    def load(url: str, requests: Sequence[bytes], clients: int, seconds: int) -> Seen:
        if clients != 1:
            raise CannotMeasure("only one client can pause")
        tally, number = Tally(), 0
        with _on(cores), _connected(url) as (connection, answers):
            began_at = time.perf_counter()
            while time.perf_counter() < began_at + seconds:
                time.sleep(PAUSE_MS / 1000)
                sent_at = time.perf_counter()
                connection.sendall(requests[number % len(requests)])
                status = _read_answer(answers)
                tally.latencies_s.append(time.perf_counter() - sent_at)
                tally.errors[f"status {status}"] += status != OK
                number += 1
        errors = ", ".join(f"{what} {n}" for what, n in (+tally.errors).items())
        return Seen(
            calls=number,
            took_s=time.perf_counter() - began_at,
            p50_ms=tally.percentile(50),
            p99_ms=tally.percentile(99),
            errors=errors,
        )

    return load


@contextmanager
def _on(cores: Sequence[int]) -> Iterator[None]:
    """Let this thread run nowhere else meanwhile."""
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


@contextmanager
def _connected(url: str) -> Iterator[tuple[socket.socket, IO[bytes]]]:
    parts = urlsplit(url)
    address = (str(parts.hostname), int(parts.port or 80))
    try:
        with socket.create_connection(address, PATIENCE_S) as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            with connection.makefile("rb") as answers:
                yield connection, answers
    except OSError as error:
        raise CannotMeasure(f"{COLD.name}: {error!r}") from error


def _read_answer(answers: IO[bytes]) -> int:
    """Read one whole answer: its status."""
    first, length = answers.readline().split(), None
    while (line := answers.readline().lower()).strip():
        if line.startswith(b"content-length:"):
            length = int(line.partition(b":")[2])
    if len(first) < 2 or length is None:  # noqa: PLR2004
        raise CannotMeasure(f"{COLD.name}: no answer with a length: {first}")
    answers.read(length)
    return int(first[1])


@frozen(kw_only=True)
class OwnTime:
    """For each call, how long the proxy itself had to do with it."""

    before_us: Sequence[float]
    """From having read a request to sending it on."""

    after_us: Sequence[float]
    """From having read the answer to writing it."""


def _own_time(bench: Bench, proxy: Child, load: Load) -> Found:
    strace = shutil.which("strace")
    if strace is None:
        return {"skipped": NO_STRACE}
    say("cold: looking where the time goes")
    seen = bench.folder / "strace-cold"
    with traced(strace, proxy, seen, *_OPTIONS):
        load(proxy.url, COLD.requests(), COLD.clients, bench.seconds)
    own = read_own_time(seen.read_text(errors="replace"))
    if not own.before_us or not own.after_us:
        return {"skipped": REFUSED}
    return {
        "calls": len(own.after_us),
        "before_us": round(median(own.before_us), 1),
        "after_us": round(median(own.after_us), 1),
    }


def read_own_time(seen: str) -> OwnTime:
    """
    Read it out of what `strace` wrote, for calls one after the other.

    The time counts from the end of the last read to the beginning of the write.
    What strace itself takes for each system call is in it.
    """
    before_us: list[float] = []
    after_us: list[float] = []
    reads, read_at = "", 0.0
    for call in _CALL.finditer(seen):
        at, begins = float(call["at"]), call["begins"]
        if call["name"] == "recvfrom":
            # What begins in another way is the rest of what came before it.
            reads = next((each for each in _KINDS if begins.startswith(each)), reads)
            read_at = at + float(call["took"])
        elif reads and begins.startswith(reads):
            took_us = (at - read_at) * 1e6
            (before_us if reads == _REQUEST else after_us).append(took_us)
            reads = ""
    return OwnTime(before_us=before_us, after_us=after_us)


_REQUEST, _ANSWER = _KINDS = ("POST ", "HTTP/1.")
