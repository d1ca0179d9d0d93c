"""Create the supervisor and its workers from the settings."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred

from abproxy.configure import keys_for
from abproxy.http.forwarded import TrustedProxies
from abproxy.service.lifetime import DEFAULT_PROCESS, ProcessContext
from abproxy.service.signals import Signals
from abproxy.settings.settings import Settings
from abproxy.web.admin import UPSTREAMS, Operations, own_pages
from abproxy.web.listen import make_listener
from abproxy.web.relay import Relay
from abproxy.web.server import ProxySite
from abproxy.web.upstreams import UpstreamPages
from abproxy.wiring import certificate_for, child_for, with_header
from abproxy.workers.admin import SupervisorApp
from abproxy.workers.aggregate import PROBE_S, Aggregator
from abproxy.workers.ipc import (
    agent_by_name,
    agent_in_folder,
    make_send,
    new_folder_name,
)
from abproxy.workers.process import WorkerPool, WorkerProcess
from abproxy.workers.shares import share_of, warn_of_too_little
from abproxy.workers.sockets import SharedPort, open_shared_port
from abproxy.workers.supervisor import Supervisor, check_files, own_limits

__all__ = ["wire_supervisor"]

HEALTH = (b"/health", b"/ping", b"/-/healthy", b"/-/ready")


def wire_supervisor(
    settings: Settings,
    reactor: Any,
    read: Callable[[], Settings],
    process: ProcessContext = DEFAULT_PROCESS,
) -> Supervisor:
    """
    Put supervisor and workers together; none of these is started.

    Raises:
        SettingsError: a port cannot be had, or cannot be shared, or there is no place
            for the private sockets.
        ModelUnavailable: the embedded model is not installed.
    """
    model = child_for(settings, reactor)
    warn_of_too_little(settings)
    folder = new_folder_name()
    # Each worker reads it for itself; a mistake is to be seen at once.
    certificate = certificate_for(settings, reactor)
    check_files(settings)
    shared_port = open_shared_port(reactor, settings.ip, settings.port)
    shared_port.has_tls = certificate is not None
    operations = None
    if settings.operations_port:
        operations = with_header(
            make_listener(reactor, settings.ip, settings.operations_port),
            settings.operations_port,
            lambda: TrustedProxies.of(supervisor.settings.trusted_proxies),
        )
    upstream_url = model.url if model else settings.upstream_url
    pool = _pool(share_of(settings, upstream_url), reactor, folder, shared_port)
    aggregator = _aggregator(settings, reactor, folder, pool)
    app = _app(settings, reactor, shared_port)
    supervisor = Supervisor(
        reactor=reactor,
        process=process,
        settings=settings,
        read=read,
        pool=pool,
        aggregator=aggregator,
        shared_port=shared_port,
        folder=folder,
        operations=operations,
        app=app,
        site=_site(settings, reactor, app, aggregator),
        signals=Signals(reactor),
        model=model,
        upstream_url=upstream_url,
    )
    return supervisor


def _pool(
    share: Settings, reactor: Any, folder: Path, shared_port: SharedPort
) -> WorkerPool:
    workers = [
        WorkerProcess(
            reactor=reactor,
            name=str(number),
            folder=folder,
            port_fd=shared_port.fd,
            settings=share,
        )
        for number in range(1, share.workers + 1)
    ]
    return WorkerPool(workers)


def _aggregator(
    settings: Settings, reactor: Any, folder: Path, pool: WorkerPool
) -> Aggregator:
    agent = agent_in_folder(reactor, folder)
    return Aggregator(
        pool=pool,
        send_to={
            worker.name: make_send(reactor, agent, worker.name, PROBE_S)
            for worker in pool
        },
        clock=reactor,
        settings=settings,
    )


def _app(settings: Settings, reactor: Any, shared_port: SharedPort) -> SupervisorApp:
    relay = Relay(
        agent=agent_by_name(reactor, lambda _: shared_port.endpoint(reactor)),
        base_url="http://abproxy",
        clock=reactor,
        timeout_s=settings.upstream_timeout_s,
        connect_patience_s=settings.connect_patience_s,
    )
    return SupervisorApp(keys=keys_for(settings), relay=relay)


def _site(
    settings: Settings, reactor: Any, app: SupervisorApp, aggregator: Aggregator
) -> ProxySite:
    health = dict.fromkeys(HEALTH, aggregator.best_answer)
    own = own_pages(aggregator.metrics, aggregator.status)
    own[UPSTREAMS] = UpstreamPages(
        keys=lambda: aggregator.settings.admin_keys,
        servers=lambda: Deferred.fromCoroutine(aggregator.list_servers()),
        drain=lambda *wanted: Deferred.fromCoroutine(aggregator.drain(*wanted)),
    ).answer
    return ProxySite(
        app.app.resource(),
        limits=own_limits(settings),
        reactor=reactor,
        operations=Operations(pages=health | own),
        prefix=(settings.path_prefix or "").encode(),
    )
