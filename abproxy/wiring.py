"""
How the house is put together: the only module that knows every room.

Read it from top to bottom.  Each room gets the ones behind it as arguments.
"""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any

from attrs import asdict, frozen
from treq.client import HTTPClient
from twisted.internet.defer import Deferred, gatherResults, maybeDeferred
from twisted.web.client import HTTPConnectionPool
from twisted.web.iweb import IAgent

from abproxy.batching.admission import Admission
from abproxy.batching.batch import by_length
from abproxy.batching.collector import BatchCollector
from abproxy.batching.concurrency import AdaptiveLimit, Budget, FixedLimit, Limit
from abproxy.chosen import (
    credentials_for,
    patience_for,
    policy_for,
    slots_for,
)
from abproxy.dialects.routes import may_be_batched
from abproxy.http.messages import Send, UpstreamRequest
from abproxy.limits import limits_for
from abproxy.model_child import ModelChild, make_child
from abproxy.reloading import Reloading
from abproxy.service import Listening, ProxyService
from abproxy.settings import Settings
from abproxy.signals import Signals
from abproxy.telemetry.gauges import Gauges
from abproxy.telemetry.setup import (
    Telemetry,
    limits_in_force,
    list_settings,
    make_telemetry,
)
from abproxy.telemetry.status import Status
from abproxy.tuning import Write, write_later, write_now
from abproxy.upstream.agent import make_agent, make_pool, make_treq
from abproxy.upstream.client import TreqUpstream
from abproxy.upstream.discovery import Discovery, ServerInfo
from abproxy.upstream.fast.client import FastUpstream, is_plain, make_endpoint
from abproxy.upstream.fast.connection import ConnectionPool
from abproxy.upstream.health import Health, HealthCheck
from abproxy.upstream.tokens import TokenCounter
from abproxy.web.admin import HealthPages, Operations, Pages, own_pages
from abproxy.web.app import ProxyApp, refusal
from abproxy.web.express import FastPath
from abproxy.web.files import room_for
from abproxy.web.listen import Listener, make_listener
from abproxy.web.rate_limit import RateLimiter
from abproxy.web.relay import Relay
from abproxy.web.site import ProxySite, ServerLimits
from abproxy_model.files import require

__all__ = ["describe_upstream", "wire"]


@frozen(kw_only=True)
class _Way:
    """The way to the upstream."""

    pool: HTTPConnectionPool
    idle: ConnectionPool
    agent: IAgent
    http: HTTPClient
    model: ModelChild | None
    base_url: str
    condition: Health

    def close_idle(self) -> Deferred[Any]:
        """Close the connections that nobody uses; fires when they are closed."""
        pool = maybeDeferred(self.pool.closeCachedConnections)
        return gatherResults([pool, self.idle.close()])


def wire(
    settings: Settings,
    reactor: Any,
    read: Callable[[], Settings] | None = None,
    listeners: Sequence[Listener] = (),
) -> ProxyService:
    """
    Put all rooms together: upstream, batching, door, life.

    Args:
        settings: what the operator chose.
        reactor: clock, network and processes.
        read: reads the settings again; without it they stay as they are.
        listeners: where clients and operators come in, if that is open already.

    Raises:
        SettingsError: a port or a file cannot be had.
        ModelUnavailable: the embedded model is not installed.
    """
    if settings.embedded:
        require(settings.embedded_model)
    with ExitStack() as undo:
        listeners = listeners or _listeners(settings, reactor, undo)
        service = _furnish(settings, reactor, read, listeners)
        undo.pop_all()
    return service


def _listeners(settings: Settings, reactor: Any, undo: ExitStack) -> list[Listener]:
    listeners: list[Listener] = []
    for port in filter(None, (settings.port, settings.operations_port)):
        listener = make_listener(reactor, settings.ip, port)
        undo.callback(listener.close)
        listeners.append(listener)
    return listeners


def _furnish(
    settings: Settings,
    reactor: Any,
    read: Callable[[], Settings] | None,
    listeners: Sequence[Listener],
) -> ProxyService:
    telemetry = make_telemetry(settings, reactor)
    way = _way_upstream(settings, reactor)
    discovery = _discovery(settings, reactor, way)
    collector = _batching(settings, reactor, discovery, telemetry)
    app = _app(settings, reactor, way, collector, telemetry)
    gates = [
        Listening(listener=listener, site=_site(settings, reactor, app))
        for listener in listeners
    ]
    reloading = Reloading(
        settings=settings,
        read=read or (lambda: settings),
        app=app,
        collector=collector,
        facts=lambda: discovery.facts,
        make_limit=lambda chosen: _limit(chosen, reactor, discovery.facts),
    )
    discovery.learned = reloading.learn
    sites = [gate.site for gate in gates]
    status = Status(
        recorder=telemetry.recorder,
        collector=collector,
        gauges=_gauges(telemetry, way, collector, sites),
        upstream=lambda: describe_upstream(
            way.base_url, way.condition, discovery.facts
        ),
        settings=lambda: list_settings(reloading.settings),
        limits=lambda: limits_in_force(
            reloading.settings, collector.caps.items, discovery.facts.max_batch_inputs
        ),
    )
    health = _health_pages(settings, reactor, discovery, collector, sites)
    own = own_pages(telemetry.recorder.metrics.write, status.document)
    for site in sites:
        site.operations = Operations(pages=health)
    # Only operators see the rest, where they have a port of their own.
    sites[-1].operations = Operations(pages=health | own)
    return ProxyService(
        reactor=reactor,
        gate=gates[0],
        private_gate=gates[1] if len(gates) > 1 else None,
        signals=Signals(reactor),
        reload=reloading.reload,
        reopen_logs=telemetry.reopen,
        stop_telemetry=telemetry.stop,
        report=status.report,
        collector=collector,
        discovery=discovery,
        close_idle=way.close_idle,
        model=way.model,
        upstream_url=way.base_url,
        drain_timeout_s=settings.drain_timeout_s,
    )


def _way_upstream(settings: Settings, reactor: Any) -> _Way:
    budget = limits_for(settings, ServerInfo()).budget
    pool = make_pool(reactor, max_connections=budget)
    agent = make_agent(reactor, pool, settings.connect_timeout_s)
    http = make_treq(agent)
    model = None
    if settings.embedded:
        model = make_child(reactor, http, settings.embedded_model)
    base_url = model.url if model else settings.upstream_url
    return _Way(
        pool=pool,
        idle=ConnectionPool(reactor, budget),
        agent=agent,
        http=http,
        model=model,
        base_url=base_url,
        condition=Health(clock=reactor),
    )


def _discovery(settings: Settings, reactor: Any, way: _Way) -> Discovery:
    return Discovery(
        send=way.condition.following(_send(settings, reactor, way)),
        credentials=credentials_for(settings),
        clock=reactor,
    )


def _send(settings: Settings, reactor: Any, way: _Way) -> Send:
    about: dict[str, Any] = {
        "base_url": way.base_url,
        "clock": reactor,
        "timeout_s": settings.upstream_timeout_s,
        "max_answer_bytes": settings.max_answer_bytes,
        "forget_idle": way.close_idle,
    }
    if "client" not in settings.fast_paths or not is_plain(way.base_url):
        return TreqUpstream(http=way.http, **about).send
    return FastUpstream(
        endpoint=make_endpoint(reactor, way.base_url, settings.connect_timeout_s),
        idle=way.idle,
        write=_write(settings),
        **about,
    ).send


def _write(settings: Settings) -> Write:
    return write_now if "write" in settings.fast_paths else write_later


def _batching(
    settings: Settings, reactor: Any, discovery: Discovery, telemetry: Telemetry
) -> BatchCollector:
    limits = limits_for(settings, ServerInfo())
    # A question about tokens is no request for a batch, and not counted as one.
    counter = TokenCounter(send=discovery.watched, facts=lambda: discovery.facts)
    return BatchCollector(
        clock=reactor,
        send=telemetry.following(discovery.watched),
        caps=limits.caps,
        budget=Budget(
            limit=_limit(settings, reactor, ServerInfo()),
            slots=slots_for(settings),
        ),
        room=Admission(
            clock=reactor,
            max_items=settings.max_waiting_inputs,
            max_size=settings.max_waiting_bytes,
            max_items_of_one=settings.max_waiting_inputs_of_one,
        ),
        max_wait_s=settings.max_wait_ms / 1000,
        splits=settings.oversize == "split",
        packs=settings.packing,
        is_alive=discovery.is_alive,
        count=counter.count if settings.usage == "exact" else by_length,
        call_timeout_s=settings.call_timeout_s,
        patience=patience_for(settings),
        observer=telemetry.recorder,
    )


def _limit(settings: Settings, reactor: Any, facts: ServerInfo) -> Limit:
    limits = limits_for(settings, facts)
    batch = limits.caps.items
    if settings.budget is not None:
        return FixedLimit(ceiling=limits.budget, batch=batch)
    return AdaptiveLimit(clock=reactor, ceiling=limits.budget, batch=batch)


def _app(
    settings: Settings,
    reactor: Any,
    way: _Way,
    collector: BatchCollector,
    telemetry: Telemetry,
) -> ProxyApp:
    relay = Relay(
        agent=way.agent,
        base_url=way.base_url,
        clock=reactor,
        add_headers=telemetry.relay_headers,
        timeout_s=settings.upstream_timeout_s,
        connect_patience_s=settings.connect_patience_s,
    )
    return ProxyApp(
        policy=policy_for(settings, ServerInfo()),
        rate_limiter=RateLimiter(clock=reactor),
        collector=collector,
        relay=relay,
        observer=telemetry.observer,
    )


def _site(settings: Settings, reactor: Any, app: ProxyApp) -> ProxySite:
    limits = ServerLimits(
        max_body_bytes=settings.max_body_bytes,
        max_connections=room_for(settings.max_connections),
        request_timeout_s=settings.request_timeout_s,
    )
    site = ProxySite(
        app.klein.resource(),
        is_batched=may_be_batched,
        refusal=refusal,
        limits=limits,
        reactor=reactor,
    )
    site.observer = app.observer
    if "server" in settings.fast_paths:
        site.open_express(FastPath(door=app, write=_write(settings)))
    return site


def _gauges(
    telemetry: Telemetry,
    way: _Way,
    collector: BatchCollector,
    sites: Sequence[ProxySite],
) -> Gauges:
    recorder = telemetry.recorder
    gauges = Gauges(
        recorder=recorder,
        collector=collector,
        upstream_state=lambda: way.condition.state,
        connections=lambda: sum(len(site.channels) for site in sites),
        open_requests=lambda: sum(len(site.requests) for site in sites),
        is_draining=lambda: sites[0].is_draining,
    )
    recorder.metrics.registry.register(gauges)
    return gauges


def describe_upstream(url: str, health: Health, facts: ServerInfo) -> dict[str, Any]:
    """Return what the status says of the upstream."""
    return {
        "url": url,
        "state": health.state.value,
        "why": health.why,
        "since": health.since,
        **asdict(facts),
    }


def _health_pages(
    settings: Settings,
    reactor: Any,
    discovery: Discovery,
    collector: BatchCollector,
    sites: Sequence[ProxySite],
) -> Pages:
    headers = credentials_for(settings).on(())
    checks = {
        path: HealthCheck(
            question=UpstreamRequest(
                method=b"GET", path=path, headers=headers, body=b""
            ),
            send=discovery.send,
            clock=reactor,
        ).ask
        for path in (b"/health", b"/ping")
    }
    return HealthPages(
        checks=checks,
        room=collector.room,
        is_draining=lambda: sites[0].is_draining,
    ).by_path()
