"""
What would help most: at most one recommendation, from what happened lately.

Each rule looks at the figures of the last hour and at the limits in force, and the
first with something to recommend decides.  Urgent ones come before the others.
"""

from collections.abc import Callable, Iterator
from itertools import chain
from operator import itemgetter

from attrs import evolve, frozen

from abproxy.telemetry.history import OFTEN, Totals
from abproxy.telemetry.sharing import Sharing

__all__ = [
    "MOSTLY",
    "NOTHING_SEEN",
    "LimitsInForce",
    "Recommendation",
    "advise",
    "format_ms",
]

NOTHING_SEEN = Sharing()

MOSTLY = 0.5
"""The share of batches that counts as most of them."""

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


def advise(
    lately: Totals, limits: LimitsInForce, sharing: Sharing = NOTHING_SEEN
) -> Recommendation | None:
    """Return what would help most, given what happened *lately*."""
    urgent = (rule(lately, limits) for rule in _URGENT)
    others = (rule(lately, limits) for rule in _RULES)
    found = chain(urgent, (_shared(lately, sharing),), others)
    return next(filter(None, found), None)


def _shared(lately: Totals, sharing: Sharing) -> Recommendation | None:
    if not lately.is_crowded_out or lately.shares_requests:
        return None
    found = sharing.hindrance_of(lately.parts)
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
    if not limits.max_wait_ms or lately.shares_requests:
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
    if limits.slots is None or kept < OFTEN or lately.shares_requests:
        return None
    allowed = f"because you allow {limits.slots} in flight that are not full"
    why = f"batches waited {kept:.0%} of the time, {allowed}"
    return Recommendation("SLOTS", f"{why}; if unset, it adapts to the server")


def _full(lately: Totals, limits: LimitsInForce) -> Recommendation | None:
    share = lately.full / max(1, lately.batches)
    are_alone = not lately.shares_requests and limits.max_batch_calls != 1
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
    full = f"{many:.0f} inputs take {format_ms(many_ms)}"
    empty = f"{few:.0f} take {format_ms(few_ms)}"
    return f"; the server would take more at once: {full}, {empty}"


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


def format_ms(value: float) -> str:
    """Format with two significant digits, and never an exponent."""
    return f"{float(f'{value:.2g}'):g} ms"
