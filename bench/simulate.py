"""
Play the policy of abproxy on a virtual clock, in front of modelled servers.

The code that decides when a batch leaves is the real one; what it costs to
run it, and the network, are left out.  So the figures say what a policy is
worth, not how fast the proxy is.  The same seed gives the same figures.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from math import isnan
from pathlib import Path
from time import monotonic

from bench.simulation.clients import MIXED, Crowd
from bench.simulation.matrix import CELLS, judge, table
from bench.simulation.plots import Plot, curves_of
from bench.simulation.runs import KINDS, Figures, Run, play
from bench.simulation.scenarios import SCENARIOS, WAYS, Scenario
from bench.simulation.tables import markdown, plain

PLOTTED = {
    "merging": Crowd(items=2),
    "serial": Crowd(items=2),
    "groups": Crowd(lengths=MIXED),
}
PLOTTED_CLIENTS = (1, 2, 4, 8, 16, 32, 64, 128, 256)
PLOTTED_FIGURES: dict[str, tuple[str, Callable[[Figures], float]]] = {
    "items": ("items/s", lambda figures: figures.items_per_s),
    "p50": ("p50, ms", lambda figures: figures.p50_ms),
    "p99": ("p99, ms", lambda figures: figures.p99_ms),
}

MATRIX_BEGINS, MATRIX_ENDS = "<!-- matrix -->\n", "<!-- end of the matrix -->"
"""What stands before and after the matrix in a page."""

EXAMPLES = """
examples:
  python -m bench.simulate --only merging --only serial
  python -m bench.simulate --only merging --way direct --way "abproxy slots=4"
  python -m bench.simulate --server groups --clients 64,200 --mixed
  python -m bench.simulate --server serial --rate 20,40 --way "timer 5/32"
  python -m bench.simulate --plot docs/images
  python -m bench.simulate --matrix --write docs/flow.md

ways:
  direct            no proxy
  timer MS/CALLS    a classic batcher: a timer and a cap, nothing else
  abproxy           as it is by default; or with settings, as in
                    "abproxy budget=64 slots=4 packs=no wait_ms=5 calls=8 items=64",
                    or in front of several servers "abproxy turns=yes", as behind
                    a balancer that gives each its turn
"""


def _numbers(text: str) -> list[int]:
    return [int(word) for word in text.split(",")]


def _parser() -> argparse.ArgumentParser:
    scenarios = "".join(f"\n  {s.name:16}  {s.question}" for s in SCENARIOS.values())
    servers = "".join(f"\n  {kind.name:16}  {kind.about}" for kind in KINDS.values())
    parser = argparse.ArgumentParser(
        prog="python -m bench.simulate",
        description=__doc__,
        epilog=f"scenarios:{scenarios}\n\nservers:{servers}\n{EXAMPLES}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("--only", action="append", choices=SCENARIOS, help="play this scenario")
    add("--way", action="append", default=[], help="compare this way, not the usual")
    add("--seed", type=int, default=1, help="another play of chance (default: 1)")
    add("--scale", type=float, default=1.0, help="times the usual duration")
    add("--markdown", action="store_true", help="write tables in Markdown")
    add("--matrix", action="store_true", help="play all cells of the matrix")
    add("--write", type=Path, metavar="PAGE", help="put the matrix into this page")
    add("--plot", type=Path, metavar="DIR", help="write plots into DIR, no tables")
    own = parser.add_argument_group("a scenario of your own")
    own.add_argument("--server", choices=KINDS, help="in front of this server")
    own.add_argument("--clients", type=_numbers, default=[], help="such as 1,8,64")
    own.add_argument("--rate", type=_numbers, default=[], help="calls/s, open load")
    own.add_argument("--items", type=int, default=1, help="in each call")
    own.add_argument("--mixed", action="store_true", help="seven short to one long")
    return parser


def _own(options: argparse.Namespace) -> Scenario:
    lengths = MIXED if options.mixed else Crowd().lengths
    closed = [
        (Crowd(clients=each, items=options.items, lengths=lengths),)
        for each in options.clients
    ]
    open_ = [
        (Crowd(rate=each, items=options.items, lengths=lengths),)
        for each in options.rate
    ]
    return Scenario(
        name=options.server,
        question=KINDS[options.server].about,
        kind=options.server,
        loads=closed + open_ or [(Crowd(items=options.items, lengths=lengths),)],
    )


def _note(words: str) -> None:
    sys.stderr.write(words + "\n")
    sys.stderr.flush()


def _play(scenario: Scenario, options: argparse.Namespace) -> list[Figures]:
    began_at = monotonic()
    runs = scenario.runs(seed=options.seed, scale=options.scale, ways=options.way)
    found = [figures for run in runs for figures in play(run)]
    _note(f"{scenario.name}: {monotonic() - began_at:.1f} s")
    return found


def _print_tables(scenarios: Sequence[Scenario], options: argparse.Namespace) -> None:
    write = markdown if options.markdown else plain
    mark = "### " if options.markdown else ""
    for scenario in scenarios:
        table = write(_play(scenario, options))
        about = KINDS[scenario.kind].about
        words = f"{mark}{scenario.name}: {about}\n\n{scenario.question}\n\n{table}\n\n"
        sys.stdout.write(words)
        sys.stdout.flush()


def _plot(options: argparse.Namespace) -> None:
    options.plot.mkdir(parents=True, exist_ok=True)
    for name, crowd in PLOTTED.items():
        found = _over_clients(name, crowd, options)
        for what, (unit, read) in PLOTTED_FIGURES.items():
            points = [(each.run.way, each.crowd.clients, read(each)) for each in found]
            plot = Plot(
                title=KINDS[name].about,
                unit=unit,
                curves=curves_of(points, lambda y: y > 0 and not isnan(y)),
            )
            file = options.plot / f"flow-{name}-{what}.svg"
            file.write_text(plot.svg(), encoding="utf-8")
            _note(f"wrote {file}")


def _over_clients(
    name: str, alike: Crowd, options: argparse.Namespace
) -> list[Figures]:
    return [
        figures
        for way in options.way or WAYS
        for clients in PLOTTED_CLIENTS
        for figures in play(
            Run(
                kind=KINDS[name],
                way=way,
                crowds=(
                    Crowd(clients=clients, items=alike.items, lengths=alike.lengths),
                ),
                seed=options.seed,
                scale=options.scale,
            )
        )
    ]


def _matrix(options: argparse.Namespace) -> None:
    """Play the matrix, and print its table or write it into a page."""
    cells = list(CELLS.values())
    found = []
    for cell in cells:
        found.append(verdict := judge(cell, scale=options.scale))
        _note(
            f"{cell.kind} {cell.load}: {verdict.throughput:.2f} of {verdict.best}, "
            f"p99 {verdict.p99:.2f}, {verdict.ours.items_per_s:,.0f} items/s"
        )
    if options.write is None:
        sys.stdout.write(table(found) + "\n")
        return
    page = options.write.read_text(encoding="utf-8")
    before, _, rest = page.partition(MATRIX_BEGINS)
    _, _, after = rest.partition(MATRIX_ENDS)
    parts = (before, MATRIX_BEGINS, "\n", table(found), "\n", MATRIX_ENDS, after)
    options.write.write_text("".join(parts), encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> None:
    """Do what the command line says."""
    options = _parser().parse_args(arguments)
    if options.plot:
        _plot(options)
    elif options.matrix:
        _matrix(options)
    elif options.server:
        _print_tables([_own(options)], options)
    else:
        names = options.only or list(SCENARIOS)
        _print_tables([SCENARIOS[name] for name in names], options)


if __name__ == "__main__":
    main()
