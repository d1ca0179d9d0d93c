"""The servers of one model, as its settings name them, with all that is their own."""

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

from twisted.logger import Logger

from abproxy.configure import credentials_for, tls_policy_for, write_for
from abproxy.models.limits import limits_for, permits_for
from abproxy.settings.parsers import weighted
from abproxy.settings.settings import Settings
from abproxy.telemetry.setup import Telemetry
from abproxy.upstream.agent import make_agent
from abproxy.upstream.client import Transport, Upstream
from abproxy.upstream.connections import make_pool
from abproxy.upstream.endpoints import (
    EndpointFactory,
    at_address,
    is_name,
    uri_of,
)
from abproxy.upstream.fast.client import FastClient
from abproxy.upstream.fast.connection import ConnectionPool
from abproxy.upstream.identity import Generations

if TYPE_CHECKING:
    from abproxy.upstream.fleet.fleet import Fleet
from abproxy.upstream.server_info import ServerInfo

__all__ = ["make_servers"]

_log = Logger()


def make_servers(  # noqa: PLR0913
    settings: Settings,
    reactor: Any,
    telemetry: Telemetry,
    base_url: str | None = None,
    *,
    is_one_of_several: bool,
    drained: set[str],
) -> "Upstream | Fleet":
    """
    Return the only server of a model, or a fleet if there are or may be several.

    Args:
        settings: those of the model.
        reactor: clock and network.
        telemetry: hears of requests.
        base_url: of its server, if that is not the one in the settings.
        is_one_of_several: whether there are other models, so that the log names it.
        drained: addresses to which nothing is sent, as the operator wants it.
    """
    servers = weighted(base_url or settings.upstream_url)
    [(url, _), *others] = servers
    if settings.resolve == "all" and not any(is_name(each) for each, _ in servers):
        _log.warn(
            "RESOLVE=all is of no use: no name is to be looked up in {url}",
            url=base_url or settings.upstream_url,
        )
    if others or (settings.resolve == "all" and is_name(url)):
        return _fleet(settings, reactor, telemetry, servers, drained)
    upstream = _upstream(settings, reactor, telemetry, url)
    if is_one_of_several:
        upstream.name_in_log()
    return upstream


def _fleet(
    settings: Settings,
    reactor: Any,
    telemetry: Telemetry,
    servers: Sequence[tuple[str, float]],
    drained: set[str],
) -> "Fleet":
    # What only several servers need is a megabyte in the memory of a process.
    from abproxy.upstream.fleet.fleet import Fleet  # noqa: PLC0415
    from abproxy.upstream.fleet.resolve import Lookup, NamedServers  # noqa: PLC0415

    fleet = Fleet(
        clock=reactor,
        timeout_s=settings.upstream_timeout_s,
        credentials=credentials_for(settings),
        permits_of=partial(permits_for, settings),
        strict=settings.model_strict,
        drained=drained,
        observer=telemetry.observer,
    )
    for url, weight in servers:
        make = partial(_upstream, settings, reactor, telemetry, url)
        if settings.resolve == "all" and is_name(url):
            names = NamedServers(
                base_url=url,
                lookup=Lookup(
                    host=uri_of(url.encode()).host.decode(),
                    clock=reactor,
                    resolver=reactor.nameResolver,
                    every_s=settings.resolve_every_s,
                ),
                make=make,
                add=partial(fleet.add, weight=weight),
                remove=fleet.remove,
            )
            fleet.names.append(names)
        else:
            fleet.add(make(), weight)
    return fleet


def _upstream(
    settings: Settings,
    reactor: Any,
    telemetry: Telemetry,
    base_url: str,
    address: str | None = None,
) -> Upstream:
    budget = limits_for(settings, ServerInfo()).budget
    keep_s = settings.upstream_keep_alive_s
    agent_pool = make_pool(reactor, budget, keep_s)
    endpoints = EndpointFactory(
        reactor, settings.connect_timeout_s, tls_policy_for(settings), address
    )
    agent = make_agent(agent_pool, endpoints)
    name = at_address(base_url, address)
    generations = Generations(name, settings.model_strict)
    pool = ConnectionPool(reactor, budget, keep_s, generations)
    return Upstream(
        base_url=base_url,
        credentials=credentials_for(settings),
        clock=reactor,
        timeout_s=settings.upstream_timeout_s,
        transport=_transport(settings, endpoints, agent, base_url, pool),
        pool=pool,
        agent=agent,
        agent_pool=agent_pool,
        dialect=settings.upstream_dialect,
        address=address,
        observer=telemetry.observer,
        trace=telemetry.trace,
    )


def _transport(
    settings: Settings,
    endpoints: EndpointFactory,
    agent: Any,
    base_url: str,
    pool: ConnectionPool,
) -> Transport:
    size = settings.max_answer_bytes
    if "client" not in settings.fast_paths:
        # 0.3 MB that the fast client does without.
        from abproxy.upstream.treq_client import (  # noqa: PLC0415
            TreqClient,
            make_treq,
        )

        http = make_treq(agent)
        return TreqClient(
            http=http,
            base_url=base_url,
            max_answer_bytes=size,
            generations=pool.generations,
        ).send
    return FastClient(
        base_url=base_url,
        endpoint=endpoints.endpointForURI(uri_of(base_url.encode())),
        pool=pool,
        max_answer_bytes=size,
        write=write_for(settings),
    ).send
