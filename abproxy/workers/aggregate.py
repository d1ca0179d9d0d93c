"""
Metrics and status of all workers: each is asked, and their answers are added up.

A worker that does not answer within a second is left out of what is true for a
moment, and the figures say so.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Generic, TypeVar
from urllib.parse import quote

import attrs
import msgspec
from attrs import define, field
from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.interfaces import IReactorTime

from abproxy import __version__
from abproxy.configure import (
    keys_for,
)
from abproxy.errors import CannotConnect
from abproxy.events import BlockedBy, RequestInfo
from abproxy.http.messages import HeaderList, Response, Send
from abproxy.models.limits import (
    limits_in_force,
)
from abproxy.settings.settings import Settings, list_settings, settings_of, table_of
from abproxy.telemetry.diagnosis import about_slots, diagnose
from abproxy.telemetry.history import BATCHES, ERRORS, Totals
from abproxy.telemetry.metrics import write_metrics
from abproxy.telemetry.servers import merge_servers
from abproxy.telemetry.sharing import merge_sharing
from abproxy.telemetry.status import LANES
from abproxy.tuning import wall_clock
from abproxy.web.admin import UPSTREAMS
from abproxy.web.upstreams import IN_FLIGHT
from abproxy.workers.ipc import get_page
from abproxy.workers.process import WorkerPool, WorkerProcess
from abproxy.workers.scrapes import (
    WORST_FIRST,
    Collected,
    Scrape,
    add_scrapes,
    combine,
    cumulative,
    momentary,
    parse_scrape,
    without_former_servers,
)

__all__ = [
    "Aggregator",
    "CumulativeTotals",
    "RecentBatches",
    "add_totals",
    "merge_status",
]

OK, NOT_FOUND = 200, 404

PER_CALL = "abproxy_cpu_seconds_per_call"

ANSWER_S = 1.0
"""How long a worker may take to answer, in seconds."""

PROBE_S = 6.0
"""How long it may take if it asks the inference server first, in seconds."""

StatusDocument = dict[str, Any]
"""`/-/status.json` of one worker, or of all."""

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
        return list(map(_merge_shown, same.values()))

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


def _merge_shown(same: Sequence[StatusDocument]) -> StatusDocument:
    """Return what several workers say of a server: drained only if it is for all."""
    worst = min(same, key=lambda each: (each["state"] == "drained", each["takes_part"]))
    in_flight = {name: sum(each[name] for each in same) for name in IN_FLIGHT}
    takes_part = all(each["takes_part"] for each in same)
    return {**worst, **in_flight, "takes_part": takes_part}


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


# Status: the shape is the same, whether there are workers or not

ADDED = ("calls", "errors", "waiting_items", "items_in_flight")
"""What of a model each worker counts for itself."""

_MOST_SERIOUS_FIRST = tuple(reversed(BlockedBy))


def add_totals(counts: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """Return sums; *at*, which is when the counts were read, is the latest."""
    whole: dict[str, float] = {}
    for totals in counts:
        for name, value in totals.items():
            before = whole.get(name, 0)
            whole[name] = max(before, value) if name == "at" else before + value
    return whole


def merge_status(
    documents: Sequence[StatusDocument], settings: Settings
) -> StatusDocument:
    """Return what can be said of all workers from their *documents* alone."""
    lately = _sum([each["lately"] for each in documents])
    flow: StatusDocument = {
        name: combine(f"abproxy_{name}", [each["flow"][name] for each in documents])
        for name in documents[0]["flow"]
    }
    flow["cpu_seconds_per_call"] = lately.cpu_s_per_call
    upstream = _upstream([each["upstream"] for each in documents])
    limits = limits_in_force(
        settings, flow["batch_max_items"], upstream["max_batch_inputs"]
    )
    sharing = merge_sharing(each["sharing"] for each in documents)
    # Each of them has seen as much time: shares of it are those of the average.
    period_s = lately.at / len(documents)
    found = attrs.evolve(diagnose(lately, limits, sharing), period_s=period_s)
    verdict = msgspec.to_builtins(attrs.asdict(found))
    return {
        **_models(documents),
        "version": __version__,
        "now": max(each["now"] for each in documents),
        "upstream": upstream,
        "flow": flow,
        "kept_by": _most_serious({each["kept_by"] for each in documents}),
        "lanes": _sorted(documents, "lanes", "items")[:LANES],
        "refused": _sorted(documents, "refused", "for_s")[:LANES],
        "sharing": sharing.document(),
        "cpu_us_per_call": lately.cpu_s_per_call * 1e6,
        "verdict": {**verdict, "slots": about_slots(flow)},
        "errors": _sorted(documents, "errors", "at")[:ERRORS],
        "settings": list_settings(settings),
        "lately": {**attrs.asdict(lately), "at": period_s},
    }


def _models(documents: Sequence[StatusDocument]) -> StatusDocument:
    """Return what is said of several models, if there are several."""
    if "models" not in documents[0]:
        return {}
    models: dict[str, list[StatusDocument]] = {}
    for each in (each for document in documents for each in document["models"]):
        models.setdefault(each["name"], []).append(each)
    order = [state.value for state in WORST_FIRST]
    merged = [
        {
            **same[0],
            "state": min((each["state"] for each in same), key=order.index),
            **{name: sum(each[name] for each in same) for name in ADDED},
        }
        for same in models.values()
    ]
    return {"model": documents[0]["model"], "models": merged}


def _sum(totals: Sequence[StatusDocument]) -> Totals:
    return Totals(**{name: sum(each[name] for each in totals) for name in totals[0]})


def _upstream(seen: Sequence[StatusDocument]) -> StatusDocument:
    order = [state.value for state in WORST_FIRST]
    ordered = sorted(seen, key=lambda each: order.index(each["state"]))
    # What the worst off has not learnt yet others may know.
    merged = {
        name: next((each[name] for each in ordered if each[name] is not None), None)
        for name in ordered[0]
    }
    return {**merged, "servers": merge_servers([each["servers"] for each in seen])}


def _most_serious(words: set[str]) -> str:
    return next(each.value for each in _MOST_SERIOUS_FIRST if each.value in words)


def _sorted(
    documents: Sequence[StatusDocument], member: str, by: str
) -> list[StatusDocument]:
    listed = [item for each in documents for item in each[member]]
    return sorted(listed, key=lambda item: -item[by])
