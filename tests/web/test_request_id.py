"""Each request has an id, by which client and log know it."""

import json
import re

import pytest
from twisted.logger import capturedLogs
from twisted.web.resource import Resource
from twisted.web.server import Request

from support.client import Answer
from support.proxy import in_memory_proxy
from support.upstream import HeldUpstream, OpenUpstream

MADE = re.compile(r"[0-9a-f]{16}")
JSON = ("Content-Type", "application/json")


class Naming(Resource):
    """An upstream that keeps the ids of its requests, and has ids of its own."""

    isLeaf = True

    def __init__(self) -> None:
        super().__init__()
        self.told: list[str | None] = []

    def render(self, request: Request) -> bytes:
        self.told.append(request.getHeader("X-Request-Id"))
        request.setHeader("X-Request-Id", "the upstream's")
        return b"[[1]]"


def refused(*headers: tuple[str, str]) -> Answer:
    """Send a request that is never passed on."""
    return in_memory_proxy(OpenUpstream()).ask("TRACE", "/embed", b"", *headers)


def test_an_id_that_the_client_sent_is_kept() -> None:
    """The answer can be looked for in the log of either side."""
    answer = refused(("X-Request-Id", "abc-123/4.5~{x}"))

    assert answer.header("X-Request-Id") == "abc-123/4.5~{x}"


def test_a_request_without_an_id_gets_one() -> None:
    """Sixteen digits that no other request has had."""
    names = [str(refused().header("X-Request-Id")) for _ in range(2)]

    assert [bool(MADE.fullmatch(name)) for name in names] == [True, True]
    assert names[0] != names[1]


@pytest.mark.parametrize(
    "name",
    ["", "two words", "tab\there", "h\xe9", "del\x7f", "x" * 129],
    ids=["empty", "space", "tab", "not-ascii", "control", "long"],
)
def test_an_id_that_could_spoil_a_log_is_not_taken(name: str) -> None:
    """The request gets another."""
    proxy = in_memory_proxy(OpenUpstream())
    client = proxy.connect()

    client.send(b"TRACE /info HTTP/1.1\r\nX-Request-Id: %b\r\n\r\n" % name.encode())
    proxy.flush()

    [answer] = client.answers("GET")
    assert MADE.fullmatch(str(answer.header("X-Request-Id")))
    client.leave()


def test_an_id_as_long_as_allowed_is_kept() -> None:
    """Trace ids and the like are shorter."""
    answer = refused(("X-Request-Id", "x" * 128))

    assert answer.header("X-Request-Id") == "x" * 128


def test_of_several_ids_the_first_counts() -> None:
    """One answer carries one id."""
    answer = refused(("X-Request-Id", "first"), ("X-Request-Id", "second"))

    names = [value for name, value in answer.headers if name == "X-Request-Id"]
    assert names == ["first"]


@pytest.mark.parametrize("path", ["/embed", "/v1/embeddings", "/info"])
def test_an_error_of_ours_carries_the_id(path: str) -> None:
    """In every dialect, of a batch and of a relayed request."""
    proxy = in_memory_proxy(HeldUpstream(), upstream_timeout_s=1)

    answer = proxy.ask("POST", path, b'{"inputs":"a"}', JSON, ("X-Request-Id", "late"))

    assert (answer.status, answer.header("X-Request-Id")) == (504, "late")


@pytest.mark.parametrize(
    ("method", "path", "key", "status"),
    [
        ("GET", "/-/nobody/knows", "one", 404),
        ("POST", "/-/", "one", 405),
        ("GET", "/-/", "none of ours", 401),
    ],
)
def test_a_page_that_refuses_carries_the_id(
    method: str, path: str, key: str, status: int
) -> None:
    """As any other error of ours."""
    proxy = in_memory_proxy(OpenUpstream(), api_keys=("one",))
    shown = ("Authorization", f"Bearer {key}")

    answer = proxy.ask(method, path, b"", ("X-Request-Id", "lost"), shown)

    assert (answer.status, answer.header("X-Request-Id")) == (status, "lost")


def test_a_body_that_is_too_large_is_refused_with_the_id() -> None:
    """Though the request was never whole."""
    proxy = in_memory_proxy(HeldUpstream(), max_body_bytes=100)
    client = proxy.connect()

    client.send(
        b"POST /embed HTTP/1.1\r\nX-Request-Id: large\r\nContent-Length: 101\r\n\r\n"
    )

    [answer] = client.answers()
    assert (answer.status, answer.header("X-Request-Id")) == (413, "large")
    client.leave()


def test_a_slow_request_is_refused_with_the_id() -> None:
    """If that has arrived by then."""
    proxy = in_memory_proxy(HeldUpstream())
    client = proxy.connect()

    client.send(b"POST /embed HTTP/1.1\r\nX-Request-Id: slow\r\nHost: x\r\nX-")
    proxy.clock.pump([1] * 61)

    [answer] = client.answers()
    assert (answer.status, answer.header("X-Request-Id")) == (408, "slow")


def test_a_long_head_is_refused_with_the_id() -> None:
    """If that came before the head was too long."""
    proxy = in_memory_proxy(HeldUpstream())
    client = proxy.connect()

    client.send(b"GET / HTTP/1.1\r\nX-Request-Id: long\r\nHost: x\r\n")
    client.send(b"Cookie: " + b"x" * 70_000)

    [answer] = client.answers("GET")
    assert (answer.status, answer.header("X-Request-Id")) == (431, "long")


def test_a_connection_too_many_is_refused_with_the_id() -> None:
    """The client can find it in its own log."""
    proxy = in_memory_proxy(HeldUpstream(), max_connections=0)
    client = proxy.connect()

    client.embed(b'{"inputs":"a"}', ("X-Request-Id", "surplus"))

    [answer] = client.answers()
    assert (answer.status, answer.header("X-Request-Id")) == (429, "surplus")


def test_what_never_became_a_request_is_refused_with_an_id_too() -> None:
    """Every error of ours can be told from every other."""
    proxy = in_memory_proxy(HeldUpstream())
    client = proxy.connect()

    client.send(b"P")
    proxy.clock.pump([1] * 61)

    [answer] = client.answers()
    assert answer.status == 408
    assert MADE.fullmatch(str(answer.header("X-Request-Id")))


def test_the_id_of_the_request_before_is_not_used_again() -> None:
    """Each request of a connection has its own."""
    client = in_memory_proxy(OpenUpstream()).connect()

    client.ask("TRACE", "/info", b"", ("X-Request-Id", "first"))
    client.ask("TRACE", "/info", b"")
    client.ask("TRACE", "/info", b"", ("X-Request-Id", "third"))

    first, second, third = [
        str(answer.header("X-Request-Id")) for answer in client.answers("TRACE")
    ]
    assert (first, third) == ("first", "third")
    assert MADE.fullmatch(second)
    client.leave()


@pytest.mark.parametrize(
    ("method", "path"), [("POST", "/embed"), ("GET", "/info"), ("GET", "/health")]
)
def test_an_answer_of_the_upstreams_stays_as_it_is(method: str, path: str) -> None:
    """Its own id for a request is passed on, and ours is not put beside it."""
    upstream = Naming()
    proxy = in_memory_proxy(upstream)

    answer = proxy.ask(
        method, path, b'{"inputs":"a"}', JSON, ("X-Request-Id", "the-client's")
    )

    names = [value for name, value in answer.headers if name == "X-Request-Id"]
    assert names == ["the upstream's"]


def test_a_good_answer_gets_no_id() -> None:
    """Not even one of a shared batch."""
    proxy = in_memory_proxy(HeldUpstream(), max_batch_calls=2, max_wait_ms=1000)
    upstream = proxy.agent._rootResource
    clients = [proxy.connect(), proxy.connect()]

    clients[0].embed(b'{"inputs":"a"}', ("X-Request-Id", "a"))
    clients[1].embed(b'{"inputs":"b"}', ("X-Request-Id", "b"))
    proxy.flush()
    upstream.answer(0, b"[[1],[2]]")
    proxy.flush()

    [answer] = clients[1].answers()
    assert answer.body == b"[[2]]"
    assert answer.header("X-Request-Id") is None


def test_a_call_that_is_sent_alone_brings_its_id_to_the_upstream() -> None:
    """As the client wrote it; where there was none, none is made up."""
    upstream = Naming()
    proxy = in_memory_proxy(upstream)

    proxy.ask("POST", "/embed", b'{"inputs":"a"}', JSON, ("X-Request-Id", "a call"))
    proxy.ask("POST", "/embed", b'{"inputs":"a"}', JSON)
    proxy.ask("GET", "/info", b"", ("X-Request-Id", "a relay"))
    proxy.ask("GET", "/info")

    assert upstream.told == ["a call", None, "a relay", None]


def test_the_log_names_the_calls_of_a_batch_that_failed() -> None:
    """All of them, in one line."""
    upstream = HeldUpstream()
    proxy = in_memory_proxy(upstream, max_batch_calls=2, max_wait_ms=1000)
    clients = [proxy.connect(), proxy.connect()]

    with capturedLogs() as logged:
        clients[0].embed(b'{"inputs":"a"}', ("X-Request-Id", "one"))
        clients[1].embed(b'{"inputs":"b"}', ("X-Request-Id", "two"))
        proxy.flush()
        upstream.answer(0, b"[[1]]")
        proxy.flush()
        for at in (1, 2):
            upstream.answer(at, b"no", status=500)
            proxy.flush()

    assert [event["request_ids"] for event in logged] == ["one two"]
    assert [client.answers()[0].status for client in clients] == [500, 500]


def test_a_bug_can_be_found_in_the_log_by_the_id(
    nothing_leaked: list[object],
) -> None:
    """The traceback stands beside it."""
    proxy = in_memory_proxy(OpenUpstream(), rate_limit=9)
    proxy.app.rate_limiter = None

    with capturedLogs() as logged:
        answer = proxy.ask(
            "POST", "/embed", b'{"inputs":"a"}', JSON, ("X-Request-Id", "unlucky")
        )

    assert answer.status == 500
    assert json.loads(answer.body)["error_type"] == "Backend"
    assert answer.header("X-Request-Id") == "unlucky"
    assert [event["request_id"] for event in logged] == ["unlucky"]
    nothing_leaked.clear()
