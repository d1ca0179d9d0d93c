"""
Create the proxy from its settings.

Each object gets the objects that it uses as arguments of its constructor.
"""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any

from attrs import evolve
from msgspec.structs import replace
from treq.client import HTTPClient
from twisted.internet.defer import Deferred

from abproxy.batching.admission import Admission
from abproxy.batching.collector import BatchCollector
from abproxy.batching.concurrency import AdaptiveLimit, Budget, FixedLimit, Limit
from abproxy.batching.ladder import Turn
from abproxy.batching.slots import make_slots
from abproxy.configure import (
    Configuration,
    credentials_for,
    drain_times,
    limits_for,
    limits_in_force,
    policy_for,
    retry_timeouts_for,
    reuse_for,
    server_limits,
    tls_files_for,
)
from abproxy.events import Observer
from abproxy.http.messages import Response, UpstreamRequest
from abproxy.process import ChildProcess
from abproxy.reuse.layers import Layers, make_layers
from abproxy.service.lifetime import DEFAULT_PROCESS, ProcessContext
from abproxy.service.proxy import Listening, ProxyService
from abproxy.service.signals import Signals
from abproxy.settings.settings import Settings, list_settings
from abproxy.settings.watching import KeyWatch
from abproxy.telemetry.gauges import Gauges
from abproxy.telemetry.setup import Telemetry, make_telemetry, traces_endpoint
from abproxy.telemetry.status import Status
from abproxy.tuning import Write, write_later, write_now
from abproxy.upstream.agent import TreqClient, make_agent, make_treq
from abproxy.upstream.client import Transport, Upstream
from abproxy.upstream.connections import make_pool
from abproxy.upstream.discovery import ServerInfo
from abproxy.upstream.embedded import make_child
from abproxy.upstream.endpoints import EndpointFactory, uri_of
from abproxy.upstream.fast.client import FastClient
from abproxy.upstream.fast.connection import ConnectionPool
from abproxy.upstream.health import HealthCheck
from abproxy.upstream.tls import VerifyingPolicy
from abproxy.upstream.tokens import TokenCounter
from abproxy.web.admin import HealthPages, Operations, Pages, own_pages
from abproxy.web.app import ProxyApp
from abproxy.web.fast.connection import FastSite
from abproxy.web.fast.request import FastPath
from abproxy.web.listen import Listener, make_listener
from abproxy.web.memory import Memory
from abproxy.web.proxy_header import with_header
from abproxy.web.rate_limit import RateLimiter
from abproxy.web.relay import Relay
from abproxy.web.server import ProxySite, ServerLimits
from abproxy.web.tls import TlsListener, certificate_of
from abproxy_model.files import require

__all__ = ["wire"]


def wire(
    settings: Settings,
    reactor: Any,
    read: Callable[[], Settings] | None = None,
    process: ProcessContext = DEFAULT_PROCESS,
    worker_pages: Callable[[Pages], Pages] | None = None,
) -> ProxyService:
    """
    Return the proxy as a service, not started yet.

    Args:
        settings: all settings.
        reactor: clock, network and processes.
        read: reads the settings again; without it a reload changes nothing.
        process: what the service has of its process.
        worker_pages: returns the pages that a worker shows to clients; only its
            supervisor uses the second port then.

    Raises:
        SettingsError: a port or a file cannot be opened.
        ModelUnavailable: the embedded model is not installed.
    """
    if settings.embedded:
        require(settings.embedded_model)
    read = read or (lambda: settings)
    with ExitStack() as undo:
        if not process.listeners:
            listeners = _listeners(settings, reactor, undo)
            process = evolve(process, listeners=listeners)
        service = _build(settings, reactor, read, process, worker_pages)
        undo.pop_all()
    return service


def _listeners(settings: Settings, reactor: Any, undo: ExitStack) -> list[Listener]:
    listeners: list[Listener] = []
    for port in filter(None, (settings.port, settings.operations_port)):
        listener = make_listener(reactor, settings.ip, port)
        undo.callback(listener.close)
        listeners.append(listener)
    return listeners


def _build(
    settings: Settings,
    reactor: Any,
    read: Callable[[], Settings],
    process: ProcessContext,
    worker_pages: Callable[[Pages], Pages] | None,
) -> ProxyService:
    telemetry = make_telemetry(
        reactor,
        access_log=settings.access_log,
        as_json=settings.log_format == "json",
        owner=process.owner,
        traces_endpoint=traces_endpoint(
            settings.otlp_endpoint, settings.otlp_traces_endpoint
        ),
        scheme="https" if settings.has_tls else "http",
    )

    # These two are called when the proxy runs, and what they use is there.
    def learn(info: ServerInfo) -> None:
        configuration.learn(info)

    def sites() -> list[ProxySite]:
        return [port.site for port in ports]

    upstream, model = _upstream(settings, reactor, telemetry, learn)
    collector = _batching(settings, reactor, upstream, telemetry, process.turn)
    layers = make_layers(
        reuse_for(settings),
        collector,
        reactor,
        is_certain=lambda: upstream.discovery.is_certain,
        observer=telemetry.observer,
    )
    app = _app(settings, reactor, upstream, layers, telemetry)
    collected = collector.admission.collected
    memory = Memory(
        clock=reactor,
        observer=telemetry.observer,
        coming=lambda: collected.size + upstream.pool.unfinished_bytes,
    )
    collected.make_room = memory.make_room
    configuration = Configuration(
        settings=settings,
        read=read,
        app=app,
        collector=collector,
        turn=process.turn,
        layers=layers,
        info=lambda: upstream.discovery.info,
        make_limit=lambda chosen: _limit(chosen, reactor, upstream.discovery.info),
        use_credentials=upstream.use,
        sites=sites,
        set_upstream_timeout=upstream.set_timeout,
        set_log_level=process.set_log_level,
    )
    status = Status(
        recorder=telemetry.recorder,
        collector=collector,
        gauges=_gauges(telemetry, upstream, layers, sites),
        upstream=upstream.describe,
        settings=lambda: list_settings(configuration.settings),
        limits=lambda: limits_in_force(
            configuration.settings,
            collector.caps.items,
            upstream.discovery.info.max_batch_inputs,
        ),
    )
    health = _health_pages(reactor, upstream, collector, sites)
    every = health | own_pages(telemetry.recorder.metrics.write, status.document)
    # With a separate port for operators, only that one has the other pages.
    public = health if settings.operations_port else every
    private_observer = app.observer
    if worker_pages is not None:
        public = worker_pages(public)
        private_observer = Observer()  # a supervisor is no client
    certificate = certificate_of(settings.tls_cert, settings.tls_key, reactor)
    named = [settings.port, None if worker_pages else settings.operations_port]
    listeners = [
        with_header(listener, port, lambda: app.policy.clients.proxies)
        for listener, port in zip(process.listeners, named, strict=False)
    ]
    if certificate is not None:
        listeners[0] = TlsListener(listeners[0], certificate)
    shown = [(public, app.observer), (every, private_observer)]
    limits = server_limits(settings, app)
    ports = [
        Listening(
            listener=listener,
            site=_site(
                settings,
                reactor,
                app,
                Operations(pages=pages),
                observer,
                memory,
                limits,
            ),
        )
        for listener, (pages, observer) in zip(listeners, shown, strict=False)
    ]
    return ProxyService(
        reactor=reactor,
        process=process,
        public=ports[0],
        private=ports[1] if len(ports) > 1 else None,
        signals=process.signals or Signals(reactor),
        reload=configuration.reload,
        look_at_keys=KeyWatch(
            settings=lambda: configuration.settings, apply=configuration.apply
        ).look,
        certificate=certificate,
        reopen_logs=telemetry.reopen,
        stop_telemetry=telemetry.stop,
        report=status.report,
        collector=collector,
        start_upstream=upstream.start,
        stop_upstream=upstream.stop,
        stop_cache=layers.stop,
        model=model,
        upstream_url=upstream.base_url,
        drain_times=lambda: drain_times(configuration.settings),
    )


def _upstream(
    settings: Settings,
    reactor: Any,
    telemetry: Telemetry,
    on_change: Callable[[ServerInfo], None],
) -> tuple[Upstream, ChildProcess | None]:
    """Return the upstream, and its process if it is the embedded model."""
    budget = limits_for(settings, ServerInfo()).budget
    keep_s = settings.upstream_keep_alive_s
    agent_pool = make_pool(reactor, budget, keep_s)
    endpoints = EndpointFactory(
        reactor, settings.connect_timeout_s, VerifyingPolicy(tls_files_for(settings))
    )
    agent = make_agent(agent_pool, endpoints)
    http = make_treq(agent)
    model = None
    if settings.embedded:
        model = make_child(reactor, http, settings.embedded_model)
    base_url = model.url if model else settings.upstream_url
    pool = ConnectionPool(reactor, budget, keep_s)
    upstream = Upstream(
        base_url=base_url,
        credentials=credentials_for(settings),
        clock=reactor,
        timeout_s=settings.upstream_timeout_s,
        transport=_transport(settings, endpoints, http, base_url, pool),
        pool=pool,
        agent=agent,
        agent_pool=agent_pool,
        on_change=on_change,
        dialect=settings.upstream_dialect,
        observer=telemetry.observer,
        trace=telemetry.trace,
    )
    return upstream, model


def _transport(
    settings: Settings,
    endpoints: EndpointFactory,
    http: HTTPClient,
    base_url: str,
    pool: ConnectionPool,
) -> Transport:
    size = settings.max_answer_bytes
    if "client" not in settings.fast_paths:
        return TreqClient(http=http, base_url=base_url, max_answer_bytes=size).send
    return FastClient(
        base_url=base_url,
        endpoint=endpoints.endpointForURI(uri_of(base_url.encode())),
        pool=pool,
        max_answer_bytes=size,
        write=_write(settings),
    ).send


def _write(settings: Settings) -> Write:
    return write_now if "write" in settings.fast_paths else write_later


def _batching(
    settings: Settings,
    reactor: Any,
    upstream: Upstream,
    telemetry: Telemetry,
    turn: Turn,
) -> BatchCollector:
    limits = limits_for(settings, ServerInfo())
    # A request to /tokenize is not a request for a batch, nor counted as one.
    counter = TokenCounter(
        send=partial(upstream.send, is_batch=False),
        info=lambda: upstream.discovery.info,
    )
    return BatchCollector(
        clock=reactor,
        send=upstream.send,
        caps=limits.caps,
        budget=Budget(
            limit=_limit(settings, reactor, ServerInfo()),
            slots=make_slots(settings.slots, turn),
        ),
        admission=Admission(
            clock=reactor,
            max_items=settings.max_waiting_inputs,
            max_size=settings.max_waiting_bytes,
            max_items_of_one=settings.max_waiting_inputs_of_one,
        ),
        max_wait_s=settings.max_wait_ms / 1000,
        splits=settings.oversize == "split",
        packs=settings.packing,
        is_alive=upstream.discovery.is_alive,
        count=counter.count if settings.usage == "exact" else None,
        call_timeout_s=settings.call_timeout_s,
        retry_timeouts=retry_timeouts_for(settings),
        observer=telemetry.observer,
    )


def _limit(settings: Settings, reactor: Any, info: ServerInfo) -> Limit:
    limits = limits_for(settings, info)
    batch = limits.caps.items
    if settings.budget is not None:
        return FixedLimit(ceiling=limits.budget, batch=batch)
    return AdaptiveLimit(clock=reactor, ceiling=limits.budget, batch=batch)


def _app(
    settings: Settings,
    reactor: Any,
    upstream: Upstream,
    layers: Layers,
    telemetry: Telemetry,
) -> ProxyApp:
    relay = Relay(
        agent=upstream.agent,
        base_url=upstream.base_url,
        clock=reactor,
        trace=telemetry.trace_relayed,
        timeout_s=settings.upstream_timeout_s,
        connect_patience_s=settings.connect_patience_s,
        close_idle=upstream.close_idle,
    )
    return ProxyApp(
        policy=policy_for(settings, ServerInfo(), telemetry.observer),
        rate_limiter=RateLimiter(clock=reactor),
        collector=layers.collector,
        compute=layers.submit,
        shared_rate=layers.shared_rate,
        relay=relay,
        observer=telemetry.observer,
    )


def _site(  # noqa: PLR0913, PLR0917
    settings: Settings,
    reactor: Any,
    app: ProxyApp,
    operations: Operations,
    observer: Observer,
    memory: Memory,
    limits: ServerLimits,
) -> ProxySite:
    resource = app.klein.resource()
    prefix = (settings.path_prefix or "").encode()
    about: dict[str, Any] = {
        "observer": observer,
        "operations": operations,
        "limits": limits,
        "reactor": reactor,
        "clients": lambda: app.policy.clients,
        "prefix": prefix,
        "memory": memory,
    }
    if "server" in settings.fast_paths:
        fast_path = FastPath(app=app, write=_write(settings), prefix=prefix)
        return FastSite(resource, fast_path=fast_path, **about)
    return ProxySite(resource, **about)


def _gauges(
    telemetry: Telemetry,
    upstream: Upstream,
    layers: Layers,
    sites: Callable[[], Sequence[ProxySite]],
) -> Gauges:
    recorder = telemetry.recorder
    gauges = Gauges(
        recorder=recorder,
        collector=layers.collector,
        layers=layers,
        upstream_state=lambda: upstream.health.state,
        connections=lambda: sum(len(site.channels) for site in sites()),
        open_requests=lambda: sum(len(site.requests) for site in sites()),
        is_draining=lambda: sites()[0].is_draining,
        memory=lambda: sites()[0].memory.figures,
    )
    recorder.metrics.registry.register(gauges)
    return gauges


def _health_pages(
    reactor: Any,
    upstream: Upstream,
    collector: BatchCollector,
    sites: Callable[[], Sequence[ProxySite]],
) -> Pages:

    def ask(question: UpstreamRequest) -> Deferred[Response]:
        # The key may have changed since the last time.
        return upstream.ask(replace(question, headers=upstream.credentials.on(())))

    checks = {
        path: HealthCheck(
            question=UpstreamRequest(method=b"GET", path=path, headers=(), body=b""),
            send=ask,
            clock=reactor,
        ).ask
        for path in (b"/health", b"/ping")
    }
    return HealthPages(
        checks=checks,
        admission=collector.admission,
        is_draining=lambda: sites()[0].is_draining,
    ).by_path()
