"""
A regression guard: abproxy costs about what it did, next to the yardstick.

The two answer the same calls of 64 clients in turns, and what is compared is
the CPU time of a call: other work on the machine makes rates and latencies
jump, but hardly the work that a call takes.  The bar is half of what was
measured, so noise does not trip over it; what does is a change that makes
every call twice as dear.
"""

import shutil
from contextlib import ExitStack
from pathlib import Path

import pytest

from bench.wire import upstream
from bench.wire.checker import check
from bench.wire.contestants import ABPROXY, AIOHTTP, Ground
from bench.wire.cores import share_out, usable
from bench.wire.load import choose
from bench.wire.rounds import measure, turns
from bench.wire.summary import ratio
from bench.wire.workloads import Workload

MEASURED = 2.7
"""CPU time of a call: the yardstick's, divided by abproxy's."""

LEAST = MEASURED / 2
ROUNDS, SECONDS = 3, 1
WORKLOAD = Workload(name="clients-64")


@pytest.mark.skipif(shutil.which("wrk") is None, reason="no wrk to put the load on")
@pytest.mark.skipif(upstream.compiler() is None, reason="no C compiler")
def test_a_call_costs_what_it_did(tmp_path: Path) -> None:
    """In the median of a few short rounds."""
    pytest.importorskip("aiohttp", reason="no aiohttp for the yardstick")
    cores = share_out(usable())
    ground = Ground(cores=cores, folder=tmp_path)
    _, load = choose(cores.load, tmp_path)
    costs_us: dict[str, list[float]] = {AIOHTTP: [], ABPROXY: []}
    with ExitStack() as stack:
        contestants = stack.enter_context(ground.all(WORKLOAD.dimensions))
        for name in costs_us:
            check(contestants[name].url, WORKLOAD)

        for order in turns([*costs_us], ROUNDS):
            for name in order:
                run = measure(contestants[name], WORKLOAD, SECONDS, load)
                costs_us[name].append(run.cpu_us)

    assert ratio(costs_us[AIOHTTP], costs_us[ABPROXY]).middle > LEAST, costs_us
