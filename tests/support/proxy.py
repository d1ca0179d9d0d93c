"""
The whole proxy, on a clock and without a network.

Clients speak HTTP over transports in memory; batches go to an upstream that is
told what to do, and what is relayed to a resource.
"""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import msgspec
from attrs import define, evolve, field
from treq.testing import RequestTraversalAgent, StubTreq
from twisted.internet.error import ReactorNotRunning
from twisted.internet.task import Clock
from twisted.internet.testing import (
    MemoryReactorClock,
    StringTransportWithDisconnection,
)
from twisted.web.resource import IResource, Resource

from abproxy.batching.admission import Admission
from abproxy.batching.collector import BatchCollector
from abproxy.batching.concurrency import Budget, FixedLimit, make_slots
from abproxy.batching.part import Caps
from abproxy.configure import limits_in_force
from abproxy.dialects.routes import may_be_batched
from abproxy.http.headers import Credentials
from abproxy.http.messages import UpstreamRequest
from abproxy.service import ProxyService
from abproxy.settings import FAST_PATHS, Settings, list_settings
from abproxy.telemetry.gauges import Gauges
from abproxy.telemetry.recorder import Recorder
from abproxy.telemetry.status import Status
from abproxy.upstream.agent import TreqClient
from abproxy.upstream.client import Upstream as Server
from abproxy.upstream.health import HealthCheck
from abproxy.web.admin import HealthPages, Operations, own_pages
from abproxy.web.app import Policy, ProxyApp
from abproxy.web.auth import ApiKeys, Clients
from abproxy.web.calls import CallReader
from abproxy.web.fast.connection import FastSite
from abproxy.web.fast.request import FastPath
from abproxy.web.rate_limit import RateLimiter
from abproxy.web.relay import Relay
from abproxy.web.server import ProxySite, ServerLimits
from abproxy.wiring import wire
from support.client import Answer, Client
from support.upstream import OpenUpstream, RecordingUpstream, make_upstream


@define(eq=False)
class InMemoryProxy:
    """The whole proxy in front of an upstream, without a socket."""

    clock: Clock
    site: ProxySite
    app: ProxyApp
    collector: BatchCollector
    server: Server
    upstream: StubTreq
    agent: RequestTraversalAgent
    channels: list[Client] = field(factory=list)

    private: "InMemoryProxy | None" = None
    """The same proxy at the operators' own door, if there is one."""

    def connect(self) -> Client:
        """Open a connection."""
        channel = self.site.buildProtocol(None)
        transport = StringTransportWithDisconnection()
        transport.protocol = channel
        channel.makeConnection(transport)
        client = Client(transport, channel, self.clock)
        self.channels.append(client)
        return client

    def flush(self) -> None:
        """Let the bytes travel between proxy and upstream."""
        for _ in range(4):
            self.upstream.flush()
            self.agent.flush()

    def be_patient(self, client: Client) -> None:
        """Let time pass until *client* is answered, as long as patience lasts."""
        for _ in range(9):
            if not client.transport.value():
                self.clock.advance(1)
                self.flush()

    def ask(
        self, method: str, path: str, body: bytes = b"", *headers: tuple[str, str]
    ) -> Answer:
        """Ask on a connection of its own, and take the answer."""
        client = self.connect()
        client.ask(method, path, body, *headers)
        self.flush()
        self.be_patient(client)
        [answer] = client.answers(method)
        client.leave()
        return answer


def in_memory_proxy(
    resource: IResource,
    *,
    key: str | None = None,
    api_keys: tuple[str, ...] = (),
    bulk_keys: tuple[str, ...] = (),
    rate_limit: float | None = None,
    max_batch_calls: int = 32,
    max_batch_items: int = 32,
    max_wait_s: float = 0,
    max_body_bytes: int = 4_000_000,
    max_connections: int = 100,
    max_waiting_items: int = 1000,
    timeout_s: float = 10,
    slots: int = 2,
    splits: bool = True,
    task: str | None = None,
    shows: bool = False,
    has_private_door: bool = False,
    is_fast: bool = True,
) -> InMemoryProxy:
    """
    Put the rooms together in memory, as `wire` does for real.

    With *shows* there is somebody who watches, and our own pages show it: all
    of them at the private door if there is one.
    """
    credentials = Credentials(key=key, are_for_us=bool(api_keys + bulk_keys))
    clock = Clock()
    stub = StubTreq(resource)
    agent = RequestTraversalAgent(resource)
    http: Any = stub
    client = TreqClient(
        http=http, base_url="http://upstream", max_answer_bytes=10_000_000
    )
    server = make_upstream(
        client.send, clock, credentials=credentials, timeout_s=timeout_s, agent=agent
    )
    recorder = Recorder(clock=clock, cpu_s=clock.seconds)
    collector = BatchCollector(
        clock=clock,
        send=server.send,
        caps=Caps(calls=max_batch_calls, items=max_batch_items, size=1_900_000),
        budget=Budget(limit=FixedLimit(ceiling=512, batch=32), slots=make_slots(slots)),
        admission=Admission(clock=clock, max_items=max_waiting_items, max_size=1 << 26),
        max_wait_s=max_wait_s,
        splits=splits,
        observer=recorder,
    )
    app = ProxyApp(
        policy=Policy(
            keys=ApiKeys(accepted=api_keys + bulk_keys),
            clients=Clients(bulk_keys=frozenset(bulk_keys)),
            reader=CallReader(credentials=credentials, task=task),
            inputs_per_s=rate_limit,
        ),
        rate_limiter=RateLimiter(clock=clock),
        collector=collector,
        relay=Relay(
            agent=agent,
            base_url="http://upstream",
            clock=clock,
            timeout_s=timeout_s,
            connect_patience_s=5.0,
        ),
    )
    limits = ServerLimits(
        is_batched=may_be_batched,
        max_body_bytes=max_body_bytes,
        max_connections=max_connections,
    )
    site = _site(app, limits, clock, is_fast=is_fast)
    proxy = InMemoryProxy(clock, site, app, collector, server, stub, agent)
    if has_private_door:
        proxy.private = evolve(proxy, site=_site(app, limits, clock), channels=[])
    if shows or has_private_door:
        _show(proxy, recorder)
    return proxy


def _site(
    app: ProxyApp, limits: ServerLimits, clock: Clock, *, is_fast: bool = False
) -> ProxySite:
    resource = app.klein.resource()
    about: dict[str, Any] = {
        "limits": limits,
        "reactor": clock,
    }
    if is_fast:
        return FastSite(resource, fast_path=FastPath(app=app), **about)
    return ProxySite(resource, **about)


HEALTH = (b"/health", b"/ping")


def _show(proxy: InMemoryProxy, recorder: Recorder) -> None:
    collector = proxy.collector
    doors = [door for door in (proxy, proxy.private) if door is not None]
    proxy.app.observer = recorder
    for door in doors:
        door.site.observer = recorder
    gauges = Gauges(
        recorder=recorder,
        collector=collector,
        upstream_state=lambda: proxy.server.health.state,
        connections=lambda: len(proxy.site.channels),
        open_requests=lambda: len(proxy.site.requests),
        is_draining=lambda: proxy.site.is_draining,
    )
    recorder.metrics.registry.register(gauges)
    settings = Settings()
    status = Status(
        recorder=recorder,
        collector=collector,
        gauges=gauges,
        upstream=proxy.server.describe,
        settings=lambda: list_settings(settings),
        limits=lambda: limits_in_force(settings, collector.caps.items, None),
    )
    health = HealthPages(
        checks={path: _health_check(proxy.server, path).ask for path in HEALTH},
        admission=collector.admission,
        is_draining=lambda: proxy.site.is_draining,
    ).by_path()
    own = own_pages(recorder.metrics.write, status.document)
    for door in doors:
        door.site.operations = Operations(pages=health)
    doors[-1].site.operations = Operations(pages=health | own)


def _health_check(server: Server, path: bytes) -> HealthCheck:
    headers = server.credentials.on(())
    return HealthCheck(
        question=UpstreamRequest(method=b"GET", path=path, headers=headers, body=b""),
        send=server.ask,
        clock=server.clock,
    )


START = 1_700_000_000.0
"""The moment at which every house is put up: 14 November 2023, 22:13:20 UTC."""


class Reactor(MemoryReactorClock):
    """
    Clock and network in memory; signals are heard at once.

    It runs until it is stopped, and cannot be stopped before.
    """

    def run(self) -> None:
        """Begin to run."""
        self.running = self.hasRun = True
        for hook, arguments, more in self.whenRunningHooks:
            hook(*arguments, **more)

    def stop(self) -> None:
        """Stop."""
        if not self.running:
            raise ReactorNotRunning
        super().stop()

    def callFromThread(self, callback: Callable[..., Any], *arguments: Any) -> None:  # noqa: N802
        """Call *callback*: there is but one thread."""
        callback(*arguments)


@define(kw_only=True, eq=False)
class Wired:
    """A house that is put together, but not started."""

    reactor: Reactor
    service: ProxyService
    upstream: RecordingUpstream
    relayed: RequestTraversalAgent
    transport: Any = None
    """What leads to a real upstream, which *upstream* stands for."""

    clients: list[Client] = field(factory=list)

    @property
    def telemetry(self) -> Any:
        """All observers."""
        stop: Any = self.service.stop_telemetry
        return stop.__self__

    @property
    def recorder(self) -> Any:
        """Whoever watches."""
        return self.telemetry.recorder

    @property
    def status(self) -> Any:
        """What the pages show."""
        report: Any = self.service.report
        return report.__self__

    @property
    def app(self) -> Any:
        """The app that answers clients."""
        reloading: Any = self.service.reload
        return reloading.__self__.app

    def connect(self, site: ProxySite | None = None, address: Any = None) -> Client:
        """Open a connection to the clients' door, or to another, from an *address*."""
        channel: Any = (site or self.service.site).buildProtocol(None)
        transport = StringTransportWithDisconnection(peerAddress=address)
        transport.protocol = channel
        channel.makeConnection(transport)
        client = Client(transport, channel, self.reactor)
        self.clients.append(client)
        return client

    def call(
        self, *texts: str, key: str | None = None, path: str = "/embed", **more: Any
    ) -> Client:
        """Ask for the embeddings of *texts*."""
        client = self.connect()
        headers = [("Authorization", f"Bearer {key}")] if key else []
        body = msgspec.json.encode({"inputs": texts, **more})
        client.embed(body, *headers, path=path)
        return client

    def ask(
        self, method: str, path: str, body: bytes = b"", *headers: tuple[str, str]
    ) -> Answer:
        """Ask on a connection of its own, and take the answer."""
        client = self.connect()
        client.ask(method, path, body, *headers)
        self.relayed.flush()
        [answer] = client.answers(method)
        return answer

    def page(self, path: str, key: str = "") -> Any:
        """Read a page of ours that is JSON."""
        shown = ("Authorization", f"Bearer {key}")
        return msgspec.json.decode(self.ask("GET", path, b"", shown).body)

    def figure(self, name: str, **labels: str) -> float | None:
        """Read one figure as Prometheus would; None if there is none."""
        registry = self.recorder.metrics.registry
        found: float | None = registry.get_sample_value(f"abproxy_{name}", labels)
        return found

    def answer_all(self) -> None:
        """Let the upstream answer whatever is open, and what follows."""
        while self.upstream.open:
            sent = self.upstream.open[0]
            if sent.request.body:
                sent.answer()
            else:
                sent.refuse(404)

    def close(self) -> None:
        """Let all clients leave; nothing may be left to do."""
        for client in self.clients:
            client.leave()
        self.service.collector.stop()
        assert not self.reactor.getDelayedCalls()


@contextmanager
def wired(elsewhere: Resource | None = None, **settings: Any) -> Iterator[Wired]:
    """
    Put the house together.

    Args:
        elsewhere: where requests go that are relayed.
        settings: what the operator chose.
    """
    reactor = Reactor()
    reactor.advance(START)
    chosen = Settings(**{"port": "0", **settings})
    service: Any = wire(chosen, reactor)
    upstream = RecordingUpstream()
    agent = RequestTraversalAgent(elsewhere or OpenUpstream())
    house = Wired(reactor=reactor, service=service, upstream=upstream, relayed=agent)
    house.app.relay.agent = agent
    house.transport = service.upstream.transport
    service.upstream.transport = upstream.send
    try:
        yield house
        house.close()
    finally:
        _let_go(house)


def _let_go(house: Wired) -> None:
    """Close what `wire` has opened."""
    gates: list[Any] = [house.service.public, house.service.private]
    for gate in filter(None, gates):
        gate.listener.socket.close()
    access_log = house.telemetry.access_log
    if access_log is not None and access_log._file is not sys.stdout:
        access_log._file.close()


def without(*names: str) -> frozenset[str]:
    """Leave fast paths out, by their names."""
    return frozenset(FAST_PATHS) - set(names)


def paths_of(client: str) -> frozenset[str]:
    """Choose the client for the upstream, fast or treq."""
    return without() if client == "fast" else without("client")
