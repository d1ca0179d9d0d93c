"""
Is batching helping, and what limits it?

A judgement of numbers, with no rooms and no clock: the figures of the last
hour and the limits in force go in, a few sentences and at most one advice come
out.
"""

from attrs import frozen

from abproxy.events import BlockedBy
from abproxy.telemetry.advice import (
    MOSTLY,
    OFTEN,
    LimitsInForce,
    Recommendation,
    advise,
    has_company,
)
from abproxy.telemetry.totals import Totals

__all__ = ["Diagnosis", "judge"]

ENOUGH_CALLS = 100
"""Fewer calls tell nothing."""

GAIN = 1.1
"""How much dearer an input must be alone for company to pay."""


@frozen(kw_only=True)
class Diagnosis:
    """What the numbers say."""

    helps: bool | None
    """Whether batching helps; None if that cannot be told."""

    text: str
    advice: Recommendation | None
    calls: int
    calls_per_request: float | None
    """Calls, or parts of large ones, for each request to the upstream."""

    alone_ms_per_item: float | None
    """The upstream's time for an input in a request of one call."""

    shared_ms_per_item: float | None
    """The same in a request of several calls."""

    slot_limited: float
    """The share of the time in which a batch was ready and no slot free."""

    budget_limited: float
    """The same for full batches and the budget."""

    upstream_limited: float
    """The share of the time in which the upstream took no work."""

    limited_by: BlockedBy
    """Which of the three mattered most, if any did."""

    period_s: float
    """Over how many seconds."""

    def __str__(self) -> str:
        if self.advice is None:
            return self.text
        return (
            f"{self.text} What would help is {self.advice.setting}: {self.advice.why}."
        )


def judge(lately: Totals, situation: LimitsInForce) -> Diagnosis:
    """Judge what happened *lately*, in the *situation* that it happened in."""
    is_telling = lately.parts >= ENOUGH_CALLS
    limited_by = _limited_by(lately)
    helps, text = _company(lately) if is_telling else (None, _too_few(lately))
    limit = _limit(lately, limited_by) if is_telling else ""
    return Diagnosis(
        helps=helps,
        text=" ".join(filter(None, (text, limit))),
        advice=advise(lately, situation) if is_telling else None,
        calls=lately.calls,
        calls_per_request=lately.calls_per_request if lately.requests else None,
        alone_ms_per_item=lately.alone_ms_per_item,
        shared_ms_per_item=lately.shared_ms_per_item,
        slot_limited=lately.share_of_time(lately.kept_by_slot_s),
        budget_limited=lately.share_of_time(lately.kept_by_budget_s),
        upstream_limited=lately.share_of_time(lately.kept_by_upstream_s),
        limited_by=limited_by,
        period_s=lately.at,
    )


def _limited_by(lately: Totals) -> BlockedBy:
    shares = {
        BlockedBy.UPSTREAM: lately.share_of_time(lately.kept_by_upstream_s),
        BlockedBy.BUDGET: lately.share_of_time(lately.kept_by_budget_s),
        BlockedBy.SLOT: lately.share_of_time(lately.kept_by_slot_s),
    }
    often = (obstacle for obstacle, share in shares.items() if share > OFTEN)
    return next(often, BlockedBy.NOTHING)


def _too_few(lately: Totals) -> str:
    if not lately.calls and not lately.parts:
        return "Nobody has asked lately."
    return f"Too few calls to tell: {lately.parts} were sent to the server lately."


def _company(lately: Totals) -> tuple[bool | None, str]:
    together = f"A request carries {lately.calls_per_request:.1f} calls"
    if not has_company(lately):
        return False, f"{together}: {_why_alone(lately)}."
    alone, shared = lately.alone_ms_per_item, lately.shared_ms_per_item
    if alone is None or shared is None:
        way = "alone" if alone is None else "together"
        return True, f"{together}; too few went {way} to tell what that saves."
    costs = f"an input takes the server {_ms(shared)} in company, {_ms(alone)} alone"
    if alone < GAIN * shared:
        return False, f"{together}, but that saves no time: {costs}."
    return True, f"Batching helps. {together}; {costs}."


def _ms(value: float) -> str:
    """Write two digits that count, and never an exponent."""
    return f"{float(f'{value:.2g}'):g} ms"


def _why_alone(lately: Totals) -> str:
    if lately.crowded_out > OFTEN * lately.batches:
        return "those that wait together differ in route, options or key"
    if lately.full > MOSTLY * lately.batches:
        return "most fill it by themselves"
    if lately.requests > lately.batches * (1 + OFTEN):
        return "many are sent again, after a bad input or a broken connection"
    return "most come when no other waits, so there is nothing to gain"


def _limit(lately: Totals, limited_by: BlockedBy) -> str:
    match limited_by:
        case BlockedBy.UPSTREAM:
            share = lately.share_of_time(lately.kept_by_upstream_s)
            return f"The server took no work {share:.0%} of the time."
        case BlockedBy.BUDGET:
            share = lately.share_of_time(lately.kept_by_budget_s)
            return f"Full batches waited {share:.0%} of the time: the server is busy."
        case BlockedBy.SLOT:
            share = lately.share_of_time(lately.kept_by_slot_s)
            gathered = ", and gathered" if has_company(lately) else ""
            return f"Calls waited for a slot {share:.0%} of the time{gathered}."
        case _:
            return ""
