"""
What is batching worth in front of a real card?

Servers that run a model on the card are asked directly, and through `twistd
abproxy`: one that takes one request at a time, as people write them, one that
batches by itself, and of text-embeddings-inference, Infinity and vLLM those
that are installed.  The model fed straight tells what there is to reach.
"""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from bench.gpu import limit, pages, tables
from bench.gpu.measuring import Meter, measure
from bench.gpu.plan import CELLS, DRY, Cell, cells_of
from bench.gpu.servers import found_here
from bench.wire import cores, load, machine
from bench.wire.bench import Found, say
from bench.wire.command import run
from bench.wire.contestants import ROOT, Ground
from bench.wire.pages import read, written

LATEST = ROOT / "bench/results/gpu.json"
CLIENTS_OF_INSTALLED = (1, 32, 200, 1000)


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """Read the command line."""
    names = "\n  ".join(each.name for each in CELLS)
    parser = argparse.ArgumentParser(
        prog="python -m bench.gpu",
        description=__doc__,
        epilog=f"cells (server, model, texts x words, clients):\n  {names}\n",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("cells", nargs="*", metavar="CELL", help="what to measure; by default all")
    add("--out", type=Path, default=LATEST, help="where to put the results, as JSON")
    add("--write", action="store_true", help="publish: docs/benchmarks.md and README")
    add("--from", dest="given", type=Path, help="measure nothing, take these results")
    add("--dry", action="store_true", help="a second of each, on a pretended model")
    options = parser.parse_args(arguments)
    known = {each.name: each for each in CELLS}
    if unknown := [each for each in options.cells if each not in known]:
        parser.error(f"no such cell: {', '.join(unknown)}")
    if options.write and options.dry:
        parser.error("what is pretended is not published")
    options.cells = [known[name] for name in options.cells] or _all(dry=options.dry)
    return options


def _all(*, dry: bool) -> Sequence[Cell]:
    if dry:
        return DRY
    others = [cells_of(name, CLIENTS_OF_INSTALLED) for name in found_here()]
    return [*CELLS, *(cell for each in others for cell in each)]


def measured(options: argparse.Namespace, folder: Path) -> Found:
    """Measure, and keep each cell as soon as it is there."""
    placed = cores.share_out_for_many(cores.usable())
    name, chosen = load.choose(placed.load, folder)
    about = machine.describe(name, placed)
    say("the model fed straight")
    known = limit.measured(options.cells, dry=options.dry)
    found: Found = {"machine": about, **known, "cells": []}
    say(f"{found['card']}: {found['limits']}")
    ground = Ground(cores=placed, folder=folder)
    meter = Meter(ground=ground, load=chosen, dry=options.dry)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    for cell in measure(options.cells, meter):
        found["cells"].append(cell)
        options.out.write_text(written(found), encoding="utf-8")
    return found


def main(arguments: Sequence[str]) -> None:
    """Do what the command line says; whatever happens, no process is left."""
    options = parse(arguments)
    if options.given:
        found = read(options.given)
    else:
        with tempfile.TemporaryDirectory(prefix="abproxy-bench-") as folder:
            found = measured(options, Path(folder))
        say(f"results are in {options.out}")
    sys.stdout.write(f"{tables.full(found)}\n")
    if options.write:
        pages.publish(found)


if __name__ == "__main__":
    run(main)
