"""
The benchmark itself: all workloads on all contestants, checked and in rounds.

A house is an upstream of so many dimensions with the contestants in front of
it.  It is opened when a workload first needs it, and stays until the end.
"""

from collections.abc import Mapping
from contextlib import ExitStack

from bench.wire.bench import Bench, Found, say
from bench.wire.checker import check
from bench.wire.contestants import NAMES
from bench.wire.processes import Child
from bench.wire.rounds import keep, measure, nothing_yet, turns

__all__ = ["speed"]


def speed(bench: Bench) -> list[Found]:
    """
    Measure; for each workload the figures of each contestant, round by round.

    Raises:
        CannotMeasure: a contestant did not start, or answered wrongly.
    """
    found: list[Found] = [
        {"workload": workload.described(), "contestants": nothing_yet(NAMES)}
        for workload in bench.workloads
    ]
    with ExitStack() as stack:
        houses = {
            size: stack.enter_context(bench.ground.all(size))
            for size in sorted({each.dimensions for each in bench.workloads})
        }
        _check_all(bench, houses)
        for at, order in enumerate(turns(NAMES, bench.rounds)):
            for workload, kept in zip(bench.workloads, found, strict=True):
                for name in order:
                    contestant = houses[workload.dimensions][name]
                    run = measure(contestant, workload, bench.seconds, bench.load)
                    keep(run, kept["contestants"][name])
                say(f"round {at + 1} of {bench.rounds}: {_told(kept)}")
    return found


def _check_all(bench: Bench, houses: Mapping[int, Mapping[str, Child]]) -> None:
    for workload in bench.workloads:
        for name in NAMES:
            calls = check(houses[workload.dimensions][name].url, workload)
            say(f"check: {workload.name}, {name}: {calls} answers, all right")


def _told(kept: Found) -> str:
    rates = [
        f"{name} {figures['calls_per_s'][-1]:,.0f}"
        for name, figures in kept["contestants"].items()
    ]
    return f"{kept['workload']['name']}: {', '.join(rates)} calls/s"
