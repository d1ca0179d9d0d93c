"""
What `/-/status.json` says of all workers, from what each says of itself.

The shape is the same, whether there are workers or not.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import attrs
import msgspec
from attrs import define, field

from abproxy import __version__
from abproxy.events import BlockedBy
from abproxy.settings import Settings
from abproxy.telemetry.diagnosis import diagnose
from abproxy.telemetry.history import BATCHES, ERRORS, Totals
from abproxy.telemetry.status import LANES, limits_in_force, list_settings
from abproxy.workers.adding import WORST_FIRST, combine

__all__ = ["Batches", "Document", "add_totals", "unite"]

Document = dict[str, Any]
"""What one worker says of itself, or the foreman of all."""

_GRAVEST_FIRST = (
    BlockedBy.UPSTREAM,
    BlockedBy.BUDGET,
    BlockedBy.SLOT,
    BlockedBy.NOTHING,
)


def add_totals(heard: Iterable[Mapping[str, float]]) -> dict[str, float]:
    """Add up what was counted by several; *at* is when the last was heard."""
    whole: dict[str, float] = {}
    for totals in heard:
        for name, value in totals.items():
            before = whole.get(name, 0)
            whole[name] = max(before, value) if name == "at" else before + value
    return whole


@define(eq=False)
class Batches:
    """The last batches of all workers, numbered anew in the order in which we heard."""

    seen: dict[str, int] = field(init=False, factory=dict)
    """The serial of the last one of each worker."""

    _kept: list[Document] = field(init=False, factory=list)
    _last: int = field(init=False, default=0)

    def learn(self, said: Mapping[str, Sequence[Document]]) -> None:
        """Take those that are new, by the names of workers."""
        new: list[Document] = []
        for name, batches in said.items():
            seen = self.seen.get(name, 0)
            new += [batch for batch in batches if batch["serial"] > seen]
            self.seen[name] = max([seen, *(batch["serial"] for batch in batches)])
        for batch in sorted(new, key=lambda batch: batch["at"]):
            self._last += 1
            self._kept.append({**batch, "serial": self._last})
        del self._kept[:-BATCHES]

    def gone(self, name: str) -> None:
        """Expect a worker that begins to count at 1."""
        self.seen.pop(name, None)

    def after(self, serial: int) -> list[Document]:
        """List those after a *serial*."""
        return [batch for batch in self._kept if batch["serial"] > serial]


def unite(said: Sequence[Document], settings: Settings) -> Document:
    """Make one of what all say, as far as the sum of it is known from that."""
    lately = _sum([each["lately"] for each in said])
    flow: Document = {
        name: combine(f"abproxy_{name}", [each["flow"][name] for each in said])
        for name in said[0]["flow"]
    }
    flow["cpu_seconds_per_call"] = lately.cpu_s_per_call
    upstream = _upstream([each["upstream"] for each in said])
    limits = limits_in_force(
        settings, flow["batch_max_items"], upstream["max_batch_inputs"]
    )
    # Each of them has seen as much time: shares of it are those of the average.
    found = attrs.evolve(diagnose(lately, limits), period_s=lately.at / len(said))
    return {
        "version": __version__,
        "now": max(each["now"] for each in said),
        "upstream": upstream,
        "flow": flow,
        "kept_by": _gravest({each["kept_by"] for each in said}),
        "lanes": _most(said, "lanes", "items")[:LANES],
        "cpu_us_per_call": lately.cpu_s_per_call * 1e6,
        "verdict": msgspec.to_builtins(attrs.asdict(found)),
        "errors": _most(said, "errors", "at")[:ERRORS],
        "settings": list_settings(settings),
        "lately": {**attrs.asdict(lately), "at": found.period_s},
    }


def _sum(said: Sequence[Document]) -> Totals:
    return Totals(**{name: sum(each[name] for each in said) for name in said[0]})


def _upstream(said: Sequence[Document]) -> Document:
    order = [state.value for state in WORST_FIRST]
    ordered = sorted(said, key=lambda each: order.index(each["state"]))
    # What the worst off has not learnt yet others may know.
    return {
        name: next((each[name] for each in ordered if each[name] is not None), None)
        for name in ordered[0]
    }


def _gravest(obstacles: set[str]) -> str:
    return next(each.value for each in _GRAVEST_FIRST if each.value in obstacles)


def _most(said: Sequence[Document], member: str, by: str) -> list[Document]:
    listed = [item for each in said for item in each[member]]
    return sorted(listed, key=lambda item: -item[by])
