"""
Is batching helping, and what limits it?

A judgement of numbers, with no rooms and no clock: the figures of the last
hour and the limits in force go in, a few sentences and at most one advice come
out.
"""

from attrs import frozen

from abproxy.batching.observing import Obstacle
from abproxy.telemetry.advice import COMPANY, OFTEN, Advice, Situation, advise
from abproxy.telemetry.totals import Totals

__all__ = ["Verdict", "judge"]

ENOUGH_CALLS = 100
"""Fewer calls tell nothing."""

GAIN = 1.1
"""How much dearer an input must be alone for company to pay."""


@frozen(kw_only=True)
class Verdict:
    """What the numbers say."""

    helps: bool | None
    """Whether batching helps; None if that cannot be told."""

    text: str
    advice: Advice | None
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

    limited_by: Obstacle
    """Which of the three mattered most, if any did."""

    period_s: float
    """Over how many seconds."""

    def __str__(self) -> str:
        if self.advice is None:
            return self.text
        return f"{self.text} What would help: {self.advice.setting}; {self.advice.why}."


def judge(lately: Totals, situation: Situation) -> Verdict:
    """Judge what happened *lately*, in the *situation* that it happened in."""
    is_telling = lately.parts >= ENOUGH_CALLS
    helps, text = _judge(lately) if is_telling else (None, _too_few(lately))
    return Verdict(
        helps=helps,
        text=text,
        advice=advise(lately, situation) if is_telling else None,
        calls=lately.calls,
        calls_per_request=lately.calls_per_request if lately.requests else None,
        alone_ms_per_item=lately.alone_ms_per_item,
        shared_ms_per_item=lately.shared_ms_per_item,
        slot_limited=lately.share_of_time(lately.kept_by_slot_s),
        budget_limited=lately.share_of_time(lately.kept_by_budget_s),
        upstream_limited=lately.share_of_time(lately.kept_by_upstream_s),
        limited_by=_limited_by(lately),
        period_s=lately.at,
    )


def _limited_by(lately: Totals) -> Obstacle:
    kept_s = {
        Obstacle.UPSTREAM: lately.kept_by_upstream_s,
        Obstacle.BUDGET: lately.kept_by_budget_s,
        Obstacle.SLOT: lately.kept_by_slot_s,
    }
    often = (each for each in kept_s if lately.share_of_time(kept_s[each]) > OFTEN)
    return next(often, Obstacle.NOTHING)


def _too_few(lately: Totals) -> str:
    if not lately.calls:
        return "Nobody has asked lately."
    return f"Too few calls to tell: {lately.calls}."


def _judge(lately: Totals) -> tuple[bool | None, str]:
    helps, text = _company(lately)
    return helps, " ".join(filter(None, (text, _limit(lately))))


def _company(lately: Totals) -> tuple[bool | None, str]:
    together = f"A request carries {lately.calls_per_request:.1f} calls"
    if lately.calls_per_request < COMPANY:
        return False, f"{together}: {_why_alone(lately)}."
    alone, shared = lately.alone_ms_per_item, lately.shared_ms_per_item
    if alone is None or shared is None:
        return True, f"{together}; what an input costs alone was not seen."
    costs = f"an input takes the server {shared:.2g} ms in company, {alone:.2g} alone"
    if alone < GAIN * shared:
        return False, f"{together}, but that saves the server no time: {costs}."
    return True, f"Batching helps. {together}; {costs}."


def _why_alone(lately: Totals) -> str:
    if lately.crowded_out > OFTEN * lately.batches:
        return "those that wait together differ in route, options or key"
    return "most find the server free and leave at once, so there is nothing to gain"


def _limit(lately: Totals) -> str:
    by_budget = lately.share_of_time(lately.kept_by_budget_s)
    by_slot = lately.share_of_time(lately.kept_by_slot_s)
    by_upstream = lately.share_of_time(lately.kept_by_upstream_s)
    if by_upstream > OFTEN:
        return f"The server took no work {by_upstream:.0%} of the time."
    if by_budget > OFTEN:
        return f"Full batches waited {by_budget:.0%} of the time: the server is busy."
    if by_slot > OFTEN:
        return f"Calls waited for a slot {by_slot:.0%} of the time, and gathered."
    return ""
