"""A client that speaks raw HTTP to the door, all in memory."""

import json
from http.client import HTTPResponse
from io import BytesIO
from typing import Any

from attrs import define, evolve, field
from treq.testing import RequestTraversalAgent, StubTreq
from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransportWithDisconnection
from twisted.python.failure import Failure
from twisted.web.resource import IResource, Resource
from twisted.web.server import NOT_DONE_YET, Request
from upstreamdoubles import make_upstream

from abproxy.batching.admission import Admission
from abproxy.batching.collector import BatchCollector
from abproxy.batching.concurrency import Budget, FixedLimit, make_slots
from abproxy.batching.part import Caps
from abproxy.configure import limits_in_force
from abproxy.dialects.routes import may_be_batched
from abproxy.http.headers import Credentials
from abproxy.http.messages import UpstreamRequest
from abproxy.settings import Settings, list_settings
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


@define(eq=False)
class Answer:
    """One parsed response."""

    status: int
    reason: str
    headers: list[tuple[str, str]]
    body: bytes

    def header(self, name: str) -> str | None:
        """The first value of a header line."""
        found = [value for key, value in self.headers if key.lower() == name.lower()]
        return found[0] if found else None

    @property
    def json(self) -> Any:
        """The body, decoded."""
        return json.loads(self.body)


class _Readable:
    def __init__(self, data: BytesIO) -> None:
        self.data = data

    def makefile(self, _mode: str) -> Any:
        return self.data


@define(eq=False)
class Client:
    """One connection to the door."""

    transport: StringTransportWithDisconnection
    channel: Any

    clock: Clock = field(factory=Clock)
    """The proxy's, if that is in memory as a whole."""

    def send(self, raw: bytes) -> None:
        """Send bytes as they are, in a turn of the reactor by themselves."""
        self.channel.dataReceived(raw)
        self.clock.advance(0)

    def ask(
        self, method: str, path: str, body: bytes = b"", *headers: tuple[str, str]
    ) -> None:
        """Send a request with a length."""
        lines = [f"{method} {path} HTTP/1.1", "Host: door"]
        lines += [f"{name}: {value}" for name, value in headers]
        if body or method in {"POST", "PUT"}:
            lines.append(f"Content-Length: {len(body)}")
        self.send("\r\n".join([*lines, "", ""]).encode() + body)

    def embed(
        self, body: bytes, *headers: tuple[str, str], path: str = "/embed"
    ) -> None:
        """Ask for embeddings."""
        self.ask("POST", path, body, ("Content-Type", "application/json"), *headers)

    def leave(self) -> None:
        """Hang up."""
        self.channel.connectionLost(Failure(ConnectionDone()))

    def answers(self, method: str = "POST") -> list[Answer]:
        """Parse everything that came back so far."""
        data = BytesIO(self.transport.value())
        found = []
        while data.tell() < len(data.getvalue()):
            response = HTTPResponse(_Readable(data), method=method)  # type: ignore[arg-type]
            data.close = lambda: None  # type: ignore[method-assign]
            response.begin()
            body = response.read()
            found.append(
                Answer(response.status, response.reason, response.getheaders(), body)
            )
        return found


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


class OpenUpstream(Resource):
    """An upstream that lets everybody in, and remembers what it was shown."""

    isLeaf = True

    def __init__(self) -> None:
        super().__init__()
        self.shown: list[str | None] = []

    def render(self, request: Request) -> bytes:
        """Answer anything."""
        self.shown.append(request.getHeader("Authorization"))
        return b"[[1]]"


@define(eq=False, slots=False)
class Upstream(Resource):
    """An upstream that keeps its requests until the test answers them."""

    isLeaf = True
    requests: list[Request] = field(factory=list)
    bodies: list[bytes] = field(factory=list)

    def __attrs_post_init__(self) -> None:
        super().__init__()

    def render(self, request: Request) -> int:
        """Take in a request."""
        self.requests.append(request)
        self.bodies.append(request.content.read())
        return NOT_DONE_YET

    def answer(self, at: int, body: bytes, status: int = 200) -> None:
        """Answer one request."""
        self.requests[at].setResponseCode(status)
        self.requests[at].setHeader(b"Content-Length", b"%d" % len(body))
        self.requests[at].write(body)
        self.requests[at].finish()
