"""
Attack abproxy in all ways that are known, and print what held.

Everything runs on this machine, on free ports of 127.0.0.1, and ends by itself: the
inference server is one that breaks on command, the clients are sockets of this
process.  The exit code is 1 if anything failed; each failure is printed.  What is
random is drawn from a seed, which is printed as well.
"""

import argparse
import asyncio
import json
import os
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from random import Random
from typing import Any

from bench.attack import pages
from bench.attack.faulty import faulty
from bench.attack.floods import floods
from bench.attack.found import Part, Plan, Row
from bench.attack.framing import framing
from bench.attack.hostile import hostile_json
from bench.attack.signals import signals
from bench.attack.soak import soak
from bench.wire import machine
from bench.wire.bench import say
from bench.wire.contestants import ROOT
from bench.wire.cores import share_out, usable
from bench.wire.files import allow_many_files

PARTS: Mapping[str, tuple[Part, float]] = {
    "framing": (framing, 0.15),
    "json": (hostile_json, 0.05),
    "floods": (floods, 0.2),
    "faults": (faulty, 0),
    "soak": (soak, 0.25),
    "signals": (signals, 0),
}
"""Each part, and its share of the time."""

LATEST = ROOT / "bench/results/attack.json"


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.attack",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--minutes", type=float, default=3.0, help="for how long [default: 3]")
    add(
        "--only",
        action="append",
        choices=PARTS,
        metavar="PART",
        help=f"only this, may be repeated: {', '.join(PARTS)}",
    )
    add("--seed", type=int, help="to draw the same again")
    add("--out", type=Path, default=LATEST, help="where to put the figures, as JSON")
    add("--write", action="store_true", help="publish: docs/attack.json and the table")
    options = parser.parse_args(arguments)
    options.only = options.only or [*PARTS]
    options.seed = options.seed or int(datetime.now(UTC).timestamp())
    if options.write and len(options.only) < len(PARTS):
        parser.error("only the whole is published")
    return options


async def attack(options: argparse.Namespace, folder: Path) -> dict[str, list[Row]]:
    """Run the parts one after the other."""
    found = {}
    for name, (part, share) in PARTS.items():
        if name not in options.only:
            continue
        own = folder / name
        own.mkdir()
        random = Random(f"{name} {options.seed}")  # noqa: S311
        seconds = options.minutes * 60 * share
        say(f"{name} ...")
        found[name] = await part(Plan(seconds=seconds, random=random, folder=own))
    return found


def main(arguments: Sequence[str]) -> int:
    """Do what the command line says; the exit code."""
    options = parse(arguments)
    say(f"seed {options.seed}, about {options.minutes:g} minutes")
    began = time.monotonic()
    busy = round(os.getloadavg()[0], 1)
    with tempfile.TemporaryDirectory(prefix="abproxy-attack-") as folder:
        parts = asyncio.run(attack(options, Path(folder)))
    where = {**machine.describe("Python", share_out(usable())), "busy_before": busy}
    about: dict[str, Any] = {
        "machine": where,
        "seed": options.seed,
        "took_s": round(time.monotonic() - began),
    }
    found = pages.figures(parts, about)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(found, indent=1), encoding="utf-8")
    sys.stdout.write(f"{pages.table(found)}\n")
    if options.write:
        pages.publish(found)
    return int(any(row.failures for rows in parts.values() for row in rows))


if __name__ == "__main__":
    allow_many_files()
    try:
        sys.exit(main(sys.argv[1:]))
    except KeyboardInterrupt:
        sys.exit("attack: interrupted")
