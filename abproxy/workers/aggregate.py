"""
Metrics and status of all workers: each is asked, and their answers are added up.

A worker that does not answer within a second is left out of what is true for a
moment, and the figures say so.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Generic, TypeVar
from urllib.parse import quote

import msgspec
from attrs import define, field
from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.interfaces import IReactorTime

from abproxy.configure import keys_for
from abproxy.errors import CannotConnect
from abproxy.events import RequestInfo
from abproxy.http.messages import HeaderList, Response, Send
from abproxy.settings.settings import Settings, settings_of, table_of
from abproxy.telemetry.history import BATCHES
from abproxy.telemetry.metrics import write_metrics
from abproxy.tuning import wall_clock
from abproxy.web.admin import UPSTREAMS
from abproxy.workers.ipc import get_page
from abproxy.workers.process import WorkerPool, WorkerProcess
from abproxy.workers.scrapes import (
    Collected,
    Scrape,
    add_scrapes,
    cumulative,
    momentary,
    parse_scrape,
    without_former_servers,
)
from abproxy.workers.statuses import (
    StatusDocument,
    add_totals,
    merge_shown,
    merge_status,
)

__all__ = [
    "Aggregator",
    "CumulativeTotals",
    "RecentBatches",
]

OK, NOT_FOUND = 200, 404

PER_CALL = "abproxy_cpu_seconds_per_call"

ANSWER_S = 1.0
"""How long a worker may take to answer, in seconds."""

PROBE_S = 6.0
"""How long it may take if it asks the inference server first, in seconds."""

T = TypeVar("T")


@define(kw_only=True, eq=False)
class Aggregator:
    """Asks all workers, and adds up what they answer."""

    pool: WorkerPool
    send_to: Mapping[str, Send]
    """How to send a request to each worker, by its name."""

    clock: IReactorTime = field(repr=False)
    settings: Settings = field(repr=False)
    """Those of all workers together."""

    _started_at: float = field(init=False)
    _wall: Callable[[], float] = field(init=False, repr=False)
    _scrapes: "CumulativeTotals[Scrape]" = field(init=False)
    _counts: "dict[str, _Counts]" = field(init=False, factory=dict)
    """By the name of the model; of none where there is only one."""

    _own: CollectorRegistry = field(init=False, factory=CollectorRegistry)
    """Metrics of the supervisor's own process."""

    def __attrs_post_init__(self) -> None:
        """Begin with nothing counted."""
        self._started_at = self.clock.seconds()
        self._wall = wall_clock(self.clock)
        self._scrapes = CumulativeTotals(add_scrapes)
        ProcessCollector(registry=self._own)

    def worker_ended(self, name: str) -> None:
        """Keep what a worker has counted; the next of this name begins at 0."""
        self._scrapes.worker_ended(name)
        for counts in self._counts.values():
            counts.totals.worker_ended(name)
            counts.batches.worker_ended(name)

    async def best_answer(self, request: RequestInfo) -> Response:
        """
        Return the best of the answers that all workers give for this page.

        Calls may come as long as one worker accepts them.
        """
        replies = await self._ask(lambda _: request.path, PROBE_S)
        if not replies:
            raise CannotConnect("no worker answers")
        return min(replies.values(), key=lambda reply: reply.status)

    async def metrics(self, accepted: bytes) -> tuple[bytes, bytes]:
        """Return content type and body of all metrics for an `Accept` line."""
        asked = self._ask(lambda _: b"/metrics", ANSWER_S)
        documents = await self._ask_for_status("")
        scrapes = {
            name: parse_scrape(reply.body.decode())
            for name, reply in (await asked).items()
            if reply.status == OK
        }
        for name, scrape in scrapes.items():
            self._scrapes.update(name, cumulative(scrape))
        now = [momentary(scrape) for scrape in scrapes.values()]
        own = list(self._own.collect())
        whole = add_scrapes([self._scrapes.total(), *now, own])
        about = self._about(len(scrapes), list(documents.values()))
        whole = [family for family in whole if family.name != PER_CALL]
        whole = without_former_servers(whole)
        return write_metrics(Collected([*whole, *about]), accepted)

    async def status(self, since: int, model: str = "") -> StatusDocument:
        """Return the status document of a *model*, with the batches after a serial."""
        table = table_of(self.settings, model)
        name = table.name if table else ""
        documents = await self._ask_for_status(name)
        if not documents:
            raise CannotConnect("no worker answers")
        settings = settings_of(self.settings, table) if table else self.settings
        return {
            **merge_status(list(documents.values()), settings),
            "started_at": self._to_date(self._started_at),
            "totals": self._counts[name].totals.total(),
            "batches": self._counts[name].batches.after(since),
            "workers": [
                {
                    **_about_one(each, documents),
                    "started_at": self._to_date(each.started_at),
                }
                for each in self.pool
            ],
        }

    async def list_servers(self) -> list[StatusDocument]:
        """Return what all workers say of each server, for operators."""
        replies = await self._ask_as_operator(UPSTREAMS)
        if not replies:
            raise CannotConnect("no worker answers")
        said = [msgspec.json.decode(reply.body) for reply in replies.values()]
        same: dict[tuple[str, str], list[StatusDocument]] = {}
        for each in (each for document in said for each in document["upstreams"]):
            same.setdefault((each["model"], each["address"]), []).append(each)
        return list(map(merge_shown, same.values()))

    async def drain(self, address: str, is_drained: bool) -> None:  # noqa: FBT001
        """
        Let all workers send nothing more to *address*, or again.

        Raises:
            CannotConnect: one of them did not answer.
        """
        self.pool.drain(address, is_drained=is_drained)
        action = b"drain" if is_drained else b"resume"
        path = b"%b/%b/%b" % (UPSTREAMS, quote(address).encode(), action)
        replies = await self._ask_as_operator(path, b"POST")
        if silent := [name for name in self.send_to if name not in replies]:
            why = f"worker {', '.join(silent)} did not answer; try again"
            raise CannotConnect(why)

    async def _ask_as_operator(
        self, path: bytes, method: bytes = b"GET"
    ) -> dict[str, Response]:
        headers = _shown(self.settings.admin_keys)
        replies = await self._ask(lambda _: path, ANSWER_S, method, headers)
        # A server that is not known may be resumed all the same.
        fine = (OK, NOT_FOUND) if method == b"POST" else (OK,)
        return {name: each for name, each in replies.items() if each.status in fine}

    def _to_date(self, at: float) -> float:
        return self._wall() - self.clock.seconds() + at

    async def _ask_for_status(self, model: str) -> dict[str, StatusDocument]:
        counts = self._counts.setdefault(model, _Counts())
        seen = dict(counts.batches.seen)
        query = b"&model=" + quote(model, safe="").encode() if model else b""
        replies = await self._ask(
            lambda name: b"/-/status.json?since=%d%b" % (seen.get(name, 0), query),
            ANSWER_S,
        )
        documents = {
            name: msgspec.json.decode(reply.body)
            for name, reply in replies.items()
            if reply.status == OK
        }
        for name, document in documents.items():
            counts.totals.update(name, document["totals"])
        counts.batches.add({n: each["batches"] for n, each in documents.items()})
        return documents

    def _ask(
        self,
        path: Callable[[str], bytes],
        timeout_s: float,
        method: bytes = b"GET",
        headers: HeaderList | None = None,
    ) -> Deferred[dict[str, Response]]:
        """Get a path from each worker; fires with the answers, by name."""
        if headers is None:
            headers = _shown(keys_for(self.settings).accepted)
        asked = [
            send(get_page(path(name), headers, method)).addTimeout(
                timeout_s, self.clock
            )
            for name, send in self.send_to.items()
        ]
        return DeferredList(asked, consumeErrors=True).addCallback(self._answers)

    def _answers(self, results: Any) -> dict[str, Response]:
        named = zip(self.send_to, results, strict=True)
        return {name: reply for name, (is_answer, reply) in named if is_answer}

    def _about(self, answering: int, documents: Sequence[StatusDocument]) -> Scrape:
        restarts = sum(worker.restarts for worker in self.pool)
        silent = "Workers that answer; of others only counters are included"
        cpu_s = 0.0
        if documents:
            cpu_s = merge_status(documents, self.settings)["cpu_us_per_call"] / 1e6
        return [
            _gauge(
                "abproxy_workers", "Workers that should run", len(self.pool.workers)
            ),
            _gauge("abproxy_workers_answering", silent, answering),
            _gauge(PER_CALL, "CPU time of a call in the last hour", cpu_s),
            CounterMetricFamily(
                "abproxy_worker_restarts", "Workers replaced", value=restarts
            ),
        ]


def _shown(keys: Sequence[str]) -> HeaderList:
    return tuple((b"Authorization", b"Bearer " + key.encode()) for key in keys[:1])


def _gauge(name: str, about: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(name, about, value=value)


def _about_one(
    worker: WorkerProcess, documents: Mapping[str, StatusDocument]
) -> StatusDocument:
    return {
        "name": worker.name,
        "answers": worker.name in documents,
        "restarts": worker.restarts,
    }


# Counts that outlive their worker


@define(eq=False)
class CumulativeTotals(Generic[T]):
    """
    The last counts of each worker, and the sum of those that have ended.

    Of a worker that is silent, or dead, the last counts stay in: a total that
    shrinks would be taken for a new beginning, and all of it be counted again.
    """

    add: Callable[[Iterable[T]], T]
    _last: dict[str, T] = field(init=False, factory=dict)
    _ended: list[T] = field(init=False, factory=list)

    def update(self, name: str, counts: T) -> None:
        """Replace the counts of a worker by newer ones."""
        self._last[name] = counts

    def worker_ended(self, name: str) -> None:
        """Keep the counts of a worker; the next of this name begins at 0."""
        if name in self._last:
            self._ended = [self.add([*self._ended, self._last.pop(name)])]

    def total(self) -> T:
        """Return the sum of everything."""
        return self.add([*self._ended, *self._last.values()])


@define(eq=False)
class RecentBatches:
    """The last batches of all workers, numbered anew in the order of arrival."""

    seen: dict[str, int] = field(init=False, factory=dict)
    """The serial of the last batch of each worker."""

    _kept: list[StatusDocument] = field(init=False, factory=list)
    _last: int = field(init=False, default=0)

    def add(self, batches_of: Mapping[str, Sequence[StatusDocument]]) -> None:
        """Add the batches that are new, by the names of workers."""
        new: list[StatusDocument] = []
        for name, batches in batches_of.items():
            seen = self.seen.get(name, 0)
            new += [batch for batch in batches if batch["serial"] > seen]
            self.seen[name] = max([seen, *(batch["serial"] for batch in batches)])
        for batch in sorted(new, key=lambda batch: batch["at"]):
            self._last += 1
            self._kept.append({**batch, "serial": self._last})
        del self._kept[:-BATCHES]

    def worker_ended(self, name: str) -> None:
        """Expect a worker that begins to count at 1."""
        self.seen.pop(name, None)

    def after(self, serial: int) -> list[StatusDocument]:
        """Return those after a *serial*."""
        return [batch for batch in self._kept if batch["serial"] > serial]


@define(eq=False)
class _Counts:
    """What was counted of one model."""

    totals: CumulativeTotals[Mapping[str, float]] = field(
        init=False, factory=lambda: CumulativeTotals(add_totals)
    )
    batches: RecentBatches = field(init=False, factory=RecentBatches)
