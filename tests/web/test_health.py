"""Health: of the upstream, of this process, and whether calls may come."""

from typing import Any

import pytest
from attrs import define, field
from twisted.internet.error import ConnectionRefusedError as Refused
from twisted.web.resource import Resource
from twisted.web.server import Request

from support.client import Answer, Client
from support.proxy import InMemoryProxy, in_memory_proxy
from support.upstream import HeldUpstream

PROBES = ["/health", "/ping"]
CORS = ("Access-Control-Allow-Origin", "*")
UNHEALTHY = b'{"error":"unhealthy","error_type":"unhealthy"}'


@define(eq=False, slots=False)
class Saying(Resource):
    """An upstream that says of its health what it is told to."""

    isLeaf = True
    status: int = 200
    body: bytes = b""
    asked: list[str] = field(factory=list)
    shown: list[str | None] = field(factory=list)

    def __attrs_post_init__(self) -> None:
        super().__init__()

    def render(self, request: Request) -> bytes:
        self.asked.append(request.uri.decode())
        self.shown.append(request.getHeader("Authorization"))
        request.setResponseCode(self.status)
        request.setHeader("Content-Type", "application/json")
        request.setHeader("X-Own", "word")
        return self.body


@pytest.fixture
def upstream() -> Saying:
    """Make an upstream."""
    return Saying()


@pytest.fixture
def proxy(upstream: Saying) -> InMemoryProxy:
    """Make a proxy in front of it."""
    return in_memory_proxy(upstream)


def make_unreachable(proxy: InMemoryProxy) -> None:
    """Make every connection to the upstream fail."""

    def refuse(*_: object, **__: object) -> None:
        raise Refused

    proxy.upstream.request = refuse


def probe(proxy: InMemoryProxy, path: str = "/health") -> Client:
    """Ask, and wait for the answer somewhere else."""
    client = proxy.connect()
    client.ask("GET", path)
    return client


def only(client: Client) -> Answer:
    """Return the one answer."""
    [answer] = client.answers("GET")
    return answer


def reasons(answer: Answer) -> list[str]:
    """Return the words for why calls may not come."""
    assert answer.json["ready"] is (answer.status == 200)
    return [each["reason"] for each in answer.json["reasons"]]


# Of the upstream


@pytest.mark.parametrize("path", PROBES)
def test_a_healthy_upstream_says_so_itself(
    proxy: InMemoryProxy, upstream: Saying, path: str
) -> None:
    """Its own answer is passed on, to its own route."""
    upstream.body = b'{"fine":true}'

    answer = proxy.ask("GET", path)

    assert (answer.status, answer.body) == (200, b'{"fine":true}')
    assert answer.header("Content-Type") == "application/json"
    assert answer.header("X-Own") == "word"
    assert upstream.asked == [path]


@pytest.mark.parametrize("path", PROBES)
@pytest.mark.parametrize("status", [500, 503, 429])
def test_a_sick_upstream_says_so_itself(
    proxy: InMemoryProxy, upstream: Saying, status: int, path: str
) -> None:
    """With the words that its operators know."""
    upstream.status, upstream.body = status, UNHEALTHY

    answer = proxy.ask("GET", path)

    assert (answer.status, answer.body) == (status, UNHEALTHY)


@pytest.mark.parametrize("path", PROBES)
@pytest.mark.parametrize("status", [401, 403, 404, 405])
def test_an_upstream_without_such_a_route_is_healthy(
    proxy: InMemoryProxy, upstream: Saying, status: int, path: str
) -> None:
    """It answers, and more is not asked of it."""
    upstream.status, upstream.body = status, b"what?"

    answer = proxy.ask("GET", path)

    assert (answer.status, answer.body) == (200, b"")
    assert CORS in answer.headers


def test_an_answer_that_has_no_body_is_passed_on_as_such(
    proxy: InMemoryProxy, upstream: Saying
) -> None:
    """HTTP forbids that a 204 has a length."""
    upstream.status = 204

    answer = proxy.ask("GET", "/health")

    assert answer.status == 204
    assert answer.header("Content-Length") is None


@pytest.mark.parametrize("path", PROBES)
def test_an_upstream_that_cannot_be_reached_is_not_healthy(
    proxy: InMemoryProxy, path: str
) -> None:
    """A load balancer sends its clients elsewhere."""
    make_unreachable(proxy)

    answer = proxy.ask("GET", path)

    assert answer.status == 503
    assert answer.json["error_type"] == "Unhealthy"
    assert "cannot reach the inference server" in answer.json["error"]
    assert answer.header("Cache-Control") == "no-store"


@pytest.mark.parametrize("path", PROBES)
def test_an_upstream_that_does_not_answer_is_not_healthy(path: str) -> None:
    """Five seconds are enough for a probe, whatever a batch may take."""
    proxy = in_memory_proxy(HeldUpstream(), upstream_timeout_s=120)
    client = probe(proxy, path)
    proxy.flush()

    proxy.clock.advance(4.9)
    early = client.answers("GET")
    proxy.clock.advance(0.1)

    assert early == []
    assert only(client).status == 503
    assert only(client).json["error"] == (
        "the inference server did not answer within 5 seconds"
    )


def test_the_upstreams_key_is_shown_to_it() -> None:
    """A server that wants one for its health gets ours, not the client's."""
    upstream = Saying()
    proxy = in_memory_proxy(upstream, upstream_key="ours")

    proxy.ask("GET", "/health", b"", ("Authorization", "Bearer mine"))

    assert upstream.shown == ["Bearer ours"]


def test_a_clients_key_is_not_shown_to_the_upstream(
    proxy: InMemoryProxy, upstream: Saying
) -> None:
    """The answer is for all who ask."""
    proxy.ask("GET", "/health", b"", ("Authorization", "Bearer mine"))

    assert upstream.shown == [None]


def test_head_asks_the_same(proxy: InMemoryProxy, upstream: Saying) -> None:
    """Some probes want no body."""
    upstream.status, upstream.body = 503, UNHEALTHY

    answer = proxy.ask("HEAD", "/health")

    assert (answer.status, answer.body) == (503, b"")
    assert answer.header("Content-Length") == str(len(UNHEALTHY))


# How often it is asked


def test_the_upstream_is_asked_once_a_second_at_most(
    proxy: InMemoryProxy, upstream: Saying
) -> None:
    """However many probes there are, they do not add to its work."""
    for _ in range(10):
        proxy.ask("GET", "/health")
        proxy.clock.advance(0.3)

    assert len(upstream.asked) == 3


def test_probes_that_come_together_share_an_answer() -> None:
    """One question is under way at a time."""
    upstream = HeldUpstream()
    proxy = in_memory_proxy(upstream)

    clients = [probe(proxy) for _ in range(3)]
    proxy.flush()
    upstream.answer(0, b"fine")
    proxy.flush()

    assert [only(client).body for client in clients] == [b"fine"] * 3
    assert len(upstream.requests) == 1


def test_an_answer_is_no_longer_good_after_a_second(
    proxy: InMemoryProxy, upstream: Saying
) -> None:
    """A server that has recovered is not kept waiting."""
    upstream.status = 503
    before = proxy.ask("GET", "/health")
    upstream.status = 200
    proxy.clock.advance(0.9)
    still = proxy.ask("GET", "/health")

    proxy.clock.advance(0.1)
    after = proxy.ask("GET", "/health")

    assert [before.status, still.status, after.status] == [503, 503, 200]


def test_a_probe_that_got_no_answer_is_not_repeated_at_once(
    proxy: InMemoryProxy,
) -> None:
    """A server that is away is not called all the time."""
    make_unreachable(proxy)
    before = proxy.ask("GET", "/health")
    proxy.upstream.request = lambda *_, **__: pytest.fail("asked again")

    after = proxy.ask("GET", "/health")

    assert [before.status, after.status] == [503, 503]


def test_readiness_and_health_ask_the_same_question(
    proxy: InMemoryProxy, upstream: Saying
) -> None:
    """Both are asked by the same machines, all the time."""
    proxy.ask("GET", "/health")
    proxy.ask("GET", "/-/ready")

    assert upstream.asked == ["/health"]


def test_a_probe_that_has_left_harms_no_other() -> None:
    """The question goes on for those that still wait."""
    upstream = HeldUpstream()
    proxy = in_memory_proxy(upstream)
    gone, patient = probe(proxy), probe(proxy)
    proxy.flush()

    gone.leave()
    upstream.answer(0, b"fine")
    proxy.flush()

    assert only(patient).body == b"fine"
    assert not proxy.site.requests


def test_an_answer_that_came_too_late_for_its_probe_is_still_good() -> None:
    """For the probe that comes next."""
    upstream = HeldUpstream()
    proxy = in_memory_proxy(upstream)
    gone = probe(proxy)
    proxy.flush()
    gone.leave()
    upstream.answer(0, b"fine")
    proxy.flush()

    answer = proxy.ask("GET", "/health")

    assert answer.body == b"fine"
    assert len(upstream.requests) == 1


def test_after_a_question_that_was_lost_another_is_asked() -> None:
    """A probe never waits for one that is over."""
    upstream = HeldUpstream()
    proxy = in_memory_proxy(upstream)
    probe(proxy).leave()
    proxy.flush()
    proxy.clock.advance(5)

    proxy.clock.advance(1)
    late = probe(proxy)
    proxy.flush()
    upstream.answer(1, b"fine")
    proxy.flush()

    assert only(late).body == b"fine"


# Going to stop


@pytest.mark.parametrize("path", PROBES)
def test_a_proxy_that_drains_is_not_healthy(
    proxy: InMemoryProxy, upstream: Saying, path: str
) -> None:
    """Whatever its upstream is, no more calls should come."""
    client, busy = proxy.connect(), proxy.connect()
    busy.send(b"GET /slow HTTP/1.1\r\nContent-Length: 1\r\n\r\n")
    proxy.site.drain()

    client.ask("GET", path)

    assert only(client).status == 503
    assert only(client).json == {
        "error": "abproxy is going to stop",
        "error_type": "Unhealthy",
    }
    assert upstream.asked == []
    busy.leave()


def test_at_the_operations_port_a_proxy_that_drains_says_so(upstream: Saying) -> None:
    """It stays open while the clients' port is closing."""
    proxy = in_memory_proxy(upstream, operations_port="0")
    private: Any = proxy.private
    proxy.site.drain()
    proxy.clock.advance(0)

    health, ready = private.ask("GET", "/health"), private.ask("GET", "/-/ready")

    assert health.status == ready.status == 503
    assert reasons(ready) == ["draining"]


# Of this process


def test_a_process_that_answers_is_alive(proxy: InMemoryProxy) -> None:
    """Restarting it would not bring back an upstream."""
    make_unreachable(proxy)

    answer = proxy.ask("GET", "/-/healthy")

    assert (answer.status, answer.body) == (200, b'{"healthy":true}')


# Whether calls may come


def test_calls_may_come_when_nothing_is_wrong(proxy: InMemoryProxy) -> None:
    """There are no reasons against it."""
    answer = proxy.ask("GET", "/-/ready")

    assert (answer.status, answer.body) == (200, b'{"ready":true,"reasons":[]}')


def test_no_calls_should_come_while_the_upstream_is_away(proxy: InMemoryProxy) -> None:
    """They would wait for nothing."""
    make_unreachable(proxy)

    answer = proxy.ask("GET", "/-/ready")

    assert answer.status == 503
    assert reasons(answer) == ["unreachable"]
    [reason] = answer.json["reasons"]
    assert "cannot reach the inference server" in reason["message"]


def test_no_calls_should_come_while_the_upstream_is_sick(
    proxy: InMemoryProxy, upstream: Saying
) -> None:
    """The reason is its own, in short."""
    upstream.status, upstream.body = 503, b"sick \xff" + b"x" * 1000

    answer = proxy.ask("GET", "/-/ready")

    assert reasons(answer) == ["unhealthy"]
    [reason] = answer.json["reasons"]
    assert reason["message"].startswith("the inference server says sick \ufffdxxx")
    assert len(reason["message"]) < 250


@pytest.mark.parametrize("status", [404, 401, 429, 302])
def test_an_upstream_that_answers_anything_is_there(
    proxy: InMemoryProxy, upstream: Saying, status: int
) -> None:
    """What it thinks of a probe says nothing about calls."""
    upstream.status = status

    answer = proxy.ask("GET", "/-/ready")

    assert answer.status == 200


def test_no_calls_should_come_while_there_is_no_room() -> None:
    """They would be refused."""
    upstream = HeldUpstream()
    proxy = in_memory_proxy(upstream, slots=1, max_waiting_inputs=2)
    clients = [proxy.connect() for _ in range(2)]
    clients[0].embed(b'{"inputs":"in flight"}')
    clients[1].embed(b'{"inputs":"wait"}')
    asking = probe(proxy, "/-/ready")
    proxy.flush()

    upstream.answer(1, b"fine")
    proxy.flush()

    assert only(asking).status == 503
    assert only(asking).json["reasons"] == [
        {"reason": "full", "message": "1 inputs are waiting"}
    ]
    for client in clients:
        client.leave()


def test_all_reasons_are_told_at_once(upstream: Saying) -> None:
    """An operator who repairs one thing need not ask again for the next."""
    proxy = in_memory_proxy(upstream, max_waiting_inputs=1, max_wait_ms=60000)
    busy = proxy.connect()
    busy.embed(b'{"inputs":"a"}')
    make_unreachable(proxy)

    answer = proxy.ask("GET", "/-/ready")

    assert reasons(answer) == ["full", "unreachable"]
    busy.leave()
    proxy.clock.advance(0)


def test_a_proxy_that_drains_says_so_without_asking(upstream: Saying) -> None:
    """A server that hangs does not keep load balancers from hearing of the end."""
    proxy = in_memory_proxy(
        upstream, operations_port="0", max_waiting_inputs=1, max_wait_ms=60000
    )
    private: Any = proxy.private
    busy = proxy.connect()
    busy.embed(b'{"inputs":"a"}')
    proxy.site.drain()

    answer = private.ask("GET", "/-/ready")

    assert reasons(answer) == ["draining", "full"]
    assert upstream.asked == []
    busy.leave()
    proxy.clock.advance(0)
