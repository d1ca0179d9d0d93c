"""What abproxy asks of the kernel for one call, counted by strace."""

import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.wire.bench import Bench, Found, say
from bench.wire.processes import Child
from bench.wire.workloads import Workload

__all__ = ["NO_STRACE", "REFUSED", "read_counts", "syscalls", "traced"]

NO_STRACE = "no strace here (on Debian: apt-get install strace)"
REFUSED = "strace may not look into other processes here"

LOADED_S = 2
ATTACHED_S = 0.5
ENDED_S = 5
MOST = 8
_ROW = re.compile(r"^ *[\d.]+ +[\d.]+ +\d+ +(\d+) +(?:\d+ +)?([a-z]\w+)$", re.MULTILINE)


def syscalls(bench: Bench) -> Found:
    """Count them at 64 clients; calls of the load divide them."""
    strace = shutil.which("strace")
    if strace is None:
        return {"skipped": NO_STRACE}
    say("syscalls: counting them")
    workload = Workload(name="syscalls")
    table = bench.folder / "strace"
    ground = bench.ground
    with (
        ground.upstream(workload.dimensions) as upstream,
        ground.abproxy(upstream.url) as proxy,
        traced(strace, proxy, table, "-c", "-f"),
    ):
        seen = bench.load(proxy.url, workload.requests(), workload.clients, LOADED_S)
    counts = read_counts(table.read_text())
    if not counts:
        return {"skipped": REFUSED}
    each = {name: round(count / seen.calls, 3) for name, count in counts.items()}
    first = sorted(each, key=each.__getitem__, reverse=True)[:MOST]
    return {
        "all": round(sum(each.values()), 3),
        "each": {name: each[name] for name in first},
    }


@contextmanager
def traced(strace: str, proxy: Child, out: Path, *options: str) -> Iterator[None]:
    """Let *strace* look at *proxy* meanwhile, and write what it sees."""
    out.touch()
    started = subprocess.Popen(  # noqa: S603
        [strace, *options, "-o", out, "-p", str(proxy.pid)], stderr=subprocess.DEVNULL
    )
    try:
        time.sleep(ATTACHED_S)
        yield
        started.send_signal(signal.SIGINT)  # then it writes what is left
        started.wait(ENDED_S)
    finally:
        started.kill()
        started.wait()


def read_counts(table: str) -> dict[str, int]:
    """Read how often each was called, out of what `strace -c` wrote."""
    return {name: int(count) for count, name in _ROW.findall(table) if name != "total"}
