"""
The status documents of several processes as one, of the same shape as that of one.

What they count is added up, and where a sum would mean nothing the worst is told.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import attrs
import msgspec

from abproxy import __version__
from abproxy.events import BlockedBy
from abproxy.models.limits import limits_in_force
from abproxy.settings.settings import Settings, list_settings
from abproxy.telemetry.diagnosis import about_slots, diagnose
from abproxy.telemetry.history import ERRORS, Totals
from abproxy.telemetry.servers import merge_servers
from abproxy.telemetry.sharing import merge_sharing
from abproxy.telemetry.status import LANES
from abproxy.web.upstreams import IN_FLIGHT
from abproxy.workers.scrapes import WORST_FIRST, combine

__all__ = ["StatusDocument", "add_totals", "merge_shown", "merge_status"]

StatusDocument = dict[str, Any]
"""`/-/status.json` of one worker, or of all."""

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


def merge_shown(same: Sequence[StatusDocument]) -> StatusDocument:
    """Return what several workers say of a server: drained only if it is for all."""
    worst = min(same, key=lambda each: (each["state"] == "drained", each["takes_part"]))
    in_flight = {name: sum(each[name] for each in same) for name in IN_FLIGHT}
    takes_part = all(each["takes_part"] for each in same)
    return {**worst, **in_flight, "takes_part": takes_part}


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
