"""
What the operator chose, in the shapes that the rooms take.

The same for the first day and for every change of settings after it.
"""

from abproxy.batching.concurrency import LEAST_SLOTS, Slots, make_slots
from abproxy.batching.refusal import RetryTimeouts
from abproxy.http.headers import Credentials
from abproxy.limits import part_of
from abproxy.settings import Settings
from abproxy.upstream.discovery import ServerInfo
from abproxy.web.app import Policy
from abproxy.web.auth import ApiKeys, Clients
from abproxy.web.calls import CallReader

__all__ = ["credentials_for", "keys_for", "patience_for", "policy_for", "slots_for"]


def keys_for(settings: Settings) -> ApiKeys:
    """Say who may come in: a bulk key is a key."""
    return ApiKeys(accepted=settings.api_keys + settings.bulk_api_keys)


def policy_for(settings: Settings, facts: ServerInfo) -> Policy:
    """Return which requests are accepted, and how they are understood."""
    return Policy(
        keys=keys_for(settings),
        clients=Clients(bulk_keys=frozenset(settings.bulk_api_keys)),
        reader=CallReader(credentials=credentials_for(settings), task=facts.task),
        inputs_per_s=settings.rate_limit,
    )


def credentials_for(settings: Settings) -> Credentials:
    """Say who we are to the upstream."""
    has_keys = bool(keys_for(settings).accepted)
    return Credentials(key=settings.upstream_key, are_for_us=has_keys)


def patience_for(settings: Settings) -> RetryTimeouts:
    """Say how long calls wait for an upstream that takes no work."""
    return RetryTimeouts(
        connect_s=settings.connect_patience_s,
        overload_s=settings.overload_patience_s,
    )


def slots_for(settings: Settings) -> Slots:
    """Say how many batches may be in flight that are not full."""
    return make_slots(settings.slots, part_of(LEAST_SLOTS, settings.workers))
