"""
Is batching helping, what limits it, and what would help most?

The figures of the last hour and the limits in force are turned into a few
sentences and at most one recommendation.
"""

from collections.abc import Callable, Iterator, Mapping
from itertools import chain
from operator import attrgetter, itemgetter

from attrs import evolve, frozen

from abproxy.batching.ladder import RUNGS
from abproxy.events import BlockedBy
from abproxy.telemetry.history import Totals
from abproxy.telemetry.sharing import Hindrance, Sharing

__all__ = [
    "Diagnosis",
    "LimitsInForce",
    "Recommendation",
    "about_slots",
    "advise",
    "diagnose",
]

NOTHING_SEEN = Sharing()

PATHS = 3
"""How many paths are named to which requests are relayed."""

ENOUGH_CALLS = 100
"""With fewer calls there is no diagnosis."""

GAIN = 1.1
"""Batching helps if an input takes so many times as long alone as in a shared batch."""

SHARED_FROM = 1.2
"""Calls per request from which on calls count as sharing requests."""

OFTEN = 0.2
"""The share of time, or of batches, from which on something is reported."""

MOSTLY = 0.5
"""The share of batches that counts as most of them."""

TELLING = 10
"""How often a name has to be counted to be named."""

ENOUGH_SAMPLES = 50
"""With fewer inputs that were looked at, nothing is said about a cache."""

TIMES_AS_MANY, HARDLY_MORE = 3.0, 1.5
"""
A server would take more at once if this many times the inputs take it less than
this many times as long, as a GPU that is not busy with them.
"""

REFUSED = 0.01
"""The share of refused calls from which on the server is too slow."""


@frozen(kw_only=True)
class LimitsInForce:
    """The limits in force; None for a setting that is not set."""

    slots: int | None = None
    budget: int | None = None
    max_batch_calls: int | None = None
    max_wait_ms: float = 0.0
    batch_items: int
    """Inputs that make a batch full."""

    batch_bytes: int
    """Bytes of JSON that make a batch full."""

    cache_bytes: int = 0
    """Memory for rows that were computed before."""

    upstream_max_items: int | None = None
    """Inputs that the upstream accepts in one request, if that is known."""


@frozen
class Recommendation:
    """A setting to change, and the reason."""

    setting: str
    """The environment variable, or what to change if it is no setting of ours."""

    why: str


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
    return f"Too few calls to tell: {lately.parts} were sent to the server lately."


def _relayed(lately: Totals, sharing: Sharing) -> str:
    """Return to which paths most requests were relayed, if most of them were."""
    times = sum(each.times for each in sharing.relayed)
    if times <= max(lately.calls, lately.parts):
        return ""
    paths = ", ".join(f"{each.path} ({each.times})" for each in sharing.relayed[:PATHS])
    return f"Most requests are not batched but relayed one by one: {paths}."


def _sharing(lately: Totals, sharing: Sharing) -> tuple[bool | None, str]:
    together = f"A request has {lately.calls_per_request:.1f} calls"
    if not _shares_requests(lately):
        return False, f"{together}: {_why_alone(lately, sharing)}."
    alone, shared = lately.alone_ms_per_item, lately.shared_ms_per_item
    if alone is None or shared is None:
        way = "alone" if alone is None else "together"
        return True, f"{together}; too few were sent {way} to tell what that saves."
    costs = f"an input takes the server {_ms(shared)} together, {_ms(alone)} alone"
    if alone < GAIN * shared:
        return False, f"{together}, but that saves no time: {costs}."
    return True, f"Batching helps. {together}; {costs}."


def _ms(value: float) -> str:
    """Format with two significant digits, and never an exponent."""
    return f"{float(f'{value:.2g}'):g} ms"


def _why_alone(lately: Totals, sharing: Sharing) -> str:
    if lately.crowded_out > OFTEN * lately.batches:
        return _what_differs(lately, sharing)
    if lately.full > MOSTLY * lately.batches:
        return "most calls fill a batch by themselves"
    if lately.requests > lately.batches * (1 + OFTEN):
        return "many batches are sent again, after a bad input or a broken connection"
    return "most calls come when no other waits, so there is nothing to gain"


def _what_differs(lately: Totals, sharing: Sharing) -> str:
    found = _hindrance(lately, sharing)
    if found is not None and found in sharing.alone:
        return f"each call has `{found.name}`, and such calls are sent alone"
    if found is not None:
        return f"each call has its own `{found.name}`"
    most = next(iter(sharing.apart), None)
    if most is not None and most.times >= TELLING:
        return f"calls that wait at the same time differ, most often in `{most.name}`"
    return "calls that wait at the same time differ in route, options or key"


def _hindrance(lately: Totals, sharing: Sharing) -> Hindrance | None:
    """Return what keeps nearly each call from sharing, if something does."""
    both = (*sharing.alone[:1], *sharing.apart[:1])
    most = max(both, key=attrgetter("times"), default=None)
    # These counts may reach back only half as far, so half of the calls is most.
    return most if most and most.times > OFTEN * lately.parts else None


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
            grew = ", so batches grew" if _shares_requests(lately) else ""
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
    found = f"found by {trials:.0f} trials" if trials else "where trials begin"
    when = "when it would show something and calls stay as long as usual"
    if looks:
        when = f"after {looks:.0f} looks at how long calls stay"
    place = f"rung {rung:.0f} of {len(RUNGS)}, {found}"
    return f"{leaving[0].upper()}{leaving[1:]}: {place}. The next trial comes {when}."


def _shares_requests(lately: Totals) -> bool:
    """Return whether calls share requests."""
    return lately.calls_per_request >= SHARED_FROM


def advise(
    lately: Totals, limits: LimitsInForce, sharing: Sharing = NOTHING_SEEN
) -> Recommendation | None:
    """Return what would help most, given what happened *lately*."""
    urgent = (rule(lately, limits) for rule in _URGENT)
    others = (rule(lately, limits) for rule in _RULES)
    found = chain(urgent, (_shared(lately, sharing),), others)
    return next(filter(None, found), None)


def _shared(lately: Totals, sharing: Sharing) -> Recommendation | None:
    is_crowded = lately.crowded_out > OFTEN * lately.batches
    if not is_crowded or _shares_requests(lately):
        return None
    found = _hindrance(lately, sharing)
    if found is None or "=" not in found.setting:
        return None
    why = f"each call has its own `{found.name}`, so they share no batch"
    if found in sharing.alone:
        why = f"each call has `{found.name}`, with which it is sent alone"
    return Recommendation(found.setting, f"{why}; set it if no answer depends on that")


def _server_down(lately: Totals, _limits: LimitsInForce) -> Recommendation | None:
    kept = lately.share_of_time(lately.kept_by_upstream_s)
    if kept < OFTEN:
        return None
    why = f"it was unreachable or overloaded {kept:.0%} of the time; see its own log"
    return Recommendation("the inference server", why)


def _account(lately: Totals, _limits: LimitsInForce) -> Recommendation | None:
    kept = lately.share_of_time(lately.kept_by_account_s)
    what = "a higher rate limit of the account at the inference server"
    why = f"calls waited {kept:.0%} of the time for its requests or tokens a minute"
    return Recommendation(what, why) if kept >= OFTEN else None


def _refused(lately: Totals, _limits: LimitsInForce) -> Recommendation | None:
    if lately.refused_for_room <= REFUSED * lately.calls:
        return None
    refused = f"{lately.refused_for_room} calls were refused"
    return Recommendation(
        "a second or faster inference server",
        f"{refused}, because too many waited for this one",
    )


def _useless_wait(lately: Totals, limits: LimitsInForce) -> Recommendation | None:
    if not limits.max_wait_ms or _shares_requests(lately):
        return None
    held = f"calls are held for {limits.max_wait_ms:g} ms, but no others join them"
    return Recommendation("MAX_WAIT_TIME=0", f"{held}; with 0 they are sent at once")


def _budget(lately: Totals, limits: LimitsInForce) -> Recommendation | None:
    kept = lately.share_of_time(lately.kept_by_budget_s)
    if limits.budget is None or kept < OFTEN:
        return None
    allowed = f"because you allow {limits.budget} inputs in flight"
    why = f"full batches waited {kept:.0%} of the time, {allowed}"
    return Recommendation("BUDGET", f"{why}; if unset, it adapts to the server")


def _slots(lately: Totals, limits: LimitsInForce) -> Recommendation | None:
    kept = lately.share_of_time(lately.kept_by_slot_s)
    if limits.slots is None or kept < OFTEN or _shares_requests(lately):
        return None
    allowed = f"because you allow {limits.slots} in flight that are not full"
    why = f"batches waited {kept:.0%} of the time, {allowed}"
    return Recommendation("SLOTS", f"{why}; if unset, it adapts to the server")


def _full(lately: Totals, limits: LimitsInForce) -> Recommendation | None:
    share = lately.full / max(1, lately.batches)
    are_alone = not _shares_requests(lately) and limits.max_batch_calls != 1
    if share < MOSTLY or are_alone:
        return None
    rule = max(_larger(lately, limits), key=itemgetter(0))[1]
    found = rule(f"{share:.0%} of the batches are full", limits)
    return (
        evolve(found, why=found.why + _room(lately)) if rule is _more_items else found
    )


def _room(lately: Totals) -> str:
    """Return that the time of a request hardly grows with its inputs, if that is so."""
    if lately.few is None or lately.many is None:
        return ""
    (few, few_ms), (many, many_ms) = lately.few, lately.many
    if many < TIMES_AS_MANY * few or many_ms > HARDLY_MORE * few_ms:
        return ""
    times = f"{many:.0f} inputs take {_ms(many_ms)}, {few:.0f} take {_ms(few_ms)}"
    return f"; the server would take more at once: {times}"


def _larger(lately: Totals, limits: LimitsInForce) -> Iterator[tuple[float, "_Larger"]]:
    """Yield how close batches come to each cap, and what to recommend for it."""
    if limits.max_batch_calls is not None:
        yield lately.parts / limits.max_batch_calls, _more_calls
    yield lately.items / limits.batch_items, _more_items
    yield lately.size / limits.batch_bytes, _more_bytes


def _more_calls(full: str, limits: LimitsInForce) -> Recommendation:
    why = f"{full}, because you limit the calls in one to {limits.max_batch_calls}"
    return Recommendation(
        "MAX_BATCH_SIZE", f"{why}; if unset, as many share one as fit"
    )


def _more_items(full: str, limits: LimitsInForce) -> Recommendation:
    why = f"{full} at {limits.batch_items} inputs"
    most = limits.upstream_max_items
    if most is None or limits.batch_items < most:
        return Recommendation("MAX_BATCH_INPUTS", f"{why}; try more")
    return Recommendation(
        "a higher limit of the inference server (--max-client-batch-size)",
        f"{why}, which is all that it accepts",
    )


def _more_bytes(full: str, limits: LimitsInForce) -> Recommendation:
    why = f"{full} at {limits.batch_bytes:,} bytes"
    takes = "if the inference server accepts larger bodies (--payload-limit)"
    return Recommendation("MAX_BATCH_BYTES", f"{why}; try more, {takes}")


def _different_keys(lately: Totals, _limits: LimitsInForce) -> Recommendation | None:
    if lately.crowded_out_by_key <= OFTEN * lately.batches:
        return None
    return Recommendation(
        "INFERENCE_SERVICE_KEY",
        "calls with different keys share no batch; with one key for the inference "
        "server, and the clients' keys in API_KEY, they do",
    )


def _cache(lately: Totals, limits: LimitsInForce) -> Recommendation | None:
    share = lately.repeated / max(1, lately.sampled)
    if limits.cache_bytes or lately.sampled < ENOUGH_SAMPLES or share < OFTEN:
        return None
    why = f"{share:.0%} of the inputs were asked for before"
    return Recommendation(
        "CACHE_BYTES", f"{why}; remembered rows need no server, and are the same"
    )


_Larger = Callable[[str, LimitsInForce], Recommendation]
_Rule = Callable[[Totals, LimitsInForce], Recommendation | None]
_URGENT: tuple[_Rule, ...] = (_server_down, _account, _refused)
_RULES: tuple[_Rule, ...] = (
    _useless_wait,
    _budget,
    _slots,
    _full,
    _different_keys,
    _cache,
)
