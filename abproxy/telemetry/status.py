"""
Everything about the proxy at one moment, for the live page and for scripts.

No text that a client sent is in it, and no key: of options only their names, and
the model's, of secrets only whether there are any.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import attrs
import msgspec
from attrs import define, field

from abproxy import __version__
from abproxy.batching.backoff import Pauses
from abproxy.batching.collector import BatchCollector
from abproxy.batching.lane import Lane
from abproxy.dialects.call import LaneKey
from abproxy.events import Cause
from abproxy.http.messages import Response
from abproxy.reuse.layers import Layers
from abproxy.telemetry.advice import LimitsInForce
from abproxy.telemetry.diagnosis import Diagnosis, about_slots, diagnose
from abproxy.telemetry.gauges import Gauges, ProcessGauges
from abproxy.telemetry.history import Totals
from abproxy.telemetry.recorder import Recorder
from abproxy.telemetry.servers import ServerMetrics, dated
from abproxy.tuning import wall_clock

__all__ = ["Status", "make_status"]

LANES = 20
"""Lanes that are listed, those with most inputs first."""

_decode_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


@define(kw_only=True, eq=False)
class Status:
    """The status of a model and of the process, as `/-/status.json` has it."""

    recorder: Recorder
    collector: BatchCollector
    gauges: Gauges
    process: ProcessGauges
    upstream: Callable[[], dict[str, Any]] = field(repr=False)
    """Return what is known of the upstream."""

    settings: Callable[[], list[dict[str, Any]]] = field(repr=False)
    """List the settings."""

    limits: Callable[[], LimitsInForce] = field(repr=False)

    _started_at: float = field(init=False)
    _wall: Callable[[], float] = field(init=False, repr=False)
    """Return the time of day."""

    def __attrs_post_init__(self) -> None:
        clock = self.collector.clock
        self._started_at, self._wall = clock.seconds(), wall_clock(clock)

    def diagnosis(self) -> Diagnosis:
        """Return whether batching helps, and what would help more."""
        recorder = self.recorder
        return diagnose(recorder.window.lately(), self.limits(), recorder.sharing())

    def report(self) -> str:
        """Return the diagnosis in a line for the log; empty if no calls came."""
        found = self.diagnosis()
        return str(found) if found.calls else ""

    def document(self, since: int = 0) -> dict[str, Any]:
        """
        Return everything.

        Args:
            since: the serial of the last batch that the reader has seen.
        """
        now = self.collector.clock.seconds()
        # Events were noted by a clock that never steps, and has no dates.
        to_date = self._wall() - now
        upstream = self.upstream()
        recorder, recent = self.recorder, self.recorder.recent
        flow = {name: value for name, _, value in self._readings()}
        return {
            "version": __version__,
            "now": now + to_date,
            "started_at": self._started_at + to_date,
            "upstream": {
                **upstream,
                "since": upstream["since"] + to_date,
                "servers": dated(upstream["servers"], to_date),
            },
            "flow": flow,
            "kept_by": recorder.blocked_time.blocked_by.value,
            "lanes": self._lanes(now),
            "refused": self._refused(now),
            "sharing": recorder.sharing().document(),
            "totals": attrs.asdict(recorder.totals()),
            "cpu_us_per_call": self.process.recorder.cpu_s_per_call() * 1e6,
            "verdict": {**attrs.asdict(self.diagnosis()), "slots": about_slots(flow)},
            "batches": _dated(recent.batches(since), to_date),
            "errors": _dated(reversed(recent.errors), to_date),
            "settings": self.settings(),
            "lately": attrs.asdict(self._lately()),
            "workers": [],
        }

    def _readings(self) -> Iterator[tuple[str, str, float]]:
        yield from self.gauges.readings()
        yield from self.process.readings()

    def _lately(self) -> Totals:
        """Return what has happened lately; of the CPU time what its calls have cost."""
        lately, of_all = self.recorder.window.lately(), self.process.recorder
        if of_all is self.recorder:
            return lately
        calls = lately.calls + lately.relayed
        return attrs.evolve(lately, cpu_s=of_all.cpu_s_per_call() * calls)

    def _lanes(self, now: float) -> list[dict[str, Any]]:
        lanes = sorted(self.collector.queue.lanes, key=lambda lane: -lane.items)
        return [_lane(lane, now) for lane in lanes[:LANES]]

    def _refused(self, now: float) -> list[dict[str, Any]]:
        """List what the upstream takes no work of: all, or some lanes."""
        backoff, out = self.collector.backoff, self.collector.isolation.lanes_out
        of_all = backoff.of_all
        found = [] if of_all is None else [_refused_all(of_all, now)]
        found += [
            _refused_lane(key, pauses.cause, now - pauses.began_at)
            for key, pauses in backoff.lanes().items()
        ]
        found += [
            _refused_lane(key, probe.failed.cause, now - probe.began_at)
            for key, probe in out.lanes().items()
        ]
        return sorted(found, key=_how_long_refused)[:LANES]


def make_status(  # noqa: PLR0913
    recorder: Recorder,
    collector: BatchCollector,
    layers: Layers,
    upstream: Any,
    *,
    process: ProcessGauges,
    settings: Callable[[], list[dict[str, Any]]],
    limits: Callable[[], LimitsInForce],
) -> Status:
    """Return the status of a model, whose gauges are added to its metrics."""
    gauges = Gauges(
        recorder=recorder,
        collector=collector,
        layers=layers,
        upstream_state=lambda: upstream.state,
        servers_refused=lambda: upstream.refused,
    )
    recorder.metrics.registry.register(gauges)
    recorder.metrics.registry.register(ServerMetrics(servers=upstream.servers))
    return Status(
        recorder=recorder,
        collector=collector,
        gauges=gauges,
        process=process,
        upstream=upstream.describe,
        settings=settings,
        limits=limits,
    )


def _dated(events: Iterable[Any], to_date: float) -> list[dict[str, Any]]:
    return [{**attrs.asdict(each), "at": each.at + to_date} for each in events]


def _how_long_refused(refused: dict[str, Any]) -> tuple[bool, float]:
    return bool(refused["route"]), -refused["for_s"]


def _refused_all(pauses: Pauses, now: float) -> dict[str, Any]:
    why, for_s = _why(pauses.cause), now - pauses.began_at
    return {"route": "", "model": "", "has_key": False, "why": why, "for_s": for_s}


def _refused_lane(key: LaneKey, cause: Cause, for_s: float) -> dict[str, Any]:
    return {
        "route": key.dialect.path.decode(),
        "model": _model_of(key),
        "has_key": key.is_personal,
        "why": _why(cause),
        "for_s": for_s,
    }


def _why(cause: Cause) -> str:
    """Return what the upstream answered, not in its words: these may quote a call."""
    is_answer = isinstance(cause, Response)
    return f"answered with {cause.status}" if is_answer else str(cause)


def _model_of(key: LaneKey) -> str:
    model = _decode_members(b"{%b}" % key.options.removeprefix(b",")).get("model")
    named = msgspec.json.decode(model) if model is not None else None
    return named[:80] if isinstance(named, str) else ""


def _lane(lane: Lane, now: float) -> dict[str, Any]:
    key = lane.key
    options = _decode_members(b"{%b}" % key.options.removeprefix(b","))
    return {
        "route": key.dialect.path.decode(),
        "options": sorted(name[:40] for name in options),
        "has_key": key.is_personal,
        "is_bulk": key.is_bulk,
        "calls": lane.calls,
        "items": lane.items,
        "oldest_wait_ms": 1000 * (now - (lane.oldest_arrived_at or now)),
    }
