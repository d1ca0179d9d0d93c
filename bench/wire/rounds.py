"""
Measuring in turns, so that noise hits all alike.

In each round every workload is put on every contestant, one right after the
other, each being first as often as the others.  Only neighbours in a round are
compared: a ratio is made of two runs that were seconds apart.
"""

from collections.abc import Iterator, Sequence

import attrs
from attrs import frozen

from bench.wire.errors import CannotMeasure
from bench.wire.load import Load
from bench.wire.processes import Child
from bench.wire.workloads import Workload

__all__ = ["FIGURES", "Figures", "Run", "keep", "measure", "nothing_yet", "turns"]

FIGURES = ("calls_per_s", "p50_ms", "p99_ms", "cpu_us", "busy", "resident_mb")

Figures = dict[str, dict[str, list[float]]]
"""The figures of each contestant, round by round."""


@frozen(kw_only=True)
class Run:
    """What one run of one workload on one contestant gave."""

    calls_per_s: float
    p50_ms: float
    p99_ms: float
    cpu_us: float
    """CPU time of the contestant's process for one call."""

    busy: float
    """The share of the time that the process was working: 1 is a whole core."""

    resident_mb: float


def turns(names: Sequence[str], rounds: int) -> Iterator[Sequence[str]]:
    """Say who comes after whom, in each round."""
    for number in range(rounds):
        first = number % len(names)
        yield [*names[first:], *names[:first]]


def nothing_yet(names: Sequence[str]) -> Figures:
    """Begin without any run."""
    return {name: {figure: [] for figure in FIGURES} for name in names}


def keep(run: Run, figures: dict[str, list[float]]) -> None:
    """Put a run behind the others of its contestant."""
    for name, value in attrs.asdict(run).items():
        figures[name].append(float(f"{value:.5g}"))


def measure(contestant: Child, workload: Workload, seconds: int, load: Load) -> Run:
    """
    Put the load on, and read the clocks before and after.

    Raises:
        CannotMeasure: not all calls were answered well.
    """
    before_s = contestant.cpu_s
    seen = load(contestant.url, workload.requests(), workload.clients, seconds)
    used_s = contestant.cpu_s - before_s
    if seen.errors:
        raise CannotMeasure(f"{workload.name}: the load met errors: {seen.errors}")
    return Run(
        calls_per_s=seen.calls_per_s,
        p50_ms=seen.p50_ms,
        p99_ms=seen.p99_ms,
        cpu_us=used_s / seen.calls * 1e6,
        busy=used_s / seen.took_s,
        resident_mb=contestant.resident_bytes / 1e6,
    )
