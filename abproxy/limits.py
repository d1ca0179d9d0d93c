"""Whose word counts on limits: the operator's, then the upstream's, then ours."""

import sys

from attrs import frozen
from twisted.logger import Logger

from abproxy.batching.part import Caps
from abproxy.settings import Settings
from abproxy.upstream.discovery import ServerInfo

__all__ = ["Limits", "limits_for", "part_of"]

MAX_BATCH_INPUTS = 32
"""Inputs in a batch where nobody says otherwise: TEI's own default."""

BUDGET = 512
"""Inputs in flight where nobody says otherwise: TEI's own default."""

_log = Logger()


@frozen(kw_only=True)
class Limits:
    """What a batch, and all of them together, may hold."""

    caps: Caps
    budget: int


def limits_for(settings: Settings, facts: ServerInfo) -> Limits:
    """
    Settle the limits, and warn of those that the upstream will not keep.

    A batch of more inputs than the upstream has permits would never get in.
    Workers that share an upstream share what it takes.
    """
    whole = settings.budget or facts.max_inputs_in_flight or BUDGET
    budget = part_of(whole, settings.workers)
    items = settings.max_batch_inputs or facts.max_batch_inputs or MAX_BATCH_INPUTS
    _check("MAX_BATCH_INPUTS", settings.max_batch_inputs, facts.max_batch_inputs)
    _check("BUDGET", settings.budget, facts.max_inputs_in_flight)
    caps = Caps(
        calls=settings.max_batch_calls or sys.maxsize,
        items=min(items, budget),
        size=settings.max_batch_bytes,
    )
    return Limits(caps=caps, budget=budget)


def part_of(whole: int, workers: int) -> int:
    """Say how much of the *whole* each of so many *workers* gets."""
    return max(whole // workers, 1)


def _check(name: str, chosen: int | None, allowed: int | None) -> None:
    if chosen and allowed and chosen > allowed:
        _log.warn(
            "{name} is {chosen}, but the inference server takes {allowed}",
            name=name,
            chosen=chosen,
            allowed=allowed,
        )
