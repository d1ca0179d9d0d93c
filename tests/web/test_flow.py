"""Priorities, rates and deadlines, as clients see them."""

import json

import pytest
from twisted.internet.defer import succeed
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request

from support.client import Client
from support.proxy import InMemoryProxy, in_memory_proxy
from support.upstream import OpenUpstream


class Slow(Resource):
    """An upstream whose answers wait for the test."""

    isLeaf = True

    def __init__(self) -> None:
        super().__init__()
        self.waiting: list[tuple[Request, list[str]]] = []
        self.asked: list[list[str]] = []

    def render(self, request: Request) -> int:
        """Keep a request."""
        inputs = json.loads(request.content.read())["inputs"]
        inputs = inputs if isinstance(inputs, list) else [inputs]
        self.asked.append(inputs)
        self.waiting.append((request, inputs))
        return NOT_DONE_YET

    def answer(self) -> None:
        """Answer the oldest request."""
        request, inputs = self.waiting.pop(0)
        request.write(json.dumps([[len(text)] for text in inputs]).encode())
        request.finish()


def _answer_all(proxy: InMemoryProxy, upstream: Slow) -> None:
    proxy.flush()
    while upstream.waiting:
        upstream.answer()
        proxy.flush()


def _embed(proxy: InMemoryProxy, *texts: str, **headers: str) -> Client:
    client = proxy.connect()
    lines = [(name.replace("_", "-"), value) for name, value in headers.items()]
    client.embed(json.dumps({"inputs": texts}).encode(), *lines)
    return client


def test_a_bulk_call_goes_behind_all_others() -> None:
    """An import that says so lets queries pass, and is served in the end."""
    upstream = Slow()
    proxy = in_memory_proxy(upstream, slots=1)
    _embed(proxy, "busy")
    bulk = _embed(proxy, "bulk", X_Priority="Bulk")
    _embed(proxy, "query")

    _answer_all(proxy, upstream)

    assert upstream.asked == [["busy"], ["query"], ["bulk"]]
    assert bulk.answers()[0].status == 200


def test_a_bulk_call_never_starves() -> None:
    """After a while in the queue it is as good as any."""
    upstream = Slow()
    proxy = in_memory_proxy(upstream, slots=1, upstream_timeout_s=60)
    _embed(proxy, "busy")
    _embed(proxy, "bulk", X_Priority="bulk")
    proxy.clock.advance(11)
    _embed(proxy, "query")

    _answer_all(proxy, upstream)

    assert upstream.asked == [["busy"], ["bulk"], ["query"]]


def test_a_key_can_be_bulk() -> None:
    """An operator may say so for a client that does not."""
    upstream = Slow()
    proxy = in_memory_proxy(upstream, slots=1, api_keys=("k",), bulk_api_keys=("b",))
    _embed(proxy, "busy", Authorization="Bearer k")
    _embed(proxy, "bulk", Authorization="Bearer b")
    _embed(proxy, "query", Authorization="Bearer k")

    _answer_all(proxy, upstream)

    assert upstream.asked == [["busy"], ["query"], ["bulk"]]


def test_a_rate_limit_is_for_each_client() -> None:
    """A client that sends too much is told when to come back; others notice nothing."""
    upstream = Slow()
    keys = ("greedy", "modest")
    proxy = in_memory_proxy(upstream, rate_limit=2, slots=9, api_keys=keys)
    greedy = [
        _embed(proxy, *"abcdef", Authorization="Bearer greedy"),
        _embed(proxy, "g", Authorization="Bearer greedy"),
    ]
    modest = _embed(proxy, "m", Authorization="Bearer modest")
    _answer_all(proxy, upstream)

    [refusal] = greedy[1].answers()
    assert refusal.status == 429
    assert refusal.header("Retry-After") == "3"
    assert json.loads(refusal.body) == {
        "error": "more than 2 inputs in a second: slow down",
        "error_type": "Overloaded",
    }
    assert modest.answers()[0].status == 200


def test_a_client_that_slowed_down_is_served_again() -> None:
    """A debt is paid with time."""
    upstream = Slow()
    proxy = in_memory_proxy(upstream, rate_limit=2, slots=9)
    _embed(proxy, *"abcdef")
    proxy.clock.advance(2.6)

    client = _embed(proxy, "again")
    _answer_all(proxy, upstream)

    assert client.answers()[0].status == 200


def test_a_call_for_which_others_left_no_room_costs_its_client_nothing() -> None:
    """It comes back when it was told to, and is answered."""
    upstream = Slow()
    proxy = in_memory_proxy(upstream, rate_limit=2, slots=9)
    waits = iter([1.0, 0.0])
    proxy.app.shared_rate = lambda *_: succeed(next(waits))

    refused = _embed(proxy, *"abcdefgh")
    proxy.clock.advance(1.0)
    again = _embed(proxy, "a")
    _answer_all(proxy, upstream)

    assert refused.answers()[0].header("Retry-After") == "1"
    assert again.answers()[0].status == 200


def test_buckets_are_forgotten() -> None:
    """A million clients leave no memory behind."""
    upstream = Slow()
    proxy = in_memory_proxy(upstream, rate_limit=2, slots=9)
    limiter = proxy.app.rate_limiter

    for number in range(50):
        limiter.take(b"%d" % number, 1, 2)
    proxy.clock.advance(11)
    limiter.take(b"last", 1, 2)

    assert list(limiter._full_at) == [hash(b"last")]


@pytest.mark.parametrize(
    "header", ["Request_Timeout_Ms", "X_Envoy_Expected_Rq_Timeout_Ms"]
)
def test_a_callers_own_deadline_is_kept(header: str) -> None:
    """The upstream does not work on an answer that would come too late."""
    upstream = Slow()
    proxy = in_memory_proxy(upstream, slots=1)
    busy = _embed(proxy, "busy")
    late = _embed(proxy, "late", **{header: "1500"})

    proxy.clock.advance(1.5)
    _answer_all(proxy, upstream)

    [answer] = late.answers()
    assert answer.status == 504
    assert json.loads(answer.body)["error"] == "your deadline of 1500 ms has passed"
    assert upstream.asked == [["busy"]]
    assert busy.answers()[0].status == 200


@pytest.mark.parametrize("value", ["", "0", "-5", "soon", "1e3", "9" * 400])
def test_a_deadline_that_is_none_is_ignored(value: str) -> None:
    """A strange header is no reason to refuse a call, and none reaches upstream."""
    upstream = Slow()
    proxy = in_memory_proxy(upstream)
    client = _embed(proxy, "a", Request_Timeout_Ms=value)

    _answer_all(proxy, upstream)

    assert client.answers()[0].status == 200


def test_a_call_that_waits_too_long_for_its_turn_gets_an_answer() -> None:
    """Behind an upstream that stalls, no client waits for ever."""
    upstream = Slow()
    proxy = in_memory_proxy(upstream, slots=1, upstream_timeout_s=400)
    _embed(proxy, "stalls")
    late = _embed(proxy, "late")
    proxy.flush()

    proxy.clock.advance(301)
    proxy.flush()

    assert late.answers()[0].status == 504
    _answer_all(proxy, upstream)


def test_a_probe_is_never_told_to_slow_down() -> None:
    """Health checks behind one address do not use up a client's rate."""
    proxy = in_memory_proxy(OpenUpstream(), rate_limit=1)

    found = [proxy.ask("GET", "/health").status for _ in range(5)]

    assert found == [200] * 5


def test_a_call_that_finds_no_room_costs_no_rate() -> None:
    """A client that was refused once is not refused for it twice."""
    upstream = Slow()
    proxy = in_memory_proxy(upstream, rate_limit=1, slots=1, max_waiting_inputs=1)
    _embed(proxy, "busy", Authorization="Bearer a")
    _embed(proxy, "waits", Authorization="Bearer b")

    _embed(proxy, *"abcdef", Authorization="Bearer c")

    assert hash(b"Bearer c") not in proxy.app.rate_limiter._full_at
    _answer_all(proxy, upstream)
