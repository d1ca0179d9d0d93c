"""
What the foreman knows of its workers: it asks all of them, and adds up.

Who does not answer within a second is left out of what is true for a moment,
and the figures say so.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
from attrs import define, field, frozen
from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.interfaces import IReactorTime

from abproxy.chosen import keys_for
from abproxy.errors import CannotConnect
from abproxy.http.messages import HeaderList, Response, Send
from abproxy.settings import Settings
from abproxy.telemetry.metrics import write_metrics
from abproxy.web.request import ProxyRequest
from abproxy.workers.adding import (
    Figures,
    add_figures,
    lasting,
    momentary,
    read_figures,
)
from abproxy.workers.child import WorkerProcess
from abproxy.workers.crew import WorkerPool
from abproxy.workers.documents import Batches, Document, add_totals, unite
from abproxy.workers.ledger import CumulativeTotals
from abproxy.workers.private import question

__all__ = ["Aggregator"]

OK = 200

ANSWER_S = 1.0
"""How long a worker may take to say how it is, in seconds."""

PROBE_S = 6.0
"""How long it may take if it asks the inference server first, in seconds."""

PER_CALL = "abproxy_cpu_seconds_per_call"


@frozen
class _Written:
    figures: Figures

    def collect(self) -> Figures:
        return self.figures


@define(kw_only=True, eq=False)
class Aggregator:
    """Asks all workers."""

    crew: WorkerPool
    ways: Mapping[str, Send]
    """How to ask each, by its name."""

    clock: IReactorTime = field(repr=False)
    settings: Callable[[], Settings] = field(repr=False)
    _started_at: float = field(init=False)
    _counted: CumulativeTotals[Figures] = field(init=False)
    _totals: CumulativeTotals[Mapping[str, float]] = field(init=False)
    _batches: Batches = field(init=False, factory=Batches)
    _own: CollectorRegistry = field(init=False, factory=CollectorRegistry)

    def __attrs_post_init__(self) -> None:
        """Begin with nothing heard."""
        self._started_at = self.clock.seconds()
        self._counted, self._totals = (
            CumulativeTotals(add_figures),
            CumulativeTotals(add_totals),
        )
        ProcessCollector(registry=self._own)

    def gone(self, name: str) -> None:
        """Keep what a worker has counted whose life is over."""
        self._counted.gone(name)
        self._totals.gone(name)
        self._batches.gone(name)

    async def best(self, request: ProxyRequest) -> Response:
        """
        Ask all for the page that was asked for, and give the best answer.

        Calls may come as long as one of them takes them.
        """
        replies = await self._ask(lambda _: request.path, PROBE_S)
        if not replies:
            raise CannotConnect("no worker answers")
        return min(replies.values(), key=lambda reply: reply.status)

    async def figures(self, accepted: bytes) -> tuple[bytes, bytes]:
        """Write the figures of all for an `Accept` line: content type and body."""
        asked = self._ask(lambda _: b"/metrics", ANSWER_S)
        said = await self._documents()
        heard = {
            name: read_figures(reply.body.decode())
            for name, reply in (await asked).items()
            if reply.status == OK
        }
        for name, figures in heard.items():
            self._counted.learn(name, lasting(figures))
        of_now = [momentary(figures) for figures in heard.values()]
        own = list(self._own.collect())
        whole = add_figures([self._counted.total(), *of_now, own])
        about = self._about(len(heard), list(said.values()))
        whole = [family for family in whole if family.name != PER_CALL]
        return write_metrics(_Written([*whole, *about]), accepted)

    async def status(self, since: int) -> Document:
        """Say everything, of batches those after a serial."""
        said = await self._documents()
        if not said:
            raise CannotConnect("no worker answers")
        return {
            **unite(list(said.values()), self.settings()),
            "started_at": self._started_at,
            "totals": self._totals.total(),
            "batches": self._batches.after(since),
            "workers": [_about_one(worker, said) for worker in self.crew],
        }

    async def _documents(self) -> dict[str, Document]:
        """Ask all how they are."""
        seen = dict(self._batches.seen)
        replies = await self._ask(
            lambda name: b"/-/status.json?since=%d" % seen.get(name, 0), ANSWER_S
        )
        said = {
            name: msgspec.json.decode(reply.body)
            for name, reply in replies.items()
            if reply.status == OK
        }
        for name, document in said.items():
            self._totals.learn(name, document["totals"])
        self._batches.learn({n: document["batches"] for n, document in said.items()})
        return said

    def _ask(
        self, path: Callable[[str], bytes], patience_s: float
    ) -> Deferred[dict[str, Response]]:
        """Ask all, each for a path; fires with the answers of those that gave one."""
        headers = self._key()
        asked = [
            send(question(path(name), headers)).addTimeout(patience_s, self.clock)
            for name, send in self.ways.items()
        ]
        return DeferredList(asked, consumeErrors=True).addCallback(self._answers)

    def _answers(self, results: Any) -> dict[str, Response]:
        named = zip(self.ways, results, strict=True)
        return {name: reply for name, (is_answer, reply) in named if is_answer}

    def _key(self) -> HeaderList:
        keys = keys_for(self.settings()).accepted
        return tuple((b"Authorization", b"Bearer " + key.encode()) for key in keys[:1])

    def _about(self, answering: int, said: Sequence[Document]) -> Figures:
        crew = self.crew
        restarts = sum(worker.restarts for worker in crew)
        silent = "Workers that answer; of others only what they had counted is here"
        cpu_s = unite(said, self.settings())["cpu_us_per_call"] / 1e6 if said else 0.0
        return [
            _gauge("abproxy_workers", "Workers wanted", len(crew.workers)),
            _gauge("abproxy_workers_answering", silent, answering),
            _gauge(PER_CALL, "CPU time of a call in the last hour", cpu_s),
            CounterMetricFamily(
                "abproxy_worker_restarts", "Workers replaced", value=restarts
            ),
        ]


def _gauge(name: str, about: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, about, value=value)


def _about_one(worker: WorkerProcess, said: Mapping[str, Document]) -> Document:
    return {
        "name": worker.name,
        "answers": worker.name in said,
        "restarts": worker.restarts,
        "started_at": worker.started_at,
    }
