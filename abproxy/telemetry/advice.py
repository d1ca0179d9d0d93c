"""
The one thing to change, if anything: rules from the most to the least urgent.

Each rule is a judgement of numbers; the first that fits speaks.
"""

from collections.abc import Callable, Iterator
from operator import itemgetter

from attrs import frozen

from abproxy.telemetry.totals import Totals

__all__ = [
    "MOSTLY",
    "OFTEN",
    "LimitsInForce",
    "Recommendation",
    "advise",
    "has_company",
]

COMPANY = 1.2
"""Calls a request from which on they travel together."""

OFTEN = 0.2
"""The share of time, or of batches, from which on something matters."""

MOSTLY = 0.5
"""The share of batches from which on the others are the exception."""

REFUSED = 0.01
"""The share of refused calls from which on there is too little of something."""


@frozen(kw_only=True)
class LimitsInForce:
    """The limits in force; what the operator did not say is None."""

    slots: int | None = None
    budget: int | None = None
    max_batch_calls: int | None = None
    max_wait_ms: float = 0.0
    batch_items: int
    """Inputs that make a batch full."""

    batch_bytes: int
    """Bytes of JSON that do."""

    upstream_max_items: int | None = None
    """Inputs that the upstream takes in one request, if that is known."""


@frozen
class Recommendation:
    """What to change."""

    setting: str
    """Its name in the environment, or what it is if it is none of ours."""

    why: str


def has_company(lately: Totals) -> bool:
    """Whether calls travel together."""
    return lately.calls_per_request >= COMPANY


def advise(lately: Totals, situation: LimitsInForce) -> Recommendation | None:
    """Say what would help most, given what happened *lately*."""
    found = (rule(lately, situation) for rule in _RULES)
    return next(filter(None, found), None)


def _away(lately: Totals, _situation: LimitsInForce) -> Recommendation | None:
    kept = lately.share_of_time(lately.kept_by_upstream_s)
    if kept < OFTEN:
        return None
    why = f"it was away or had no room {kept:.0%} of the time; its own log says why"
    return Recommendation("the inference server", why)


def _refused(lately: Totals, _situation: LimitsInForce) -> Recommendation | None:
    if lately.refused_for_room <= REFUSED * lately.calls:
        return None
    refused = f"{lately.refused_for_room} calls were refused"
    return Recommendation(
        "a second or faster inference server",
        f"{refused}, as too many waited for this one",
    )


def _held_in_vain(lately: Totals, situation: LimitsInForce) -> Recommendation | None:
    if not situation.max_wait_ms or has_company(lately):
        return None
    held = f"calls are held for {situation.max_wait_ms:g} ms and find no company"
    return Recommendation("MAX_WAIT_TIME=0", f"{held}; with 0 they leave at once")


def _budget(lately: Totals, situation: LimitsInForce) -> Recommendation | None:
    kept = lately.share_of_time(lately.kept_by_budget_s)
    if situation.budget is None or kept < OFTEN:
        return None
    allowed = f"as you allow {situation.budget} inputs in flight"
    why = f"full batches waited {kept:.0%} of the time, {allowed}"
    return Recommendation("BUDGET", f"{why}; unset, it follows the server")


def _slots(lately: Totals, situation: LimitsInForce) -> Recommendation | None:
    kept = lately.share_of_time(lately.kept_by_slot_s)
    if situation.slots is None or kept < OFTEN or has_company(lately):
        return None
    allowed = f"as you allow {situation.slots} in flight that are not full"
    why = f"batches waited {kept:.0%} of the time, {allowed}"
    return Recommendation("SLOTS", f"{why}; unset, it follows the server")


def _full(lately: Totals, situation: LimitsInForce) -> Recommendation | None:
    share = lately.full / max(1, lately.batches)
    are_alone = not has_company(lately) and situation.max_batch_calls != 1
    if share < MOSTLY or are_alone:
        return None
    rule = max(_larger(lately, situation), key=itemgetter(0))[1]
    return rule(f"{share:.0%} of the batches are full", situation)


def _larger(
    lately: Totals, situation: LimitsInForce
) -> Iterator[tuple[float, "_Larger"]]:
    """Say how close batches come to each cap, and what is to be said of it."""
    if situation.max_batch_calls is not None:
        yield lately.parts / situation.max_batch_calls, _more_calls
    yield lately.items / situation.batch_items, _more_items
    yield lately.size / situation.batch_bytes, _more_bytes


def _more_calls(full: str, situation: LimitsInForce) -> Recommendation:
    why = f"{full}, as you limit the calls in one to {situation.max_batch_calls}"
    return Recommendation("MAX_BATCH_SIZE", f"{why}; unset, as many share one as fit")


def _more_items(full: str, situation: LimitsInForce) -> Recommendation:
    why = f"{full} at {situation.batch_items} inputs"
    most = situation.upstream_max_items
    if most is None or situation.batch_items < most:
        return Recommendation("MAX_BATCH_INPUTS", f"{why}; try more")
    return Recommendation(
        "a higher limit of the inference server (--max-client-batch-size)",
        f"{why}, which is all that it takes",
    )


def _more_bytes(full: str, situation: LimitsInForce) -> Recommendation:
    why = f"{full} at {situation.batch_bytes:,} bytes"
    takes = "if the inference server takes larger bodies (--payload-limit)"
    return Recommendation("MAX_BATCH_BYTES", f"{why}; try more, {takes}")


def _apart(lately: Totals, _situation: LimitsInForce) -> Recommendation | None:
    if lately.crowded_out_by_key <= OFTEN * lately.batches:
        return None
    return Recommendation(
        "INFERENCE_SERVICE_KEY",
        "clients with different keys share no batch; with one key for the inference "
        "server, and theirs in API_KEY, they do",
    )


_Larger = Callable[[str, LimitsInForce], Recommendation]
_Rule = Callable[[Totals, LimitsInForce], Recommendation | None]
_RULES: tuple[_Rule, ...] = (
    _away,
    _refused,
    _held_in_vain,
    _budget,
    _slots,
    _full,
    _apart,
)
