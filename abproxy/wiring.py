"""
Create the proxy from its settings.

Each object gets the objects that it uses as arguments of its constructor.
"""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from attrs import evolve
from twisted.internet.defer import succeed
from twisted.internet.interfaces import IReactorTime

from abproxy.batching.account import Accounts
from abproxy.configure import (
    drain_times,
    policy_for,
    server_limits,
    write_for,
)
from abproxy.events import Observer
from abproxy.http.forwarded import TrustedProxies
from abproxy.models.model import ServedModel, make_model
from abproxy.models.serving import Serving
from abproxy.reload import Configuration
from abproxy.reuse.layers import make_shared_store
from abproxy.service.lifetime import DEFAULT_PROCESS, ProcessContext
from abproxy.service.proxy import Listening, ProxyService
from abproxy.service.signals import Signals
from abproxy.settings.models import ModelTable
from abproxy.settings.settings import Settings
from abproxy.settings.watching import KeyWatch
from abproxy.telemetry.gauges import ProcessGauges
from abproxy.telemetry.setup import Telemetry, make_telemetry, traces_endpoint
from abproxy.web.admin import (
    UPSTREAMS,
    HealthPages,
    Operations,
    Pages,
    own_pages,
)
from abproxy.web.app import ProxyApp
from abproxy.web.fast.connection import FastSite
from abproxy.web.fast.request import FastPath
from abproxy.web.listen import (
    PROXY_HEADER,
    Listener,
    is_held_by_systemd,
    make_listener,
)
from abproxy.web.memory import Memory
from abproxy.web.rate_limit import RateLimiter
from abproxy.web.server import ProxySite, ServerLimits
from abproxy.web.upstreams import UpstreamPages

if TYPE_CHECKING:
    from abproxy.upstream.embedded import ModelChild
    from abproxy.web.tls import Certificate

__all__ = ["certificate_for", "child_for", "wire", "with_header"]


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
    read = read or (lambda: settings)
    with ExitStack() as undo:
        if not process.listeners:
            listeners = _listeners(settings, reactor, undo)
            process = evolve(process, listeners=listeners)
        if is_held_by_systemd(settings.port):
            process = evolve(process, others_listen=lambda: True)
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
        has_models=settings.models is not None,
    )

    def sites() -> list[ProxySite]:
        # They are asked for when the proxy runs, and are there.
        return [port.site for port in ports]

    child = child_for(settings, reactor)
    rows = (
        make_shared_store(reactor, settings.cache_url) if settings.cache_url else None
    )
    memory = Memory(
        clock=reactor,
        observer=telemetry.observer,
        coming=lambda: sum(model.coming_bytes for model in serving.all),
    )
    process_gauges, accounts = _process_gauges(telemetry, sites), Accounts()
    drained = set(process.drained)

    def make(own: Settings, table: ModelTable | None) -> ServedModel:
        model = make_model(
            own,
            reactor,
            telemetry.of_model() if table else telemetry,
            process.turn,
            process=process_gauges,
            table=table,
            accounts=accounts,
            drained=drained,
            rows=rows,
            base_url=child.url if child else None,
        )
        model.collector.admission.collected.make_room = memory.make_room
        telemetry.show(model.name, model.recorder)
        return model

    serving = Serving(
        make=make,
        clock=reactor,
        forget=telemetry.forget,
        drained=drained,
    )
    serving.apply(settings)
    app = ProxyApp(
        policy=policy_for(settings, serving.table),
        clock=reactor,
        rate_limiter=RateLimiter(clock=reactor),
        shared_rate=rows.take if rows and settings.rate_limit_shared else None,
        observer=telemetry.observer,
    )
    configuration = Configuration(
        settings=settings,
        read=read,
        app=app,
        serving=serving,
        sites=sites,
        set_log_level=process.set_log_level,
    )
    health = HealthPages(
        checks={path: partial(serving.ask, path) for path in (b"/health", b"/ping")},
        is_full=serving.is_full,
        is_draining=lambda: sites()[0].is_draining,
    ).by_path()
    upstreams = UpstreamPages(
        keys=lambda: configuration.settings.admin_keys,
        servers=serving.list_servers,
        drain=serving.drain,
        # A supervisor has looked at all its workers before it asks.
        spares_the_last=worker_pages is None,
    )
    every = health | own_pages(telemetry.write_metrics, serving.document)
    every[UPSTREAMS] = upstreams.answer
    # With a separate port for operators, only that one has the other pages.
    public = health if settings.operations_port else every
    private_observer = app.observer
    if worker_pages is not None:
        public = worker_pages(public)
        private_observer = Observer()  # a supervisor is no client
    certificate = certificate_for(settings, reactor)
    named = [settings.port, None if worker_pages else settings.operations_port]
    listeners = [
        with_header(listener, port, lambda: app.policy.clients.proxies)
        for listener, port in zip(process.listeners, named, strict=False)
    ]
    if certificate is not None:
        listeners[0] = certificate.listener_on(listeners[0])
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
        report=serving.report,
        start_models=serving.start,
        flush=serving.flush,
        stop_models=serving.stop,
        stop_cache=rows.stop if rows else lambda: succeed(None),
        model=child,
        upstream_url=serving.servers,
        drain_times=lambda: drain_times(configuration.settings),
    )


def certificate_for(settings: Settings, clock: IReactorTime) -> "Certificate | None":
    """
    Return the certificate of the clients' port, if there is one.

    Raises:
        SettingsError: the files cannot be used.
    """
    if settings.tls_cert is None or settings.tls_key is None:
        return None
    from abproxy.web.tls import Certificate  # noqa: PLC0415  large

    return Certificate(Path(settings.tls_cert), Path(settings.tls_key), clock)


def child_for(settings: Settings, reactor: Any) -> "ModelChild | None":
    """
    Return the embedded model, if it is the upstream; it is not started yet.

    Raises:
        ModelUnavailable: it is not installed.
    """
    if not settings.embedded:
        return None
    # With treq, which asks for its health, it is 0.5 MB.
    from abproxy.upstream.embedded import make_child  # noqa: PLC0415

    return make_child(reactor, settings.embedded_model)


def with_header(
    listener: Listener, port: str | None, proxies: Callable[[], TrustedProxies]
) -> Listener:
    """Return *listener* as the setting *port* wants it: with a header, or without."""
    if port is None or not port.startswith(PROXY_HEADER):
        return listener
    from abproxy.web.proxy_header import HeaderListener  # noqa: PLC0415  rarely wanted

    return HeaderListener(listener, proxies)


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
        fast_path = FastPath(app=app, write=write_for(settings), prefix=prefix)
        return FastSite(resource, fast_path=fast_path, **about)
    return ProxySite(resource, **about)


def _process_gauges(
    telemetry: Telemetry, sites: Callable[[], Sequence[ProxySite]]
) -> ProcessGauges:
    recorder = telemetry.recorder
    gauges = ProcessGauges(
        recorder=recorder,
        connections=lambda: sum(len(site.channels) for site in sites()),
        open_requests=lambda: sum(len(site.requests) for site in sites()),
        is_draining=lambda: sites()[0].is_draining,
        memory=lambda: sites()[0].memory.figures,
    )
    recorder.metrics.registry.register(gauges)
    return gauges
