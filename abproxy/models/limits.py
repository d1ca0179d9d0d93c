"""
What a batch of a model may hold, and how much may be in flight at its servers.

A setting wins over what a server reports, which wins over what is known of its host,
and that over our default.
"""

import sys
from collections.abc import Sequence

import attrs
from attrs import frozen
from twisted.logger import Logger

from abproxy.batching.account import Rates
from abproxy.batching.part import Caps
from abproxy.settings.parsers import hosts
from abproxy.settings.settings import Settings
from abproxy.telemetry.advice import LimitsInForce
from abproxy.upstream.hosted import HostedApi, find_hosted
from abproxy.upstream.server_info import ServerInfo

__all__ = [
    "Limits",
    "limits_for",
    "limits_for_all",
    "limits_in_force",
    "part_of",
    "permits_for",
    "rates_for",
]

MAX_BATCH_INPUTS = 32
"""Inputs in a batch unless set or reported by the upstream: TEI's own default."""

BATCHES_IN_FLIGHT = 8
"""Full batches in flight at a hosted API, unless BUDGET is set."""

BUDGET = 512
"""Inputs in flight unless set or reported by the upstream: TEI's own default."""

_log = Logger()


@frozen(kw_only=True)
class Limits:
    """What one batch may hold, and all batches in flight together."""

    caps: Caps
    budget: int
    servers: int = 1
    """How many servers that is for."""


def permits_for(settings: Settings, info: ServerInfo) -> int:
    """Return how many inputs this process may have in flight at one server."""
    whole = settings.budget or info.max_inputs_in_flight or BUDGET
    if settings.budget is None and _hosted(settings) is not None:
        # It works on as many requests at once as come; only their rate is limited.
        items = _items_for(settings, info)
        whole = max(whole, BATCHES_IN_FLIGHT * items * settings.workers)
    return part_of(whole, settings.workers)


def _hosted(settings: Settings) -> HostedApi | None:
    """Return the hosted API that all servers are of, if they are of one."""
    found = [find_hosted(host) for host in hosts(settings.upstream_url)]
    return found[0] if all(each is found[0] for each in found) else None


def _items_for(settings: Settings, info: ServerInfo) -> int:
    hosted = _hosted(settings)
    known = MAX_BATCH_INPUTS if hosted is None else hosted.most_inputs
    return settings.max_batch_inputs or info.max_batch_inputs or known


def limits_for(settings: Settings, info: ServerInfo) -> Limits:
    """
    Return the limits, and log a warning for each above the upstream's own.

    A batch of more inputs than the upstream has permits would never be accepted.
    Workers that share an upstream share its permits.
    """
    budget = permits_for(settings, info)
    items = _items_for(settings, info)
    _check("MAX_BATCH_INPUTS", settings.max_batch_inputs, info.max_batch_inputs)
    _check("BUDGET", settings.budget, info.max_inputs_in_flight)
    caps = Caps(
        calls=settings.max_batch_calls or sys.maxsize,
        items=min(items, budget),
        size=settings.max_batch_bytes,
    )
    return Limits(caps=caps, budget=budget)


def limits_for_all(settings: Settings, infos: Sequence[ServerInfo]) -> Limits:
    """
    Return the limits in front of all servers that say these *infos*.

    Any batch has to find room at one of them, so what may be left over at each is
    not counted; but two full batches are for each that takes them.
    """
    known = {info: limits_for(settings, info) for info in dict.fromkeys(infos)}
    each = [known[info] for info in infos]
    if len(each) == 1:
        return each[0]
    items = min(limits.caps.items for limits in each)
    budgets = [limits.budget for limits in each]
    left_over = (len(each) - 1) * (items - 1)
    full = sum(min(budget // items, 2) * items for budget in budgets)
    return Limits(
        caps=attrs.evolve(each[0].caps, items=items),
        budget=max(sum(budgets) - left_over, full),
        servers=len(each),
    )


def limits_in_force(
    settings: Settings, batch_items: int, upstream_max_items: int | None
) -> LimitsInForce:
    """Return the limits in force; *batch_items* is how many inputs fill a batch."""
    return LimitsInForce(
        slots=settings.slots,
        budget=settings.budget,
        max_batch_calls=settings.max_batch_calls,
        max_wait_ms=settings.max_wait_ms,
        cache_bytes=settings.cache_bytes,
        batch_items=batch_items,
        batch_bytes=settings.max_batch_bytes,
        upstream_max_items=upstream_max_items,
    )


def part_of(whole: int, workers: int) -> int:
    """Return the share of each of so many *workers* in the *whole*, at least 1."""
    return max(whole // workers, 1)


def _check(name: str, chosen: int | None, allowed: int | None) -> None:
    if chosen and allowed and chosen > allowed:
        _log.warn(
            "{name} is {chosen}, but the inference server takes {allowed}",
            name=name,
            chosen=chosen,
            allowed=allowed,
        )


def rates_for(settings: Settings) -> Rates:
    """Return what the account at the upstream may have, and one request to it."""
    known = _hosted(settings)

    def most_of(model: bytes) -> tuple[int | None, int | None]:
        if known is None:
            return None, settings.max_batch_tokens
        most = known.most_of(model)
        inputs = None if settings.max_batch_inputs else most.inputs
        return inputs, settings.max_batch_tokens or most.tokens

    return Rates(
        requests=settings.upstream_requests_per_minute,
        tokens=settings.upstream_tokens_per_minute,
        batch_tokens=settings.max_batch_tokens,
        patience_s=settings.overload_patience_s,
        is_hosted=known is not None,
        is_one_account=len(hosts(settings.upstream_url)) == 1,
        account=(tuple(hosts(settings.upstream_url)), settings.upstream_key),
        counts_models_together=known is not None and known.counts_models_together,
        most_of=most_of,
        shares=settings.workers,
    )
