"""
One run: crowds, a way, a server, and what came of it.

The same seed gives the same figures, on every machine.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

from attrs import evolve, frozen

from bench.simulation.clients import Crowd, Seen, let_loose
from bench.simulation.clock import VirtualClock
from bench.simulation.devices import GPU, LARGE, Hosted
from bench.simulation.fleets import Several
from bench.simulation.servers import Fleet, Groups, Merging, Model, Server, Workers
from bench.simulation.ways import Served, make_way

__all__ = ["FEW", "KINDS", "Figures", "Kind", "Run", "play"]

FEW = 16
"""With fewer clients a run is watched for longer, as they make few calls."""


@frozen(kw_only=True)
class Kind:
    """A kind of server."""

    name: str
    about: str
    make: Callable[[VirtualClock], Model]
    permits: int | None = 512
    restart_s: float | None = None
    quota_per_s: float | None = None

    warm_s: float
    """How long a run may take to settle."""

    measured_s: float

    beside: tuple[Callable[[VirtualClock], Model], ...] = ()
    """Of the servers beside it, if there are several with an address each."""

    def server(self, clock: VirtualClock) -> Served:
        """Start one, or several."""
        first, *others = [self._one(make(clock)) for make in (self.make, *self.beside)]
        return Several(clock=clock, servers=[first, *others]) if others else first

    def _one(self, model: Model) -> Server:
        return Server(
            clock=model.clock,
            model=model,
            permits=self.permits,
            restart_s=self.restart_s,
            quota_per_s=self.quota_per_s,
        )


def _groups(clock: VirtualClock, slow: int = 1) -> Model:
    return Groups(clock=clock, group=4, item_s=0.0066 * slow)


def _serial(clock: VirtualClock, slow: int = 1) -> Model:
    return Workers(clock=clock, at_once=1, fixed_s=0.020 * slow, item_s=0.002 * slow)


def _merging(clock: VirtualClock) -> Model:
    return Merging(clock=clock, fixed_s=0.004, item_s=0.00002)


def _several(
    count: int, make: Callable[[VirtualClock], Model], clock: VirtualClock
) -> list[Model]:
    return [make(clock) for _ in range(count)]


MERGING = Kind(
    name="merging",
    about="all that waits at once, 4 ms + 0.02 ms an item (TEI on a GPU)",
    make=_merging,
    warm_s=4.8,
    measured_s=0.6,
)
HOSTED = Kind(
    name="hosted",
    about="200 to 400 ms for any request, any number at once (a hosted API)",
    make=lambda clock: Hosted(clock=clock),
    permits=None,
    warm_s=60,
    measured_s=60,
)
_SEVERAL = [
    MERGING,
    Kind(
        name="serial",
        about="one request at a time, 20 ms + 2 ms an item",
        make=_serial,
        permits=None,
        warm_s=60,
        measured_s=60,
    ),
    Kind(
        name="sixteen",
        about="sixteen requests at a time, 1 s each",
        make=lambda clock: Workers(clock=clock, at_once=16, fixed_s=1, item_s=0),
        permits=None,
        warm_s=240,
        measured_s=90,
    ),
    Kind(
        name="groups",
        about="groups of 4, 6.6 ms an item, padded to the longest (TEI on a CPU)",
        make=_groups,
        warm_s=80,
        measured_s=120,
    ),
    Kind(
        name="fleet",
        about="sixteen servers as in groups, behind one address",
        make=lambda clock: Fleet(models=_several(16, _groups, clock), clock=clock),
        warm_s=80,
        measured_s=120,
    ),
    evolve(
        MERGING,
        name="small",
        about="merging, with 64 permits that the proxy was not told of",
        permits=64,
    ),
    evolve(
        MERGING,
        name="mortal",
        about="merging, dies of a deadly text and is back after 2 s",
        restart_s=2,
        warm_s=2,
        measured_s=16,
    ),
    Kind(
        name="gpu",
        about="all that waits in a step of 5 ms, read by an event loop (MiniLM)",
        make=lambda clock: GPU(clock=clock),
        warm_s=4,
        measured_s=1,
    ),
    Kind(
        name="gpu-large",
        about="the same in steps of 10 to 23 ms (a large model)",
        make=lambda clock: GPU(clock=clock, steps=LARGE),
        warm_s=8,
        measured_s=4,
    ),
    Kind(
        name="fleet4",
        about="four servers as in groups, behind one address",
        make=lambda clock: Fleet(models=_several(4, _groups, clock), clock=clock),
        warm_s=40,
        measured_s=40,
    ),
    Kind(
        name="fleet4-serial",
        about="four servers as in serial, behind one address",
        make=lambda clock: Fleet(models=_several(4, _serial, clock), clock=clock),
        permits=None,
        warm_s=40,
        measured_s=30,
    ),
    Kind(
        name="fleet4-merging",
        about="four servers as in merging, behind one address",
        make=lambda clock: Fleet(models=_several(4, _merging, clock), clock=clock),
        warm_s=4,
        measured_s=1,
    ),
    HOSTED,
    evolve(
        HOSTED,
        name="quota",
        about="the same, and 429 for more than 20 requests a second",
        quota_per_s=20,
    ),
]


def _three(
    name: str, alike: str, make: Callable[..., Model], **measured: float
) -> Iterator[Kind]:
    """Yield three servers with an address each: alike, and one at half speed."""
    half = partial(make, slow=2)
    for suffix, about, last in (
        ("", "", make),
        ("-uneven", ", one half as fast", half),
    ):
        yield Kind(
            name=f"three-{name}{suffix}",
            about=f"three servers as in {alike}{about}, with an address each",
            make=make,
            beside=(make, last),
            permits=None,
            **measured,
        )


_SEVERAL += [
    Kind(
        name="sixteen-groups",
        about="sixteen servers as in groups, with an address each",
        make=_groups,
        beside=(_groups,) * 15,
        permits=None,
        warm_s=16,
        measured_s=16,
    )
]
_SEVERAL += _three("serial", "serial", _serial, warm_s=40, measured_s=30)
_SEVERAL += _three("groups", "groups", _groups, warm_s=40, measured_s=60)
KINDS = {kind.name: kind for kind in _SEVERAL}


@frozen(kw_only=True)
class Run:
    """What is played."""

    kind: Kind
    way: str
    crowds: tuple[Crowd, ...]
    seed: int = 1

    scale: float = 1.0
    """Times the usual duration."""


@frozen(kw_only=True)
class Figures:
    """What one crowd saw of a run."""

    run: Run
    crowd: Crowd
    items_per_s: float
    p50_ms: float
    p99_ms: float
    items_per_request: float
    requests_per_call: float
    refused: int
    failed: int


def play(run: Run) -> list[Figures]:
    """Play *run*: figures for each of its crowds."""
    clock = VirtualClock()
    server = run.kind.server(clock)
    way = make_way(run.way, server)
    warm_s = run.kind.warm_s * min(run.scale, 1.0)
    measured_s = run.kind.measured_s * run.scale * _patience(run.crowds)
    seen = [
        let_loose(crowd, way, clock, f"{run.seed} {at}", warm_s)
        for at, crowd in enumerate(run.crowds)
    ]
    clock.run(warm_s)
    before = server.requests, server.items
    clock.run(warm_s + measured_s)
    requests, items = server.requests - before[0], server.items - before[1]
    calls = sum(len(each.latencies_s) for each in seen)
    shared: dict[str, Any] = {
        "run": run,
        "items_per_request": items / requests if requests else 0.0,
        "requests_per_call": requests / calls if calls else 0.0,
    }
    return [
        _figures(crowd, each, measured_s, shared)
        for crowd, each in zip(run.crowds, seen, strict=True)
    ]


def _patience(crowds: Sequence[Crowd]) -> float:
    """Watch a few clients for longer, as they make few calls."""
    is_small = len(crowds) == 1 and not crowds[0].rate and crowds[0].clients < FEW
    return 5.0 if is_small else 1.0


def _figures(
    crowd: Crowd, seen: Seen, measured_s: float, shared: dict[str, Any]
) -> Figures:
    return Figures(
        crowd=crowd,
        items_per_s=seen.items / measured_s,
        p50_ms=_percentile_ms(seen.latencies_s, 50),
        p99_ms=_percentile_ms(seen.latencies_s, 99),
        refused=seen.refused,
        failed=seen.failed,
        **shared,
    )


def _percentile_ms(latencies_s: Sequence[float], percent: float) -> float:
    if not latencies_s:
        return float("nan")
    ordered = sorted(latencies_s)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))] * 1000
