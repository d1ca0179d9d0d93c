"""
What settings, and what the upstream reports in `/info`, mean for each object.

The same code runs at the start and at each change after it.  What batches may hold
is in models/limits.py.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

from abproxy.batching.refusal import RetryTimeouts
from abproxy.dialects.members import MemberRules
from abproxy.dialects.translate import before_openai
from abproxy.events import Observer
from abproxy.http.forwarded import TrustedProxies
from abproxy.http.headers import Credentials
from abproxy.http.sharing import LineRules
from abproxy.reuse.entry import Keys
from abproxy.reuse.layers import Reuse
from abproxy.service.proxy import DrainTimes
from abproxy.settings.settings import Settings
from abproxy.tuning import Write, write_later, write_now
from abproxy.upstream.endpoints import policy_of
from abproxy.upstream.identity import Source
from abproxy.upstream.joining import sha_line
from abproxy.upstream.server_info import ServerInfo
from abproxy.web.app import Policy, ProxyApp
from abproxy.web.auth import ApiKeys, Clients
from abproxy.web.calls import CallReader, Takes
from abproxy.web.listen import raise_connection_limit
from abproxy.web.models import Models
from abproxy.web.server import ServerLimits

if TYPE_CHECKING:
    from abproxy.upstream.tls import VerifyingPolicy

__all__ = [
    "clients_for",
    "credentials_for",
    "drain_times",
    "keys_for",
    "keys_of_rows",
    "policy_for",
    "reader_for",
    "retry_timeouts_for",
    "reuse_for",
    "server_limits",
    "shows_reuse",
    "tls_policy_for",
    "write_for",
]

OVERLOAD_PATIENCE_S = 5.0
"""How long calls wait for an upstream without room, where nothing says more."""


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
        observer: notified of what keeps calls from sharing a batch.
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


def server_limits(settings: Settings, app: ProxyApp) -> ServerLimits:
    """Return what clients may send, and how many may be connected."""
    wanted = settings.max_connections
    return ServerLimits(
        is_batched=app.may_be_batched,
        check=app.check,
        max_body_bytes=settings.max_body_bytes,
        max_memory_bytes=settings.max_memory_bytes,
        max_connections=raise_connection_limit(
            wanted, is_default=wanted == Settings().max_connections
        ),
        request_timeout_s=settings.request_timeout_s,
        keep_alive_s=settings.client_keep_alive_s,
    )


def write_for(settings: Settings) -> Write:
    """Return how bytes are written to a connection."""
    return write_now if "write" in settings.fast_paths else write_later


def drain_times(settings: Settings) -> DrainTimes:
    """Return how long the end may take."""
    return DrainTimes(delay_s=settings.drain_delay_s, whole_s=settings.drain_timeout_s)
