"""
Everything about the proxy at one moment, for the live page and for scripts.

No text that a client sent is in it, and no key: of options only their names,
of secrets only whether there are any.
"""

from collections.abc import Callable
from typing import Any

import attrs
import msgspec
from attrs import define, field

from abproxy import __version__
from abproxy.batching.collector import BatchCollector
from abproxy.batching.lane import Lane
from abproxy.settings import Settings, default_of, shown, variable
from abproxy.telemetry.diagnosis import Diagnosis, LimitsInForce, diagnose
from abproxy.telemetry.gauges import Gauges
from abproxy.telemetry.recorder import Recorder
from abproxy.upstream.discovery import Discovery
from abproxy.upstream.health import Health

__all__ = ["Status", "limits_in_force", "list_settings"]

LANES = 20
"""Lanes that are listed, those with most inputs first."""

_decode_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode


@define(kw_only=True, eq=False)
class Status:
    """What there is to say."""

    recorder: Recorder
    collector: BatchCollector
    discovery: Discovery
    condition: Health
    gauges: Gauges
    settings: Callable[[], Settings] = field(repr=False)
    upstream_url: str
    _started_at: float = field(init=False)

    def __attrs_post_init__(self) -> None:
        """Begin to count the time."""
        self._started_at = self.collector.clock.seconds()

    def diagnosis(self) -> Diagnosis:
        """Return whether batching helps, and what would help more."""
        batch, most = self.collector.caps.items, self.discovery.facts.max_batch_inputs
        limits = limits_in_force(self.settings(), batch, most)
        return diagnose(self.recorder.window.lately(), limits)

    def document(self, since: int = 0) -> dict[str, Any]:
        """
        Say everything.

        Args:
            since: the serial of the last batch that the reader has seen.
        """
        now = self.collector.clock.seconds()
        recent = self.recorder.recent
        return {
            "version": __version__,
            "now": now,
            "started_at": self._started_at,
            "upstream": self._upstream(),
            "flow": {name: value for name, _, value in self.gauges.readings()},
            "kept_by": self.recorder.blocked_time.blocked_by.value,
            "lanes": self._lanes(now),
            "totals": attrs.asdict(self.recorder.totals()),
            "cpu_us_per_call": self.recorder.cpu_s_per_call() * 1e6,
            "verdict": attrs.asdict(self.diagnosis()),
            "batches": list(map(attrs.asdict, recent.batches(since))),
            "errors": list(map(attrs.asdict, reversed(recent.errors))),
            "settings": list_settings(self.settings()),
            "lately": attrs.asdict(self.recorder.window.lately()),
            "workers": [],
        }

    def _upstream(self) -> dict[str, Any]:
        condition = self.condition
        return {
            "url": self.upstream_url,
            "state": condition.state.value,
            "why": condition.why,
            "since": condition.since,
            **attrs.asdict(self.discovery.facts),
        }

    def _lanes(self, now: float) -> list[dict[str, Any]]:
        lanes = sorted(self.collector.platform.lanes, key=lambda lane: -lane.items)
        return [_lane(lane, now) for lane in lanes[:LANES]]


def limits_in_force(
    settings: Settings, batch_items: int, upstream_max_items: int | None
) -> LimitsInForce:
    """Say which limits are in force, where a batch has so many inputs at most."""
    return LimitsInForce(
        slots=settings.slots,
        budget=settings.budget,
        max_batch_calls=settings.max_batch_calls,
        max_wait_ms=settings.max_wait_ms,
        batch_items=batch_items,
        batch_bytes=settings.max_batch_bytes,
        upstream_max_items=upstream_max_items,
    )


def list_settings(settings: Settings) -> list[dict[str, Any]]:
    """List all *settings*, of secrets only whether there are any."""
    return [
        {
            "name": variable(each.metadata["option"]),
            "value": shown(each, getattr(settings, each.name)),
            "default": default_of(each),
            "unit": each.metadata["unit"],
            "meaning": each.metadata["meaning"],
        }
        for each in attrs.fields(Settings)
    ]


def _lane(lane: Lane, now: float) -> dict[str, Any]:
    kind = lane.lane
    options = _decode_members(b"{%b}" % kind.options.removeprefix(b","))
    return {
        "route": kind.dialect.path.decode(),
        "options": sorted(name[:40] for name in options),
        "has_key": kind.is_personal,
        "is_bulk": kind.is_bulk,
        "calls": lane.calls,
        "items": lane.items,
        "oldest_wait_ms": 1000 * (now - (lane.oldest_arrived_at or now)),
    }
