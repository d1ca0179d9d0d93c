"""
The matrix: many servers under many loads, and how abproxy does in each cell.

The other ways are no proxy, two timers, and several fixed numbers of slots; the
best of them is another one in nearly every cell, so no setting is as good as all
of them.  What is compared are the throughput with the highest, and the p99 with
the lowest among the ways that get within 3 % of the highest throughput.
"""

from collections.abc import Iterator, Mapping, Sequence
from math import exp, log

from attrs import evolve, frozen

from bench.simulation.clients import MIXED, Crowd
from bench.simulation.runs import FEW, KINDS, Figures, Run, play

__all__ = ["CELLS", "OTHERS", "Cell", "Verdict", "judge", "mean", "table"]

OTHERS = (
    "direct",
    "timer 5/32",
    "timer 50/32",
    "abproxy slots=1",
    "abproxy slots=4",
    "abproxy slots=32",
)
"""What abproxy is compared with."""

SHORT_OF = 0.97
"""A way with so much of the best throughput is one of the best."""

LEARNS, FIXED = 1.0, 1 / 8
"""How long the warm-up is, in times of the usual, with and without learning."""

PER_S: Mapping[str, float] = {
    "serial": 380,
    "merging": 20_000,
    "gpu": 20_000,
    "gpu-large": 9_000,
    "sixteen": 250,
    "groups": 150,
    "fleet": 2_400,
    "fleet4": 600,
    "fleet4-serial": 800,
    "fleet4-merging": 20_000,
    "hosted": 400,
}
"""The servers, and about how many calls a second each answers at most."""

MIXED_PER_S: Mapping[str, float] = {"groups": 20, "fleet4": 75, "fleet": 300}

MIXED_WATCHED = 6.0
"""
Times as long such runs are measured: the work of a call varies by twice its mean.

In a shorter time two ways differ by a tenth because other texts were drawn.
"""

SLOW: Mapping[str, float] = {"fleet": 0.2, "sixteen": 0.6}
"""Servers for which a run is shorter than usual, in times of that: it takes long."""


@frozen(kw_only=True)
class Cell:
    """One server under one load."""

    kind: str
    load: str
    crowds: tuple[Crowd, ...]

    is_uniform: bool = False
    """Whether a number of clients sends texts of one length, one after the other."""

    lasts: float = 1.0
    """Times as long as other runs with this server."""

    watched: float = 1.0
    """The same of the time that is measured, without what is learnt before."""

    def run(self, way: str, *, scale: float = 1.0) -> list[Figures]:
        """Play it by one *way*."""
        kind, lasts = KINDS[self.kind], SLOW.get(self.kind, 1.0) * self.lasts * scale
        learns = LEARNS if way == "abproxy" else FIXED
        kind = evolve(
            kind,
            warm_s=kind.warm_s * lasts * learns,
            measured_s=kind.measured_s * lasts * self.watched / 2,
        )
        return play(Run(kind=kind, way=way, crowds=self.crowds))


def _closed(kind: str, clients: int, items: int) -> Cell:
    return Cell(
        kind=kind,
        load=f"{clients} × {items}",  # noqa: RUF001
        crowds=(Crowd(clients=clients, items=items),),
        is_uniform=True,
    )


def _mixed(kind: str, load: str, crowd: Crowd, watched: float) -> Cell:
    return Cell(kind=kind, load=load, crowds=(crowd,), lasts=2.0, watched=watched)


def _cells() -> Iterator[Cell]:
    sizes = ((1, 1), (4, 1), (8, 1), (32, 1), (64, 1), (256, 1), (8, 2), (64, 8))
    for kind, per_s in PER_S.items():
        for clients, items in sizes:
            yield _closed(kind, clients, items)
        for share in (0.6, 0.9):
            crowd = Crowd(rate=per_s * share)
            yield Cell(kind=kind, load=f"open {share:.0%}", crowds=(crowd,))
    for kind, per_s in MIXED_PER_S.items():
        for clients in (8, 64):
            crowd = Crowd(clients=clients, lengths=MIXED)
            load = f"mixed {clients}"
            # A few clients are watched for longer anyway.
            watched = MIXED_WATCHED if clients >= FEW else 1.0
            yield _mixed(kind, load, crowd, watched)
        crowd = Crowd(rate=per_s * 0.6, lengths=MIXED)
        yield _mixed(kind, "mixed open", crowd, MIXED_WATCHED)
    for kind, think_s, beat_s in (
        ("serial", 0.02, 1.0),
        ("merging", 0.005, 0.1),
        ("gpu", 0.001, 0.1),
        ("fleet4", 0.02, 1.0),
    ):
        crowd = Crowd(clients=64, think_s=think_s)
        yield Cell(kind=kind, load="64 think", crowds=(crowd,))
        crowd = Crowd(clients=64, beat_s=beat_s)
        yield Cell(kind=kind, load="64 at once", crowds=(crowd,))


CELLS: Mapping[tuple[str, str], Cell] = {(c.kind, c.load): c for c in _cells()}


@frozen(kw_only=True)
class Verdict:
    """How abproxy did in one cell."""

    cell: Cell
    ours: Figures
    best: str
    """The other way with the highest throughput."""

    throughput: float
    """Over that of the best other way; an open load below capacity has only one."""

    p99: float
    """Over the lowest of those that get nearly as much."""


def judge(cell: Cell, ways: Sequence[str] = OTHERS, *, scale: float = 1.0) -> Verdict:
    """Play a *cell* by abproxy and by the other *ways*, and compare."""
    ours = cell.run("abproxy", scale=scale)[0]
    others = {way: cell.run(way, scale=scale)[0] for way in ways}
    best = max(others, key=lambda way: others[way].items_per_s)
    most = others[best].items_per_s
    good = [each for each in others.values() if each.items_per_s >= SHORT_OF * most]
    throughput = ours.items_per_s / most
    if cell.crowds[0].rate is not None and throughput > SHORT_OF:
        throughput = 1.0
    return Verdict(
        cell=cell,
        ours=ours,
        best=best,
        throughput=throughput,
        p99=ours.p99_ms / min(each.p99_ms for each in good),
    )


def mean(ratios: Sequence[float]) -> float:
    """Return the geometric mean."""
    return exp(sum(map(log, ratios)) / len(ratios))


def table(found: Sequence[Verdict]) -> str:
    """Write all cells as tables in Markdown: a row for a server, throughput and p99."""
    grid = {(each.cell.kind, each.cell.load): each for each in found}
    plain = [load for load in _loads(found) if ("serial", load) in grid or "×" in load]  # noqa: RUF001
    first = [load for load in plain if load[:2] != "64" or "×" in load]  # noqa: RUF001
    rest = [load for load in _loads(found) if load not in first]
    tables = (_rows(grid, loads) for loads in (first, rest) if loads)
    ratios = [each.throughput for each in found]
    p99s = [each.p99 for each in found]
    summary = (
        f"{len(found)} cells: throughput {mean(ratios):.2f} of the best other way on "
        f"average, {min(ratios):.2f} in the worst cell; p99 {mean(p99s):.2f} of the "
        "lowest on average."
    )
    return "\n\n".join([*tables, summary])


def _loads(found: Sequence[Verdict]) -> list[str]:
    return list(dict.fromkeys(each.cell.load for each in found))


def _rows(grid: Mapping[tuple[str, str], Verdict], loads: Sequence[str]) -> str:
    kinds = [k for k in PER_S if any((k, load) in grid for load in loads)]
    rows = [["server", *loads], ["---", *["---:"] * len(loads)]]
    for kind in kinds:
        cells = [grid.get((kind, load)) for load in loads]
        shown = ["–" if c is None else _shown(c) for c in cells]  # noqa: RUF001
        rows.append([kind, *shown])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _shown(cell: Verdict) -> str:
    return f"{cell.throughput:.2f} / {cell.p99:.2f}"
