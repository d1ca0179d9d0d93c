"""The server on real sockets: start, answer, drain, stop."""

import socket
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import pytest_twisted
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import deferLater
from twisted.python.failure import Failure
from twisted.python.threadpool import ThreadPool

from abproxy_model.listening import adopt, listen
from abproxy_model.model import Model
from abproxy_model.server import ModelSite, RootResource
from abproxy_model.service import ModelService

BODY = b'{"inputs":["a","b"]}'
REQUEST = (
    b"POST /embed HTTP/1.1\r\nHost: model\r\nContent-Type: application/json\r\n"
    b"Content-Length: %d\r\n\r\n%s" % (len(BODY), BODY)
)


class Wire(Protocol):
    """A connection that keeps what it receives."""

    def __init__(self) -> None:
        self.received = b""
        self.closed: Deferred[None] = Deferred()
        self.waiting: list[tuple[bytes, Deferred[None]]] = []

    def dataReceived(self, data: bytes) -> None:
        self.received += data
        for mark, waiter in self.waiting:
            if mark in self.received and not waiter.called:
                waiter.callback(None)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        del reason
        self.closed.callback(None)

    def until(self, mark: bytes) -> Deferred[None]:
        """Fires when *mark* has been received."""
        waiter: Deferred[None] = Deferred()
        self.waiting.append((mark, waiter))
        self.dataReceived(b"")
        return waiter.addTimeout(5, reactor)


async def connect(service: ModelService) -> Any:
    """Connect to a service."""
    host = service.port.getHost()
    endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", host.port)
    return await endpoint.connect(Factory.forProtocol(Wire))


def on_a_free_port(site: ModelSite) -> Any:
    """Open some port."""
    return listen(reactor, site, "0", "127.0.0.1")


@pytest.fixture
def start(
    static: Model, serve: Callable[..., Any]
) -> Iterator[Callable[..., ModelService]]:
    """Give a function that starts a service on a free port."""
    begun: list[ModelService] = []

    def begin(
        drain_timeout_s: float = 5,
        open_port: Callable[[Any], Any] = on_a_free_port,
        **how: Any,
    ) -> ModelService:
        site = ModelSite(RootResource(serve(static, **how).application))
        service = ModelService(
            reactor=reactor,
            port=open_port(site),
            site=site,
            threads=ThreadPool(1, 1),
            drain_timeout_s=drain_timeout_s,
            ready="a model",
        )
        begun.append(service)
        service.startService()
        return service

    yield begin
    for service in begun:
        # A service that a failed test left running would keep pytest from ending.
        if service.running:
            service.threads.stop()


@pytest_twisted.ensureDeferred
async def test_it_answers_on_a_socket_with_a_length(
    start: Callable[..., ModelService],
) -> None:
    """An answer is never chunked, and the connection stays open."""
    service = start()
    wire = await connect(service)
    wire.transport.write(REQUEST)
    await wire.until(b"]]")
    wire.transport.write(REQUEST)
    await wire.until(b"]]HTTP/1.1 200 OK")

    assert b"Transfer-Encoding" not in wire.received
    assert b"Server:" not in wire.received
    length = int(wire.received.split(b"Content-Length: ")[1].split(b"\r\n")[0])
    body = wire.received.split(b"\r\n\r\n")[1].split(b"HTTP/1.1")[0]
    assert len(body) == length
    await service.stopService()
    await wire.closed


@pytest_twisted.ensureDeferred
async def test_a_body_that_is_too_large_is_not_kept(
    start: Callable[..., ModelService],
) -> None:
    """More than two megabytes are refused."""
    service = start()
    wire = await connect(service)
    body = b'{"inputs":"' + b"a" * 3_000_000 + b'"}'
    head = b"POST /embed HTTP/1.1\r\nContent-Type: application/json\r\n"
    wire.transport.write(head + b"Content-Length: %d\r\n\r\n%s" % (len(body), body))

    await wire.until(b"length limit exceeded")

    assert wire.received.startswith(b"HTTP/1.1 413 ")
    await service.stopService()
    await wire.closed


@pytest_twisted.ensureDeferred
async def test_what_was_accepted_is_answered_before_the_end(
    start: Callable[..., ModelService], held: Any
) -> None:
    """Draining answers what is being computed and says that it closes."""
    service = start(run=held)
    wire = await connect(service)
    wire.transport.write(REQUEST)
    await until(lambda: held.work)

    stopped = service.stopService()
    await deferLater(reactor, 0.05)
    held.finish()
    await stopped

    await wire.closed
    assert wire.received.startswith(b"HTTP/1.1 200 OK")
    assert b"Connection: close" in wire.received
    assert wire.received.endswith(b"]]")


@pytest_twisted.ensureDeferred
async def test_idle_connections_do_not_delay_the_end(
    start: Callable[..., ModelService],
) -> None:
    """A connection that waits for nothing is closed at once."""
    service = start(drain_timeout_s=60)
    wire = await connect(service)
    await until(lambda: service.site.connections)

    await service.stopService()

    await wire.closed
    assert wire.received == b""


@pytest_twisted.ensureDeferred
async def test_a_request_on_its_way_is_answered_while_draining(
    start: Callable[..., ModelService],
) -> None:
    """A request that arrives on an open connection is the last one there."""
    service = start()
    wire = await connect(service)
    await until(lambda: service.site.connections)

    stopped = service.stopService()
    wire.transport.write(REQUEST)
    await stopped

    await wire.closed
    assert wire.received.startswith(b"HTTP/1.1 200 OK")
    assert b"Connection: close" in wire.received


@pytest_twisted.ensureDeferred
async def test_draining_ends_at_its_timeout(
    start: Callable[..., ModelService], held: Any
) -> None:
    """Work that takes too long is cut off."""
    service = start(drain_timeout_s=0.05, run=held)
    wire = await connect(service)
    wire.transport.write(REQUEST)
    await until(lambda: held.work)

    await service.stopService()

    await wire.closed
    assert wire.received == b""


@pytest_twisted.ensureDeferred
async def test_an_inherited_socket_is_served(
    start: Callable[..., ModelService],
) -> None:
    """A socket that another process opened is as good as a port."""
    listening = socket.create_server(("127.0.0.1", 0))
    service = start(open_port=lambda site: adopt(reactor, site, listening.detach()))
    wire = await connect(service)

    wire.transport.write(REQUEST)
    await wire.until(b"]]")

    assert wire.received.startswith(b"HTTP/1.1 200 OK")
    await service.stopService()
    await wire.closed


async def until(true: Callable[[], object]) -> None:
    """Let the reactor turn until something is so."""
    for _ in range(500):
        if true():
            return
        await deferLater(reactor, 0.01)
    raise AssertionError("it never came to pass")
