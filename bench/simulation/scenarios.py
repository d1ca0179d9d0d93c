"""What is played by default: each scenario asks one question of the policy."""

from collections.abc import Iterator, Sequence
from itertools import product

from attrs import evolve, frozen

from bench.simulation.clients import MIXED, Crowd
from bench.simulation.runs import KINDS, Run

__all__ = ["SCENARIOS", "WAYS", "Scenario"]

TIMERS = ("timer 1000/8", "timer 50/32", "timer 5/32")
WAYS = ("direct", *TIMERS, "abproxy")
CHOICE = ("direct", "abproxy turns=yes", "abproxy")
BESIDE = (Crowd(name="query"), Crowd(name="import", items=1000))


@frozen(kw_only=True)
class Scenario:
    """Runs that are compared with each other."""

    name: str
    question: str
    kind: str
    loads: Sequence[tuple[Crowd, ...]]
    ways: Sequence[str] = WAYS

    lasts: float = 1.0
    """Times as long as other runs with this server."""

    def runs(self, *, seed: int, scale: float, ways: Sequence[str]) -> Iterator[Run]:
        """List the runs, by *ways* if any are given."""
        for crowds, way in product(self.loads, ways or self.ways):
            yield Run(
                kind=KINDS[self.kind],
                way=way,
                crowds=crowds,
                seed=seed,
                scale=scale * self.lasts,
            )


def _grid(
    clients: Sequence[int], items: Sequence[int] = (1,), crowd: Crowd | None = None
) -> list[tuple[Crowd, ...]]:
    alike = crowd or Crowd()
    return [
        (evolve(alike, clients=count, items=each),)
        for each, count in product(items, clients)
    ]


def _rates(*rates: float) -> list[tuple[Crowd, ...]]:
    return [(Crowd(rate=rate),) for rate in rates]


def _import(name: str, kind: str) -> Scenario:
    query, import_ = BESIDE
    bulk = evolve(import_, name="bulk import", is_bulk=True)
    return Scenario(
        name=name,
        question="How long does a query wait beside an import without end?",
        kind=kind,
        loads=[BESIDE, (query, bulk)],
        ways=("direct", "abproxy budget=64", "abproxy budget=512", "abproxy"),
    )


def _three(kind: str, crowd: Crowd | None = None) -> Scenario:
    return Scenario(
        name=f"{kind}-mixed" if crowd else kind,
        question="Does each of three servers get what it can do?",
        kind=kind,
        loads=_grid((8, 24, 64, 192), crowd=crowd),
        ways=CHOICE,
        lasts=2.0 if crowd else 1.0,
    )


SIXTEEN = Scenario(
    name="sixteen-groups",
    question="How long do calls take that come whatever became of others?",
    kind="sixteen-groups",
    loads=[
        (Crowd(rate=2160),),
        (Crowd(name="mixed", rate=180, lengths=MIXED),),
        (Crowd(name="mixed", clients=64, lengths=MIXED),),
    ],
    ways=CHOICE,
)

_ALL = [
    Scenario(
        name="merging",
        question="Is a server that merges all that waits kept as busy as without us?",
        kind="merging",
        loads=_grid((1, 2, 8, 64, 256), (1, 2, 8))[:-1],
    ),
    Scenario(
        name="serial",
        question="What do batches bring in front of one request at a time?",
        kind="serial",
        loads=_grid((1, 2, 8, 64, 200), (2,)),
    ),
    Scenario(
        name="sixteen",
        question="Is a server that works on several requests kept busy?",
        kind="sixteen",
        loads=_grid((1, 8, 64, 256)),
    ),
    Scenario(
        name="mixed",
        question="Does packing save padding, and who pays for it?",
        kind="groups",
        loads=_grid((1, 8, 64, 200), crowd=Crowd(lengths=MIXED)),
        ways=("direct", "timer 50/32", "abproxy packs=no", "abproxy"),
        lasts=4.0,
    ),
    Scenario(
        name="permits",
        question="Does anybody hear of 429 when there are more clients than permits?",
        kind="merging",
        loads=_grid((1000,), (2,)),
        ways=("direct", "timer 5/32", "abproxy"),
    ),
    Scenario(
        name="untold",
        question="And if the proxy does not know how few permits there are?",
        kind="small",
        loads=_grid((200,), (2,)),
        ways=("direct", "timer 5/32", "abproxy"),
    ),
    Scenario(
        name="quota",
        question="What is left of a quota of requests if nobody is told of it?",
        kind="quota",
        loads=_grid((8, 64, 256)),
        ways=("direct", "timer 50/32", "abproxy"),
    ),
    Scenario(
        name="deadly",
        question="Who suffers from a text that kills the server?",
        kind="mortal",
        loads=[
            (
                Crowd(name="others", clients=64, items=2),
                Crowd(name="deadly", deadly=True, begins_s=4),
            )
        ],
        ways=("direct", "timer 5/32", "abproxy"),
    ),
    Scenario(
        name="open-merging",
        question="How long does a call take when calls come whether or not?",
        kind="merging",
        loads=_rates(100, 1000, 8000),
        lasts=4.0,
    ),
    Scenario(
        name="open-serial",
        question="Does a timer that is too short let the backlog grow?",
        kind="serial",
        loads=_rates(10, 36, 100),
    ),
    _import("import-merging", "merging"),
    _import("import-serial", "serial"),
    _import("import-sixteen", "sixteen"),
    _import("import-groups", "groups"),
    _three("three-serial"),
    _three("three-serial-uneven"),
    _three("three-groups"),
    _three("three-groups-uneven"),
    _three("three-groups", Crowd(lengths=MIXED)),
    SIXTEEN,
]
SCENARIOS = {scenario.name: scenario for scenario in _ALL}
