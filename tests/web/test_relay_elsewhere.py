"""Relayed requests before several servers: one is chosen, and another if need be."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from attrs import define, field
from treq.testing import RequestTraversalAgent
from twisted.internet.defer import Deferred, fail
from twisted.internet.error import ConnectionLost
from twisted.internet.error import ConnectionRefusedError as Refused
from twisted.web.resource import Resource
from twisted.web.server import Request

from support.client import Answer
from support.proxy import InMemoryProxy, inference_servers, wired


class Named(Resource):
    """A server that says which one it is, also in a redirect."""

    isLeaf = True

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name

    def render(self, request: Request) -> bytes:
        """Answer anything."""
        request.setHeader("Location", f"http://{self.name}/docs/")
        return self.name.encode()


@define(eq=False)
class Way:
    """The way to one server, which may be closed."""

    agent: Any
    error: Exception | None = None
    asked: list[bytes] = field(factory=list)

    def request(self, method: bytes, url: bytes, *more: Any) -> Deferred[Any]:
        """Send a request, or fail."""
        self.asked.append(url)
        if self.error is not None:
            return fail(self.error)
        answer: Deferred[Any] = self.agent.request(method, url, *more)
        return answer


@define(eq=False)
class Several:
    """A proxy in front of two servers, a and b."""

    proxy: InMemoryProxy
    ways: dict[str, Way]

    def ask(self, method: str, path: str, body: bytes = b"") -> Answer:
        """Ask one thing."""
        client = self.proxy.connect()
        client.ask(method, path, body, ("Content-Type", "application/json"))
        for _ in range(80):
            self.flush()
            if client.transport.value():
                break
            self.proxy.clock.advance(0.1)
        [answer] = client.answers(method)
        client.leave()
        self.proxy.clients.remove(client)
        return answer

    def flush(self) -> None:
        """Let bytes travel."""
        for way in self.ways.values():
            way.agent.flush()


@contextmanager
def several() -> Iterator[Several]:
    """Give such a proxy, whose fleet stops in the end."""
    with wired(upstream_url="http://a,http://b") as proxy:
        ways = {name: Way(RequestTraversalAgent(Named(name))) for name in "ab"}
        servers = inference_servers(proxy.service)
        for upstream, way in zip(servers, ways.values(), strict=True):
            upstream.agent = way
        yield Several(proxy, ways)
        proxy.inference_server.stop()
        for sent in proxy.upstream.open:
            sent.done.cancel()


def test_relayed_requests_go_to_any_server() -> None:
    """Nothing else tells one from the other."""
    with several() as here:
        seen = {here.ask("GET", "/docs").body for _ in range(20)}

    assert seen == {b"a", b"b"}


def test_a_redirect_leads_back_from_each_server() -> None:
    """No client knows their names."""
    with several() as here:
        answers = [here.ask("GET", "/docs") for _ in range(20)]

    assert {each.header("Location") for each in answers} == {"/docs/"}


def test_what_one_server_cannot_be_sent_another_gets_at_once() -> None:
    """No request waits for a server while another one is there."""
    with several() as here:
        here.ways["a"].error = Refused()
        began_at = here.proxy.clock.seconds()

        answers = [here.ask("POST", "/docs", b"{}") for _ in range(5)]

        assert {each.body for each in answers} == {b"b"}
        assert here.proxy.clock.seconds() == began_at


def test_who_cannot_be_reached_is_asked_no_more() -> None:
    """As for batches."""
    with several() as here:
        here.ways["a"].error = Refused()

        for _ in range(20):
            here.ask("GET", "/docs")

        assert len(here.ways["a"].asked) <= 1


def test_with_all_away_patience_ends_as_with_one() -> None:
    """All of them are tried."""
    with several() as here:
        for way in here.ways.values():
            way.error = Refused()
        began_at = here.proxy.clock.seconds()

        answer = here.ask("GET", "/docs")

        assert answer.status == 502
        assert 4.9 < here.proxy.clock.seconds() - began_at < 5.2
        assert all(way.asked for way in here.ways.values())


def test_what_is_pure_is_sent_to_another_when_its_connection_breaks() -> None:
    """With its body."""
    with several() as here:
        here.ways["a"].error = ConnectionLost()

        bodies = {here.ask("POST", "/rerank", b'{"x":1}').body for _ in range(10)}

        assert bodies == {b"b"}
        assert len(here.ways["a"].asked) <= 1


def test_what_is_not_pure_is_not() -> None:
    """It may have been done."""
    with several() as here:
        for way in here.ways.values():
            way.error = ConnectionLost()

        assert here.ask("POST", "/docs", b"{}").status == 502
        assert sum(len(way.asked) for way in here.ways.values()) == 1
