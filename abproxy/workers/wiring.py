"""How the foreman is put together: read it from top to bottom."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from abproxy.chosen import keys_for
from abproxy.model_child import ModelChild, make_child
from abproxy.settings import Settings
from abproxy.signals import Signals
from abproxy.upstream.agent import make_agent, make_pool, make_treq
from abproxy.web.admin import Operations, Pages, own_pages
from abproxy.web.app import refusal
from abproxy.web.listen import make_listener
from abproxy.web.relay import Relay
from abproxy.web.site import ProxySite, ServerLimits
from abproxy.workers.asking import PROBE_S, Aggregator
from abproxy.workers.child import WorkerProcess
from abproxy.workers.crew import Log, WorkerPool
from abproxy.workers.door import ForemanDoor
from abproxy.workers.entrance import SharedPort, make_entrance
from abproxy.workers.foreman import Supervisor
from abproxy.workers.private import agent_in, agent_to, make_folder_name, make_way
from abproxy.workers.sharing import share_of, warn_of_too_little
from abproxy_model.files import require

__all__ = ["wire_foreman"]

HEALTH = (b"/health", b"/ping", b"/-/healthy", b"/-/ready")


def wire_foreman(
    settings: Settings, reactor: Any, read: Callable[[], Settings]
) -> Supervisor:
    """
    Put foreman and workers together; none of these is started.

    Raises:
        SettingsError: a port cannot be had, or cannot be shared, or there is no place
            for the private sockets.
        ModelUnavailable: the embedded model is not installed.
    """
    if settings.embedded:
        require(settings.embedded_model)
    warn_of_too_little(settings)
    folder = make_folder_name()
    entrance = make_entrance(reactor, settings.ip, settings.port)
    operations = None
    if settings.operations_port:
        operations = make_listener(reactor, settings.ip, settings.operations_port)
    model = _model(settings, reactor) if settings.embedded else None
    upstream_url = model.url if model else settings.upstream_url
    share = share_of(settings, upstream_url)
    crew = _crew(share, reactor, folder, entrance)
    door = _door(settings, reactor, entrance)
    site = _site(settings, reactor, door)
    foreman = Supervisor(
        reactor=reactor,
        settings=settings,
        read=read,
        crew=crew,
        entrance=entrance,
        folder=folder,
        operations=operations,
        door=door,
        site=site,
        signals=Signals(reactor),
        model=model,
        upstream_url=upstream_url,
    )
    asking = _asking(reactor, foreman)
    crew.gone = [asking.gone, foreman.gone]
    site.operations = Operations(pages=_pages(asking))
    return foreman


def _model(settings: Settings, reactor: Any) -> ModelChild:
    http = make_treq(make_agent(reactor, make_pool(reactor, 1), 1.0))
    return make_child(reactor, http, settings.embedded_model)


def _crew(
    share: Settings, reactor: Any, folder: Path, entrance: SharedPort
) -> WorkerPool:
    log = Log()
    workers = [
        WorkerProcess(
            reactor=reactor,
            name=str(number),
            folder=folder,
            port=entrance.number,
            settings=share,
            hears=log,
        )
        for number in range(1, share.workers + 1)
    ]
    return WorkerPool(workers)


def _door(settings: Settings, reactor: Any, entrance: SharedPort) -> ForemanDoor:
    relay = Relay(
        agent=agent_to(reactor, lambda _: entrance.way_in(reactor)),
        base_url="http://abproxy",
        clock=reactor,
        timeout_s=settings.upstream_timeout_s,
        connect_patience_s=settings.connect_patience_s,
    )
    return ForemanDoor(keys=keys_for(settings), relay=relay)


def _site(settings: Settings, reactor: Any, door: ForemanDoor) -> ProxySite:
    limits = ServerLimits(
        max_body_bytes=settings.max_body_bytes,
        max_connections=settings.max_connections,
        request_timeout_s=settings.request_timeout_s,
    )
    return ProxySite(
        door.app.resource(),
        is_batched=lambda *_: False,
        refusal=refusal,
        limits=limits,
        reactor=reactor,
    )


def _asking(reactor: Any, foreman: Supervisor) -> Aggregator:
    agent = agent_in(reactor, foreman.folder)
    return Aggregator(
        crew=foreman.crew,
        ways={
            worker.name: make_way(reactor, agent, worker.name, PROBE_S).send
            for worker in foreman.crew
        },
        clock=reactor,
        settings=lambda: foreman.settings,
    )


def _pages(asking: Aggregator) -> Pages:
    health = dict.fromkeys(HEALTH, asking.best)
    return health | own_pages(asking.figures, asking.status)
