"""
Whether batching helps and what limits it, in a few sentences.

They are made of the figures of the last hour, and end with the recommendation of
what would help most, if there is one.
"""

from collections.abc import Mapping

from attrs import frozen

from abproxy.batching.ladder import RUNGS
from abproxy.events import BlockedBy
from abproxy.telemetry.advice import (
    MOSTLY,
    NOTHING_SEEN,
    LimitsInForce,
    Recommendation,
    advise,
    format_ms,
)
from abproxy.telemetry.history import OFTEN, Totals
from abproxy.telemetry.sharing import Sharing

__all__ = ["Diagnosis", "about_slots", "diagnose"]

PATHS = 3
"""How many paths are named to which requests are relayed."""

ENOUGH_CALLS = 100
"""With fewer calls there is no diagnosis."""

GAIN = 1.1
"""Batching helps if an input takes so many times as long alone as in a shared batch."""

TELLING = 10
"""How often a name has to be counted to be named."""


@frozen(kw_only=True)
class Diagnosis:
    """The conclusion from the figures of a period."""

    helps: bool | None
    """True if batching helps; None if there are too few calls to tell."""

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
    account_limited: float
    """The same for full batches and the budget, and for an account's minute."""

    upstream_limited: float
    """The share of the time in which the upstream was unreachable or overloaded."""

    limited_by: BlockedBy
    """The first of upstream, account, budget and slot that is reported, if any is."""

    period_s: float
    """The length of the period in seconds."""

    def __str__(self) -> str:
        if self.advice is None:
            return self.text
        return (
            f"{self.text} What would help is {self.advice.setting}: {self.advice.why}."
        )


def diagnose(
    lately: Totals, limits: LimitsInForce, sharing: Sharing = NOTHING_SEEN
) -> Diagnosis:
    """
    Return the diagnosis of the figures *lately*, with the *limits* in force.

    What kept calls from *sharing* is named where it matters.
    """
    is_telling = lately.parts >= ENOUGH_CALLS
    limited_by = _limited_by(lately)
    helps, text = _sharing(lately, sharing) if is_telling else (None, _too_few(lately))
    limit = _limit(lately, limited_by) if is_telling else ""
    relayed = _relayed(lately, sharing)
    if relayed and not lately.parts:
        text = ""
    return Diagnosis(
        helps=helps,
        text=" ".join(filter(None, (relayed, text, limit))),
        advice=advise(lately, limits, sharing) if is_telling else None,
        calls=lately.calls,
        calls_per_request=lately.calls_per_request if lately.requests else None,
        alone_ms_per_item=lately.alone_ms_per_item,
        shared_ms_per_item=lately.shared_ms_per_item,
        slot_limited=lately.share_of_time(lately.kept_by_slot_s),
        budget_limited=lately.share_of_time(lately.kept_by_budget_s),
        account_limited=lately.share_of_time(lately.kept_by_account_s),
        upstream_limited=lately.share_of_time(lately.kept_by_upstream_s),
        limited_by=limited_by,
        period_s=lately.at,
    )


def _shares(lately: Totals) -> Mapping[BlockedBy, float]:
    """Return for which share of the time batches waited for what."""
    return {
        BlockedBy.UPSTREAM: lately.share_of_time(lately.kept_by_upstream_s),
        BlockedBy.ACCOUNT: lately.share_of_time(lately.kept_by_account_s),
        BlockedBy.BUDGET: lately.share_of_time(lately.kept_by_budget_s),
        BlockedBy.SLOT: lately.share_of_time(lately.kept_by_slot_s),
    }


def _limited_by(lately: Totals) -> BlockedBy:
    often = (cause for cause, share in _shares(lately).items() if share > OFTEN)
    return next(often, BlockedBy.NOTHING)


def _too_few(lately: Totals) -> str:
    if not lately.calls and not lately.parts:
        return "No calls lately."
    were = "was" if lately.parts == 1 else "were"
    return f"Too few calls to tell: {lately.parts} {were} sent to the server lately."


def _relayed(lately: Totals, sharing: Sharing) -> str:
    """Return to which paths most requests were relayed, if most of them were."""
    times = sum(each.times for each in sharing.relayed)
    if times <= max(lately.calls, lately.parts):
        return ""
    paths = ", ".join(f"{each.path} ({each.times})" for each in sharing.relayed[:PATHS])
    return f"Most requests are not batched but relayed one by one: {paths}."


def _sharing(lately: Totals, sharing: Sharing) -> tuple[bool | None, str]:
    together = f"A request has {lately.calls_per_request:.1f} calls"
    if not lately.shares_requests:
        return False, f"{together}: {_why_alone(lately, sharing)}."
    alone, shared = lately.alone_ms_per_item, lately.shared_ms_per_item
    if alone is None or shared is None:
        way = "alone" if alone is None else "together"
        return True, f"{together}; too few were sent {way} to tell what that saves."
    times = f"{format_ms(shared)} together, {format_ms(alone)} alone"
    costs = f"an input takes the server {times}"
    if alone < GAIN * shared:
        return False, f"{together}, but that saves no time: {costs}."
    return True, f"Batching helps. {together}; {costs}."


def _why_alone(lately: Totals, sharing: Sharing) -> str:
    if lately.is_crowded_out:
        return _what_differs(lately, sharing)
    if lately.full > MOSTLY * lately.batches:
        return "most calls fill a batch by themselves"
    if lately.requests > lately.batches * (1 + OFTEN):
        return "many batches are sent again, after a bad input or a broken connection"
    return "most calls come when no other waits, so there is nothing to gain"


def _what_differs(lately: Totals, sharing: Sharing) -> str:
    found = sharing.hindrance_of(lately.parts)
    if found is not None and found in sharing.alone:
        return f"each call has `{found.name}`, and such calls are sent alone"
    if found is not None:
        return f"each call has its own `{found.name}`"
    most = next(iter(sharing.apart), None)
    if most is not None and most.times >= TELLING:
        return f"calls that wait at the same time differ, most often in `{most.name}`"
    return "calls that wait at the same time differ in route, options or key"


def _limit(lately: Totals, limited_by: BlockedBy) -> str:
    share = _shares(lately).get(limited_by, 0.0)
    match limited_by:
        case BlockedBy.UPSTREAM:
            return f"The server was unreachable or overloaded {share:.0%} of the time."
        case BlockedBy.ACCOUNT:
            return f"Calls waited for the account's minute {share:.0%} of the time."
        case BlockedBy.BUDGET:
            return f"Full batches waited {share:.0%} of the time: the server is busy."
        case BlockedBy.SLOT:
            grew = ", so batches grew" if lately.shares_requests else ""
            return f"Calls waited for a slot {share:.0%} of the time{grew}."
        case _:
            return ""


def about_slots(flow: Mapping[str, float]) -> str:
    """Return in words how freely batches leave, and what is tried, from gauges."""
    slots, rung = f"{flow['slots']:.0f}", flow["ladder_rung"]
    if not rung:
        return f"SLOTS fixes how many batches in flight may not be full: {slots}."
    are = "batch that is" if slots == "1" else "batches that are"
    leaving = f"at most {slots} {are} not full in flight"
    if rung == len(RUNGS):
        leaving = "all calls leave at once, as without a proxy"
    if flow["ladder_holds"]:
        leaving += ", the next held a moment for callers who were just answered"
    if flow["ladder_trying"]:
        return f"Being tried: {leaving}. It is kept if calls stay for less time."
    trials, looks = flow["ladder_trials"], flow["ladder_looks_to_trial"]
    found = f"found by {_count(trials, 'trial')}" if trials else "where trials begin"
    when = "when it would show something and calls stay as long as usual"
    if looks:
        when = f"after {_count(looks, 'look')} at how long calls stay"
    place = f"rung {rung:.0f} of {len(RUNGS)}, {found}"
    return f"{leaving[0].upper()}{leaving[1:]}: {place}. The next trial comes {when}."


def _count(number: float, noun: str) -> str:
    return f"{number:.0f} {noun}" if number == 1 else f"{number:.0f} {noun}s"
