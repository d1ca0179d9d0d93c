"""
What settings, and what the upstream reports in `/info`, mean for each object.

The same code runs at the start and at each change after it.  A setting wins
over what the upstream reports, which wins over our default.
"""

import sys
from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING

import attrs
from attrs import frozen
from twisted.logger import Logger

from abproxy.batching.account import Rates
from abproxy.batching.part import Caps
from abproxy.batching.refusal import RetryTimeouts
from abproxy.dialects.members import MemberRules
from abproxy.dialects.translate import before_openai
from abproxy.errors import SettingsError
from abproxy.events import Observer
from abproxy.http.forwarded import TrustedProxies
from abproxy.http.headers import Credentials
from abproxy.http.sharing import LineRules
from abproxy.reuse.entry import Keys
from abproxy.reuse.layers import Reuse
from abproxy.service.proxy import DrainTimes
from abproxy.settings.parsers import hosts
from abproxy.settings.settings import Settings
from abproxy.settings.sources import variable
from abproxy.telemetry.diagnosis import LimitsInForce
from abproxy.tuning import Write, write_later, write_now
from abproxy.upstream.discovery import ServerInfo
from abproxy.upstream.endpoints import policy_of
from abproxy.upstream.hosted import HostedApi, find_hosted
from abproxy.upstream.identity import Source
from abproxy.upstream.joining import sha_line
from abproxy.web.app import Policy, ProxyApp
from abproxy.web.auth import ApiKeys, Clients
from abproxy.web.calls import CallReader, Takes
from abproxy.web.listen import raise_connection_limit
from abproxy.web.models import Models
from abproxy.web.server import ServerLimits

if TYPE_CHECKING:
    from abproxy.upstream.tls import VerifyingPolicy

__all__ = [
    "CHANGEABLE",
    "Limits",
    "clients_for",
    "credentials_for",
    "drain_times",
    "keys_for",
    "keys_of_rows",
    "limits_for",
    "limits_for_all",
    "limits_in_force",
    "part_of",
    "permits_for",
    "policy_for",
    "rates_for",
    "read_again",
    "reader_for",
    "retry_timeouts_for",
    "reuse_for",
    "server_limits",
    "shows_reuse",
    "tls_policy_for",
    "variables",
    "write_for",
]

MAX_BATCH_INPUTS = 32
"""Inputs in a batch unless set or reported by the upstream: TEI's own default."""

BATCHES_IN_FLIGHT = 8
"""Full batches in flight at a hosted API, unless BUDGET is set."""

OVERLOAD_PATIENCE_S = 5.0
"""How long calls wait for an upstream without room, where nothing says more."""

BUDGET = 512
"""Inputs in flight unless set or reported by the upstream: TEI's own default."""

CHANGEABLE = frozenset(
    {
        "admin_key_file",
        "admin_keys",
        "api_key_file",
        "api_keys",
        "budget",
        "bulk_api_key_file",
        "bulk_api_keys",
        "call_deadline_s",
        "call_timeout_s",
        "client_keep_alive_s",
        "connect_patience_s",
        "drain_delay_s",
        "drain_timeout_s",
        "hedge_after",
        "log_level",
        "max_batch_bytes",
        "max_batch_calls",
        "max_batch_inputs",
        "max_batch_tokens",
        "max_body_bytes",
        "max_call_inputs",
        "max_connections",
        "max_memory_bytes",
        "max_wait_ms",
        "max_waiting_bytes",
        "max_waiting_inputs",
        "max_waiting_inputs_of_one",
        "oversize",
        "overload_patience_s",
        "packing",
        "rate_limit",
        "request_timeout_s",
        "resolve_every_s",
        "share_alone",
        "share_apart",
        "share_ignore",
        "slots",
        "trusted_proxies",
        "upstream_key",
        "upstream_key_file",
        "upstream_requests_per_minute",
        "upstream_timeout_s",
        "upstream_tokens_per_minute",
    }
)
"""Settings that can change without a restart."""

_log = Logger()


def keys_for(settings: Settings) -> ApiKeys:
    """Return the keys that are accepted, bulk keys included."""
    return ApiKeys(accepted=settings.api_keys + settings.bulk_api_keys)


def clients_for(settings: Settings) -> Clients:
    """Return what tells clients apart."""
    return Clients(
        keys=keys_for(settings),
        bulk_keys=frozenset(settings.bulk_api_keys),
        proxies=TrustedProxies.of(settings.trusted_proxies),
        deadline_s=settings.call_deadline_s,
    )


def policy_for(settings: Settings, models: Models) -> Policy:
    """Return which requests are accepted, and how they are parsed."""
    return Policy(
        keys=keys_for(settings),
        clients=clients_for(settings),
        models=models,
        inputs_per_s=settings.rate_limit,
    )


def reader_for(
    settings: Settings,
    info: ServerInfo,
    takes: Takes = lambda _items: True,
    observer: Observer | None = None,
    model: str | None = None,
) -> CallReader:
    """
    Return how the calls of a model are read.

    Args:
        settings: those of the model.
        info: what its server has said.
        takes: whether so many inputs may be batched.
        observer: hears what keeps calls from sharing a batch.
        model: what its server calls it, if that is not what it says.
    """
    path = _embeddings_path(settings, info)
    return CallReader(
        credentials=credentials_for(settings),
        task=info.task,
        translated=before_openai(path, model or info.model),
        lines=LineRules.of(
            settings.share_ignore, settings.share_apart, settings.share_alone
        ),
        members=MemberRules(
            is_tei=info.is_tei,
            max_inputs=settings.max_call_inputs,
            ignore=settings.share_ignore,
            apart=settings.share_apart,
            alone=settings.share_alone,
        ),
        takes=takes,
        observer=observer or Observer(),
    )


def _embeddings_path(settings: Settings, info: ServerInfo) -> str | None:
    if settings.upstream_dialect == "openai":
        return info.embeddings_path or "/v1/embeddings"
    return info.embeddings_path


def credentials_for(settings: Settings) -> Credentials:
    """Return the credentials that are sent to the upstream."""
    has_keys = bool(keys_for(settings).accepted)
    return Credentials(
        key=settings.upstream_key,
        are_for_us=has_keys,
        fixed=tuple((n.encode(), v.encode()) for n, v in settings.upstream_headers),
    )


def keys_of_rows(settings: Settings, info: ServerInfo) -> Keys:
    """Return under which keys the rows of this model are remembered."""
    # Proxies that share rows may know one server by several addresses.
    place = None if info.sha else settings.upstream_url
    epoch = place, settings.cache_epoch, info.model, info.sha, info.dtype, info.version
    return Keys(
        epoch=[word or "" for word in epoch],
        by_client=_is_by_client(settings),
        are_ours=not credentials_for(settings).are_the_clients,
        source=Source(identity=info.identity),
        marks=sha_line(info.identity) if settings.model_header else (),
    )


def reuse_for(settings: Settings) -> Reuse:
    """Return what is not to be computed twice."""
    return Reuse(
        dedupe=settings.dedupe,
        cache_bytes=settings.cache_bytes,
        cache_ttl_s=settings.cache_ttl_s,
        keys=keys_of_rows(settings, ServerInfo()),
        shows=shows_reuse(settings),
    )


def shows_reuse(settings: Settings) -> bool:
    """Return whether no answer could tell what other clients have asked for."""
    return _is_by_client(settings) or len(keys_for(settings).accepted) <= 1


def _is_by_client(settings: Settings) -> bool:
    if settings.cache_scope is None:
        return len(keys_for(settings).accepted) > 1
    return settings.cache_scope == "client"


def tls_policy_for(settings: Settings) -> Callable[[], "VerifyingPolicy"]:
    """
    Return what says whom to trust as upstream; it reads the files for that once.

    Raises:
        SettingsError: the files cannot be used.
    """
    policy = policy_of(
        settings.upstream_tls_cert,
        settings.upstream_tls_key,
        settings.upstream_tls_ca,
    )
    if settings.has_tls_upstream:
        policy()  # a mistake is to be seen at once
    return policy


def retry_timeouts_for(settings: Settings) -> RetryTimeouts:
    """Return how long calls wait for an upstream that is down or full."""
    return RetryTimeouts(
        connect_s=settings.connect_patience_s,
        overload_s=settings.overload_patience_s or OVERLOAD_PATIENCE_S,
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
        most_of=most_of,
        shares=settings.workers,
    )


def server_limits(settings: Settings, app: ProxyApp) -> ServerLimits:
    """Return what clients may send, and how many may be connected."""
    return ServerLimits(
        is_batched=app.may_be_batched,
        judge=app.judge,
        max_body_bytes=settings.max_body_bytes,
        max_memory_bytes=settings.max_memory_bytes,
        max_connections=raise_connection_limit(settings.max_connections),
        request_timeout_s=settings.request_timeout_s,
        keep_alive_s=settings.client_keep_alive_s,
    )


def write_for(settings: Settings) -> Write:
    """Return how bytes are written to a connection."""
    return write_now if "write" in settings.fast_paths else write_later


def drain_times(settings: Settings) -> DrainTimes:
    """Return how long the end may take."""
    return DrainTimes(delay_s=settings.drain_delay_s, whole_s=settings.drain_timeout_s)


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


def read_again(read: Callable[[], Settings], current: Settings) -> Settings:
    """
    Return the settings that are to replace the *current* ones.

    Raises:
        SettingsError: they cannot be used, or would stop asking for keys, which is
            more often a lost file than the intention.
    """
    wanted = read()
    if keys_for(current).accepted and not keys_for(wanted).accepted:
        raise SettingsError(
            "no key is left in API_KEY or BULK_API_KEY, and a reload does not turn "
            "keys off; set a key, or restart without keys"
        )
    return wanted


def variables(fields: Collection[str]) -> str:
    """Return the names by which some *fields* of Settings are set, in one line."""
    named = (each for each in attrs.fields(Settings) if each.name in fields)
    return ", ".join(variable(each.metadata["option"]) for each in named)
