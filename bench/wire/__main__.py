"""
How fast is abproxy on one core, against no proxy and what one would write?

Three contestants answer the same calls from the same mock upstream: the
upstream itself (direct), a small proxy made of aiohttp with the same way of
batching, and `twistd abproxy` with default settings.  Every answer of a first
pass is compared byte for byte; then they are measured in turns, and what
counts is the ratio between neighbours.
"""

import argparse
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench.wire import (
    cold,
    cores,
    features,
    load,
    machine,
    memory,
    model,
    pages,
    speed,
    syscalls,
    tables,
)
from bench.wire.bench import Bench, Found, say
from bench.wire.command import run
from bench.wire.contestants import ROOT, Ground
from bench.wire.workloads import FULL, QUICK

PARTS: Mapping[str, Callable[[Bench], Any]] = {
    "speed": speed.speed,
    "cold": cold.cold,
    "memory": memory.memory,
    "syscalls": syscalls.syscalls,
    "features": features.features,
    "model": model.model,
}
ABOUT = {
    "speed": "the three contestants on all workloads",
    "cold": "the same with one client that pauses, and where abproxy's time goes",
    "memory": "of abproxy: alone, with 1,000 idle connections, and under load",
    "syscalls": "of abproxy for one call (needs strace)",
    "features": "CPU time of pairs of settings of abproxy",
    "model": "200 clients on the embedded model, with and without abproxy",
}
SHOWN = ("speed", "cold")
"""What the README shows."""

LATEST = ROOT / "bench/results/latest.json"
FULL_ROUNDS, FULL_SECONDS = 5, 2
QUICK_ROUNDS, QUICK_SECONDS = 3, 1
WITHOUT_WRK = (
    "There is no wrk here, so the load comes from Python, which measures less: it\n"
    "cannot keep up with what it measures (on Debian: apt-get install wrk)."
)


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Read the command line."""
    known = {each.name: each for each in FULL}
    parts = "".join(f"\n  {name:10} {about}" for name, about in ABOUT.items())
    parser = argparse.ArgumentParser(
        prog="python -m bench.wire",
        description=__doc__,
        epilog=f"parts:{parts}\n\nworkloads:\n  {', '.join(known)}\n",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("parts", nargs="*", metavar="PART", help="what to measure; by default all")
    add("--quick", action="store_true", help="what the README shows, in a minute")
    add(
        "--workload",
        action="append",
        choices=known,
        metavar="NAME",
        help="only this; may be repeated",
    )
    add("--rounds", type=_positive, help=f"by default {FULL_ROUNDS}")
    add("--seconds", type=_positive, help=f"for one run; by default {FULL_SECONDS}")
    add("--out", type=Path, default=LATEST, help="where to put the results, as JSON")
    add("--write", action="store_true", help="publish: docs/benchmarks.* and README")
    add("--from", dest="given", type=Path, help="measure nothing, take these results")
    options = parser.parse_args(arguments)
    unknown = [each for each in options.parts if each not in PARTS]
    if unknown:
        parser.error(
            f"no such part: {', '.join(unknown)} (there are {', '.join(PARTS)})"
        )
    options.parts = options.parts or ([*SHOWN] if options.quick else [*PARTS])
    chosen = options.workload or [
        each.name for each in (QUICK if options.quick else FULL)
    ]
    options.workloads = [known[name] for name in chosen]
    options.rounds = options.rounds or (QUICK_ROUNDS if options.quick else FULL_ROUNDS)
    options.seconds = options.seconds or (
        QUICK_SECONDS if options.quick else FULL_SECONDS
    )
    return options


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError("at least 1")
    return number


def measure(options: argparse.Namespace, folder: Path) -> Found:
    """Measure the parts that are wanted, and keep each as soon as it is there."""
    placed = cores.share_out(cores.usable())
    name, chosen = load.choose(placed.load, folder)
    if name != "wrk":
        say(WITHOUT_WRK)
    bench = Bench(
        ground=Ground(cores=placed, folder=folder),
        load=chosen,
        workloads=options.workloads,
        rounds=options.rounds,
        seconds=options.seconds,
    )
    found: Found = {
        "machine": machine.describe(name, placed),
        "rounds": options.rounds,
        "seconds": options.seconds,
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    for part in (each for each in PARTS if each in options.parts):
        found[part] = PARTS[part](bench)
        options.out.write_text(pages.written(found), encoding="utf-8")
    return found


def main(arguments: Sequence[str]) -> None:
    """Do what the command line says; whatever happens, no process is left."""
    options = parse(arguments)
    if options.given:
        found = pages.read(options.given)
    else:
        with tempfile.TemporaryDirectory(prefix="abproxy-bench-") as folder:
            found = measure(options, Path(folder))
        say(f"results are in {options.out}")
    sys.stdout.write(f"{tables.full(found)}\n")
    if options.write:
        pages.publish(found)


if __name__ == "__main__":
    run(main)
