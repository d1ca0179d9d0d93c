"""
The whole proxy: in memory, on a clock; and started, on real sockets.

Transports in memory deliver everything at once and close when they are told to.
Where that would prove nothing, a test starts the proxy on real sockets.
"""

import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from typing import Any

import msgspec
from attrs import define, evolve, field
from treq.testing import RequestTraversalAgent, StubTreq
from twisted.internet import protocol
from twisted.internet.error import ReactorNotRunning
from twisted.internet.testing import (
    MemoryReactorClock,
    StringTransportWithDisconnection,
)
from twisted.web.resource import IResource

from abproxy.batching.collector import BatchCollector
from abproxy.service.lifetime import DEFAULT_PROCESS, ProcessContext
from abproxy.service.proxy import ProxyService
from abproxy.settings.settings import FAST_PATHS, Settings
from abproxy.upstream.identity import NO_IDENTITY
from abproxy.upstream.server_info import ServerInfo
from abproxy.upstream.treq_client import TreqClient
from abproxy.web.admin import Operations
from abproxy.web.models import Models
from abproxy.web.server import ProxySite
from abproxy.wiring import wire
from bench.breakable import Breakable, Traits
from support.client import (
    LOCALHOST,
    Answer,
    ByteClient,
    Caller,
    Client,
    connect,
    the_reactor,
    together,
    until,
)
from support.upstream import ByteServer, OpenUpstream, RecordingUpstream

START = 1_700_000_000.0
"""The time at the start of each test: 14 November 2023, 22:13:20 UTC."""


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
class InMemoryProxy:
    """The proxy as `wire` puts it together, but not started."""

    clock: Reactor
    service: ProxyService
    upstream: Any
    """What batches are sent to: a RecordingUpstream, or treq's way to a resource."""

    agent: RequestTraversalAgent
    """What relayed requests are sent with."""

    site: ProxySite
    """Where clients connect."""

    transport: Any = None
    """What leads to a real upstream, which *upstream* stands for."""

    clients: list[Client] = field(factory=list)

    @property
    def private(self) -> "InMemoryProxy":
        """The same proxy, but clients connect to the operators' port."""
        listening: Any = self.service.private
        return evolve(self, site=listening.site, clients=[])

    @property
    def inference_server(self) -> Any:
        """The upstream, as the proxy sees it."""
        return inference_server(self.service)

    @property
    def collector(self) -> BatchCollector:
        """What waits and is in flight."""
        return collector_of(self.service)

    @property
    def telemetry(self) -> Any:
        """All observers."""
        stop: Any = self.service.stop_telemetry
        return stop.__self__

    @property
    def recorder(self) -> Any:
        """What counts and measures."""
        return self.telemetry.recorder

    @property
    def status(self) -> Any:
        """What the pages show."""
        return self.model.status

    @property
    def configuration(self) -> Any:
        """What applies settings."""
        reloading: Any = self.service.reload
        return reloading.__self__

    @property
    def app(self) -> Any:
        """The app that answers clients."""
        return self.configuration.app

    @property
    def model(self) -> Any:
        """The only model."""
        return model_of(self.service)

    @property
    def served(self) -> Any:
        """The only model, as requests reach it."""
        return self.app.policy.models.default

    def serve(self, **others: Any) -> None:
        """Let requests reach the only model in another way."""
        models = Models(default=evolve(self.served, **others))
        self.app.policy = evolve(self.app.policy, models=models)

    def connect(self, site: ProxySite | None = None, address: Any = None) -> Client:
        """Open a connection from an *address*, perhaps to another *site*."""
        channel: Any = (site or self.site).buildProtocol(None)
        transport = StringTransportWithDisconnection(peerAddress=address)
        transport.protocol = channel
        channel.makeConnection(transport)
        client = Client(transport, channel, self.clock)
        self.clients.append(client)
        return client

    def flush(self) -> None:
        """Let the bytes travel between the proxy and a resource."""
        for _ in range(4):
            self.agent.flush()
            if isinstance(self.upstream, StubTreq):
                self.upstream.flush()

    def be_patient(self, client: Client) -> None:
        """Let up to 9 seconds pass until *client* is answered."""
        for _ in range(9):
            if not client.transport.value():
                self.clock.advance(1)
                self.flush()

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
        self.flush()
        self.be_patient(client)
        [answer] = client.answers(method)
        client.leave()
        self.clients.remove(client)
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
        self.collector.stop()
        assert not self.clock.getDelayedCalls()


APART: Mapping[str, Any] = {"dedupe": False}
"""Equal texts are asked for each by itself: most tests send the same ones."""

SMALL = {
    "budget": 512,
    "max_batch_calls": 32,
    "max_batch_inputs": 32,
    "max_body_bytes": 4_000_000,
    "max_connections": 100,
    "max_wait_ms": 0,
    "max_waiting_inputs": 1000,
    "slots": 2,
    "upstream_url": "http://upstream",
    "upstream_timeout_s": 10,
}
"""Settings of a proxy in front of a resource: limits that a test can reach."""


def in_memory_proxy(
    resource: IResource,
    *,
    is_fast: bool = True,
    has_pages: bool = True,
    task: str | None = None,
    **settings: Any,
) -> InMemoryProxy:
    """
    Make a proxy in front of a *resource*.

    Args:
        resource: what answers batches and relayed requests.
        is_fast: whether calls take the fast path.
        has_pages: whether it answers `/health`, `/metrics` and the like itself.
        task: what the model is for, as the upstream would report it.
        settings: what is to differ from SMALL.
    """
    fast_paths = without() if is_fast else without("server")
    chosen = Settings(
        **{"port": "0", **APART, **SMALL, "fast_paths": fast_paths, **settings}
    )
    ports = filter(None, [chosen.port, chosen.operations_port])
    process = ProcessContext(listeners=[_Unopened() for _ in ports])
    proxy = _wire(chosen, resource, process)
    proxy.recorder.cpu_s = proxy.clock.seconds
    proxy.inference_server.discovery.info = ServerInfo(task=task)
    proxy.configuration.renew_policy()
    if not has_pages:
        proxy.site.operations = Operations(pages={})
    http: Any = StubTreq(resource)
    proxy.upstream = http
    client = TreqClient(
        http=http,
        base_url=chosen.upstream_url,
        max_answer_bytes=10_000_000,
        generations=proxy.inference_server.generations,
    )
    proxy.inference_server.transport = client.send
    return proxy


@contextmanager
def wired(
    elsewhere: IResource | None = None,
    process: ProcessContext = DEFAULT_PROCESS,
    **settings: Any,
) -> Iterator[InMemoryProxy]:
    """
    Give a proxy in front of a recording upstream; it has to be at rest in the end.

    Args:
        elsewhere: where requests go that are relayed.
        process: what it has of its process.
        settings: what the operator chose.
    """
    chosen = Settings(**{"port": "0", **APART, **settings})
    proxy = _wire(chosen, elsewhere or OpenUpstream(), process)
    proxy.upstream = RecordingUpstream()
    for each in inference_servers(proxy.service):
        each.transport = proxy.upstream.send
    try:
        yield proxy
        proxy.close()
    finally:
        _close_files(proxy)


class _Unopened:
    """A port that is never listened at."""

    listen: Any = None


def inference_server(service: ProxyService) -> Any:
    """Return the upstream of a proxy, as the proxy sees it."""
    return model_of(service).upstream


def inference_servers(service: ProxyService) -> list[Any]:
    """Return each upstream of a proxy, of one or several."""
    upstream = inference_server(service)
    members = getattr(upstream, "members", None)
    return [upstream] if members is None else [each.upstream for each in members]


def model_of(service: ProxyService) -> Any:
    """Return the only model of a proxy."""
    stop: Any = service.stop_models
    [model] = stop.__self__.models
    return model


def collector_of(service: ProxyService) -> BatchCollector:
    """Return what waits and is in flight."""
    collector: BatchCollector = model_of(service).collector
    return collector


def _wire(
    settings: Settings, elsewhere: IResource, process: ProcessContext
) -> InMemoryProxy:
    clock = Reactor()
    clock.advance(START)
    service: Any = wire(settings, clock, process=process)
    servers = inference_servers(service)
    proxy = InMemoryProxy(
        clock=clock,
        service=service,
        upstream=None,
        agent=RequestTraversalAgent(elsewhere),
        site=service.site,
        transport=servers[0].transport,
    )
    proxy.model.relay.agent = proxy.agent
    for each in servers:
        each.agent = proxy.agent
        # As if the server had been asked, and had said nothing.
        each.discovery._in_doubt = False
        each.generations.settle(each.generations.source, NO_IDENTITY)
    return proxy


def _close_files(proxy: InMemoryProxy) -> None:
    """Close what `wire` has opened."""
    ports: list[Any] = [proxy.service.public, proxy.service.private]
    for port in filter(None, ports):
        port.listener.socket.close()
    access_log = proxy.telemetry.access_log
    if access_log is not None and access_log._file is not sys.stdout:
        access_log._file.close()


def without(*names: str) -> frozenset[str]:
    """Leave fast paths out, by their names."""
    return frozenset(FAST_PATHS) - set(names)


def paths_of(client: str) -> frozenset[str]:
    """Choose the client for the upstream, fast or treq."""
    return without() if client == "fast" else without("client")


@define(kw_only=True, eq=False)
class StartedProxy:
    """The proxy on real sockets, with its upstream and its callers."""

    upstream: Any
    """A Breakable or a ByteServer."""

    service: ProxyService
    callers: list[Any] = field(factory=list)

    @property
    def port(self) -> int:
        """Where the proxy listens."""
        port: Any = self.service._port
        return int(port.getHost().port)

    @property
    def operations_port(self) -> int:
        """Where it listens for operators, if that is another port."""
        port: Any = self.service._private_port
        return int(port.getHost().port)

    async def operator(self) -> Caller:
        """Connect to the operators' port."""
        return await self.caller(self.operations_port)

    async def caller(self, port: int | None = None, *, closes: bool = False) -> Caller:
        """Connect to the proxy, or to another *port*."""
        caller = await connect(port or self.port, closes=closes)
        self.callers.append(caller)
        return caller

    async def byte_client(self) -> ByteClient:
        """Connect to the proxy with a client of plain bytes."""
        creator = protocol.ClientCreator(the_reactor(), ByteClient)
        client: ByteClient = await creator.connectTCP(LOCALHOST, self.port)
        self.callers.append(client)
        return client

    async def crowd(self, count: int, port: int | None = None) -> list[Caller]:
        """Connect many callers."""
        return await together(self.caller(port) for _ in range(count))

    @property
    def is_at_rest(self) -> bool:
        """Whether every counter is back to 0."""
        collector, site = collector_of(self.service), self.service.site
        return not (
            collector.budget.items_in_flight
            or collector.budget.slots_taken
            or collector.admission.items
            or collector.admission.size
            or collector.admission.of_clients
            or collector.queue.lanes
            or site.requests
            or site.memory.held
            or self.upstream.work.inputs
        )

    async def comes_to_rest(self) -> None:
        """Wait until every counter is back to 0."""
        await until(lambda: self.is_at_rest)


@asynccontextmanager
async def started_proxy(
    traits: Traits | None = None, *, is_up: bool = True, **settings: Any
) -> AsyncIterator[StartedProxy]:
    """Start an upstream that breaks on demand and a proxy in front of it."""
    upstream = Breakable(reactor=the_reactor(), traits=traits or Traits())
    upstream.start()
    if not is_up:
        await upstream.stop()
    async with in_front_of(upstream, {"drain_timeout_s": 2.0, **settings}) as proxy:
        discovery = inference_server(proxy.service).discovery
        if is_up:
            await until(lambda: discovery.info.max_batch_inputs)
        yield proxy
    await until(lambda: not upstream.connections)


@asynccontextmanager
async def proxy_before_byte_server(**settings: Any) -> AsyncIterator[StartedProxy]:
    """Start an upstream that a test speaks for, and a proxy in front of it."""
    server = ByteServer()
    await server.start()
    async with in_front_of(server, settings) as proxy:
        await until(lambda: proxy.service._port)
        yield proxy


@asynccontextmanager
async def in_front_of(
    upstream: Any, settings: Mapping[str, Any]
) -> AsyncIterator[StartedProxy]:
    """Start the proxy in front of an *upstream*, and stop both in the end."""
    chosen = Settings(
        **{"port": "0", **APART, "upstream_url": upstream.url, **settings}
    )
    service: Any = wire(chosen, the_reactor())
    service.startService()
    proxy = StartedProxy(upstream=upstream, service=service)
    try:
        yield proxy
    finally:
        for caller in proxy.callers:
            caller.transport.abortConnection()
        await until(lambda: not any(caller.is_open for caller in proxy.callers))
        await service.stopService()
        await upstream.stop()
