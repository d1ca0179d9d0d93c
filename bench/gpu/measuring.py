"""
Measuring a cell: through abproxy first, then the server directly.

In this order, because a naive server goes on computing for clients that have
left; before each run it is waited for until it has nothing to do.
"""

from collections.abc import Iterator, Mapping, Sequence

from attrs import frozen

from bench.gpu.asking import check, requests
from bench.gpu.plan import SECONDS, Cell, described, groups
from bench.gpu.servers import INSTALLED, settled, started
from bench.wire.bench import Found, say
from bench.wire.contestants import Ground
from bench.wire.errors import CannotMeasure
from bench.wire.load import Load
from bench.wire.processes import Child

__all__ = ["Meter", "measure"]

LEARN_S = 2
"""For abproxy to learn what the server can do, before it is measured."""

SETTINGS: Mapping[str, str] = {"MAX_BATCH_INPUTS": "256"}
"""What is set where a server does not say what it takes."""


@frozen(kw_only=True)
class Meter:
    """With what and how long to measure."""

    ground: Ground
    load: Load
    dry: bool

    def seconds(self, cell: Cell) -> int:
        """Say how long to ask a server directly."""
        return 1 if self.dry else cell.seconds


def measure(cells: Sequence[Cell], meter: Meter) -> Iterator[Found]:
    """
    Measure cell by cell.

    An installed server that does not start is told of, and left out.

    Raises:
        CannotMeasure: one of ours did not start, or answered wrongly.
    """
    for (server, _), group in groups(cells).items():
        try:
            yield from _group(group, meter)
        except CannotMeasure as error:
            if server not in INSTALLED:
                raise
            say(f"{server} is left out: {error}")


def _group(cells: Sequence[Cell], meter: Meter) -> Iterator[Found]:
    ground, first = meter.ground, cells[0]
    say(f"{first.server}, {first.shape}: starting")
    settings = {} if first.server == "batcher" else SETTINGS
    with (
        started(cells, ground.cores, ground.folder, dry=meter.dry) as server,
        ground.abproxy(server.url, settings) as proxy,
    ):
        check(server.url, proxy.url, first)
        for cell in cells:
            found = _cell(cell, server, proxy, meter)
            say(f"{cell.name}: {_told(found)}")
            yield found


def _cell(cell: Cell, server: Child, proxy: Child, meter: Meter) -> Found:
    calls, seconds = requests(cell), min(meter.seconds(cell), SECONDS)
    _settle(server)
    meter.load(proxy.url, calls, cell.clients, min(LEARN_S, seconds))
    before = proxy.cpu_s, server.cpu_s
    through = _seen(meter.load, proxy.url, calls, cell.clients, seconds)
    busy = {
        "proxy_cores": round((proxy.cpu_s - before[0]) / seconds, 2),
        "server_cores": round((server.cpu_s - before[1]) / seconds, 2),
    }
    _settle(server)
    direct = _seen(meter.load, server.url, calls, cell.clients, meter.seconds(cell))
    return {"cell": described(cell), "abproxy": {**through, **busy}, "direct": direct}


def _settle(server: Child) -> None:
    if not settled(server):
        say("the server is still busy, though no client asks it")


def _seen(
    load: Load, url: str, calls: Sequence[bytes], clients: int, seconds: int
) -> Found:
    seen = load(url, calls, clients, seconds)
    return {
        "calls_per_s": round(seen.calls_per_s, 1),
        "p50_ms": seen.p50_ms,
        "p99_ms": seen.p99_ms,
        "errors": seen.errors,
    }


def _told(found: Found) -> str:
    both = [
        f"{name} {found[name]['errors'] or round(found[name]['calls_per_s'], 1)}"
        for name in ("abproxy", "direct")
    ]
    return f"{', '.join(both)} calls/s"
