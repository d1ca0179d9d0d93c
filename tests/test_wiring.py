"""How the proxy is put together, and that what is switched off is not used."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import msgspec
import pytest
from attrs import frozen
from twisted.internet.error import ConnectionDone
from twisted.internet.testing import (
    StringTransport,
    StringTransportWithDisconnection,
)
from twisted.logger import capturedLogs
from twisted.python.failure import Failure

from abproxy.events import Observer, RequestInfo
from abproxy.http.messages import UpstreamRequest
from abproxy.settings.settings import Settings
from abproxy.tuning import write_later, write_now
from abproxy.upstream.fast.connection import Connections
from abproxy.web import listen
from abproxy.web.fast.request import FastRequest
from abproxy.wiring import wire
from support.proxy import (
    InMemoryProxy,
    Reactor,
    inference_server,
    paths_of,
    wired,
    without,
)
from support.upstream import reply

PLAIN = (
    b"POST /embed HTTP/1.1\r\nHost: door\r\nContent-Type: application/json\r\n"
    b'Content-Length: 14\r\n\r\n{"inputs":"a"}'
)

CALL = msgspec.json.encode({"input": "a"})
EMBEDDINGS = (
    b'{"data":[{"embedding":[1],"index":0},{"embedding":[2],"index":1}],'
    b'"usage":{"prompt_tokens":2,"total_tokens":2}}'
)
LOADING = (
    b"HTTP/1.1 503 Service Unavailable\r\n"
    b"Connection: close\r\nContent-Length: 7\r\n\r\nloading"
)

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]"
QUESTION = UpstreamRequest(method=b"GET", path=b"/info", headers=(), body=b"")


@frozen
class Unstarted:
    """A proxy with its own client for the upstream, not started."""

    clock: Reactor
    service: Any

    def connect(self) -> Any:
        """Let it ask the upstream, and return the factory of the connection."""
        inference_server(self.service).ask(QUESTION).addErrback(lambda _: None)
        [(_, _, factory, *_)] = self.clock.tcpClients
        return factory


@contextmanager
def unstarted(url: str = "http://upstream", **settings: Any) -> Iterator[Unstarted]:
    """Put a proxy together."""
    reactor = Reactor()
    service: Any = wire(Settings(port="0", upstream_url=url, **settings), reactor)
    yield Unstarted(reactor, service)
    service.public.listener.socket.close()


def _is_ours(factory: Any) -> bool:
    """Look behind what an endpoint puts around a factory."""
    return isinstance(factory._wrappedFactory, Connections)


def test_a_client_of_our_own_speaks_to_the_upstream() -> None:
    """Unless the settings say otherwise."""
    with unstarted() as here:
        assert _is_ours(here.connect())


def test_treq_speaks_to_the_upstream_if_it_is_wanted() -> None:
    """For operators who do not trust ours."""
    with unstarted(fast_paths=paths_of("treq")) as here:
        assert not _is_ours(here.connect())


def test_treq_speaks_to_an_upstream_with_tls() -> None:
    """Ours knows nothing of it, and sends nothing in the clear."""
    with unstarted("https://upstream") as here:
        assert not _is_ours(here.connect())


@pytest.mark.parametrize("client", ["fast", "treq"])
def test_connecting_may_take_as_long_as_it_may(client: str) -> None:
    """Whichever client connects."""
    with unstarted(fast_paths=paths_of(client), connect_timeout_s=3.0) as here:
        here.connect()

        [(_, port, _, timeout_s, _)] = here.clock.tcpClients
        assert (port, timeout_s) == (80, 3.0)


@pytest.mark.parametrize(
    ("at_once", "write"), [(True, write_now), (False, write_later)]
)
def test_batches_are_written_as_answers_are(
    write: Callable[..., None], *, at_once: bool
) -> None:
    """One setting decides for both."""
    with unstarted(fast_paths=without() if at_once else without("write")) as here:
        connections = here.connect()._wrappedFactory

        assert connections.write is write


@pytest.mark.parametrize("client", ["fast", "treq"])
def test_when_a_connection_broke_idle_ones_are_closed(client: str) -> None:
    """A call that is tried again would use up its tries on one after the other."""
    with unstarted(fast_paths=paths_of(client)) as here:
        idle = StringTransport()
        one = here.connect().buildProtocol(None)
        here.clock.tcpClients.clear()
        other = here.connect().buildProtocol(None)
        one.makeConnection(idle)
        one.dataReceived(ANSWER)
        other.makeConnection(StringTransport())
        kept = not idle.disconnecting

        other.dataReceived(b"HTTP/1.1 200")
        other.connectionLost(Failure(ConnectionDone()))

        assert (kept, idle.disconnecting) == (True, True)


@pytest.mark.parametrize("client", ["fast", "treq"])
def test_idle_connections_are_closed_at_the_end(client: str) -> None:
    """Whoever has kept them; and no timer is left."""
    with unstarted(fast_paths=paths_of(client)) as here:
        end, protocol = StringTransport(), here.connect().buildProtocol(None)
        protocol.makeConnection(end)
        protocol.dataReceived(ANSWER)
        kept = not end.disconnecting
        closed: list[Any] = []

        inference_server(here.service).close_idle().addCallback(closed.append)
        told, early = end.disconnecting, list(closed)
        protocol.connectionLost(Failure(ConnectionDone()))

        assert (kept, told, early) == (True, True, [])
        assert len(closed) == 1
        assert not here.clock.getDelayedCalls()


class _Gatekeeper(Observer):
    """Notes which way a request came."""

    def __init__(self) -> None:
        self.ways: list[bool] = []

    def request_began(self, request: RequestInfo) -> None:
        """Note it."""
        self.ways.append(isinstance(request, FastRequest))


def _took_the_fast_path(**settings: Any) -> bool:
    keeper = _Gatekeeper()
    with wired(**settings) as here:
        here.service.site.observer = keeper
        client = here.connect()
        client.send(PLAIN)
        here.answer_all()
        [answer] = client.answers()
        assert answer.status == 200
    return keeper.ways == [True]


@pytest.mark.parametrize("is_fast", [True, False])
def test_calls_take_the_fast_path_unless_it_is_off(is_fast: bool) -> None:  # noqa: FBT001
    """They are answered on both."""
    chosen = without() if is_fast else without("server")

    assert _took_the_fast_path(fast_paths=chosen) is is_fast


@pytest.mark.parametrize(
    ("at_once", "write"), [(True, write_now), (False, write_later)]
)
def test_answers_are_written_as_the_operator_wants(
    at_once: bool,  # noqa: FBT001
    write: Callable[..., None],
) -> None:
    """At once, or when the reactor comes to it."""
    with wired(fast_paths=without() if at_once else without("write")) as here:
        site: Any = here.service.site

        assert site.fast_path.write is write


def test_a_question_about_tokens_is_no_request_for_a_batch() -> None:
    """With USAGE=exact each shared batch asks one; calls a request stay the truth."""
    with wired(usage="exact", max_batch_calls=2, max_wait_ms=1000.0) as here:
        here.connect().embed(CALL, path="/v1/embeddings")
        here.connect().embed(CALL, path="/v1/embeddings")
        here.upstream.open[0].done.callback(reply(200, EMBEDDINGS))

        [asked] = here.upstream.open
        asked.done.callback(reply(200, b"[[1],[1]]"))

        assert asked.request.path == b"/tokenize"
        assert here.recorder.totals().calls_per_request == 2
        assert here.figure("upstream_requests_total", outcome="200") == 1


def _statuses(here: InMemoryProxy, gate: Any, *paths: str) -> list[int]:
    clients = [here.connect(gate.site) for _ in paths]
    for client, path in zip(clients, paths, strict=True):
        client.ask("GET", path)
    here.agent.flush()
    return [client.answers("GET")[0].status for client in clients]


OURS = ("/metrics", "/-/", "/-/status.json", "/-/openapi.json")


def test_all_pages_are_at_the_clients_port_if_there_is_no_other() -> None:
    """One port is enough for most."""
    with wired() as here:
        statuses = _statuses(here, here.service.public, *OURS, "/-/healthy")

        assert statuses == [200] * 5


def test_pages_are_at_the_operators_port_if_there_is_one() -> None:
    """At the clients' there is only health; the rest is the upstream's, or nothing."""
    with wired(operations_port="0") as here:
        gate, private = here.service.public, here.service.private

        assert _statuses(here, private, *OURS, "/-/healthy") == [200] * 5
        assert _statuses(here, gate, *OURS, "/-/healthy") == [200, 404, 404, 404, 200]


def _connected(here: InMemoryProxy) -> Any:
    """Accept the one connection to the upstream; its transport."""
    [(_host, _port, factory, *_)] = here.clock.tcpClients
    transport = StringTransportWithDisconnection()
    transport.protocol = factory.buildProtocol(None)
    transport.protocol.makeConnection(transport)
    return transport


@pytest.mark.parametrize("path", ["/health", "/ping"])
def test_health_is_asked_of_the_upstream_on_the_same_path(path: str) -> None:
    """With our own key, if there is one."""
    with wired(upstream_key="key") as here:
        here.inference_server.transport = here.transport
        client = here.connect()

        client.ask("GET", path)
        upstream = _connected(here)
        upstream.protocol.dataReceived(LOADING)
        upstream.loseConnection()

        assert upstream.value().startswith(f"GET {path} HTTP/1.1\r\n".encode())
        assert b"\r\nAuthorization: Bearer key\r\n" in upstream.value()
        [answer] = client.answers("GET")
        assert (answer.status, answer.body) == (503, b"loading")


def test_health_says_at_every_port_that_the_proxy_drains() -> None:
    """It is the clients' port that closes."""
    with wired(operations_port="0") as here:
        here.service.site.drain()
        private = here.service.private

        assert _statuses(here, private, "/health") == [503]
        here.clock.advance(0)


def test_few_files_are_warned_about_once_for_both_ports(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The clients' and the operators' have the same limit."""
    monkeypatch.setattr(listen.process, "getrlimit", lambda _: (300, 300))
    monkeypatch.setattr(listen.process, "setrlimit", lambda *_: None)
    with capturedLogs() as logged, wired(operations_port="0"):
        pass
    assert [event["files"] for event in logged if "files" in event] == [300]
