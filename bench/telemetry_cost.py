"""
What telemetry costs: CPU time of the proxy for a call, with and without it.

Two proxies in front of one server that answers at once, each in a process of
its own, under the same load in many short turns, each way first as often as
the other.  What counts is the ratio of neighbours, as machines are noisy.

    python -m bench.telemetry_cost --clients 64 --seconds 1 --rounds 30
"""

import argparse
import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

from bench.load import run

TICKS_PER_S = os.sysconf("SC_CLK_TCK")
WAYS = ("with", "without")


def serve(way: str, upstream: str) -> None:
    """Be a proxy, with telemetry or without it."""
    from twisted.internet import reactor as installed  # noqa: PLC0415  not to import

    from abproxy.events import Observer  # noqa: PLC0415
    from abproxy.service.lifetime import ProcessContext  # noqa: PLC0415
    from abproxy.settings.settings import Settings  # noqa: PLC0415
    from abproxy.tuning import tune_process  # noqa: PLC0415
    from abproxy.wiring import wire  # noqa: PLC0415

    reactor: Any = installed
    settings = Settings(port="0", upstream_url=upstream)
    tune = partial(tune_process, reactor, skips_log_context=True)
    service: Any = wire(settings, reactor, process=ProcessContext(tune=tune))
    if way == "without":
        service.site.observer = Observer()
        [model] = service.stop_models.__self__.models
        model.collector.observer = model.collector.sender.observer = Observer()
        model.collector.backoff.observer = Observer()
        model.upstream.observer = Observer()
    service.startService()
    reactor.callWhenRunning(_say_where, service)
    reactor.run()


def _say_where(service: Any) -> None:
    address = service._port.getHost()  # noqa: SLF001  the benchmark looks inside
    sys.stdout.write(f"http://127.0.0.1:{address.port}\n")
    sys.stdout.flush()


@contextmanager
def process(*arguments: str) -> Iterator[tuple[int, str]]:
    """Run a module in a process of its own: its number, and where it answers."""
    started = subprocess.Popen(  # noqa: S603
        [sys.executable, "-m", *arguments], stdout=subprocess.PIPE, text=True
    )
    try:
        assert started.stdout is not None  # noqa: S101
        yield started.pid, started.stdout.readline().split()[-1]
    finally:
        started.kill()
        started.wait()


def cpu_s(pid: int) -> float:
    """Read the CPU time of a process."""
    figures = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2]
    user, system = figures.split()[11:13]
    return (int(user) + int(system)) / TICKS_PER_S


def cost_us(pid: int, url: str, clients: int, seconds: float) -> float:
    """Put load on a proxy; its CPU time for a call in µs."""
    before_s = cpu_s(pid)
    tally, _ = asyncio.run(run(f"{url}/embed", clients, seconds))
    if tally.errors or not tally.latencies_s:
        raise SystemExit(f"the load met errors: {dict(tally.errors)}")
    return (cpu_s(pid) - before_s) / len(tally.latencies_s) * 1e6


def compare(clients: int, seconds: float, rounds: int) -> str:
    """Measure both ways in turn; the table of it."""
    with ExitStack() as stack:
        server = ("bench.breakable", "--port", "0", "--dimensions", "384")
        _, upstream = stack.enter_context(process(*server))
        me = ("bench.telemetry_cost", "--upstream", upstream, "--serve")
        proxies = [stack.enter_context(process(*me, way)) for way in WAYS]
        for pid, url in proxies:
            cost_us(pid, url, clients, 1)
        costs: dict[str, list[float]] = {way: [] for way in WAYS}
        for number in range(rounds):
            for at in (number % 2, (number + 1) % 2):
                costs[WAYS[at]].append(cost_us(*proxies[at], clients, seconds))
    return report(costs)


def report(costs: Mapping[str, Sequence[float]]) -> str:
    """Write the medians, and the median of the ratios of neighbours."""
    pairs = zip(*costs.values(), strict=True)
    ratios = sorted(watched / unwatched for watched, unwatched in pairs)
    quarter = len(ratios) // 4
    return (
        f"with watching     {median(costs['with']):8.1f} µs of CPU a call\n"
        f"without           {median(costs['without']):8.1f} µs of CPU a call\n"
        f"ratio             {median(ratios):8.3f} (half of {len(ratios)} rounds: "
        f"{ratios[quarter]:.3f} to {ratios[-1 - quarter]:.3f})"
    )


def main(arguments: Sequence[str]) -> None:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(
        prog="python -m bench.telemetry_cost",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=1.0, help="for one turn")
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    parser.add_argument("--upstream", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.serve:
        serve(options.serve, options.upstream)
    else:
        table = compare(options.clients, options.seconds, options.rounds)
        sys.stdout.write(f"{table}\n")


if __name__ == "__main__":
    main(sys.argv[1:])
