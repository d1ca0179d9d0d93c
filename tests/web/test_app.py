"""What a client of the whole proxy sees."""

import json
from typing import Any

import pytest
from twisted.internet.error import ConnectionRefusedError as Refused

from support.proxy import InMemoryProxy, in_memory_proxy
from support.upstream import HeldUpstream


@pytest.fixture
def upstream() -> HeldUpstream:
    """Make an upstream."""
    return HeldUpstream()


def _batch_of_two(proxy: InMemoryProxy) -> list[Any]:
    clients = [proxy.connect(), proxy.connect()]
    clients[0].embed(b'{"inputs":["hello","world"]}')
    clients[1].embed(b'{"inputs":"bye"}')
    proxy.flush()
    return clients


def test_two_clients_share_one_request(upstream: HeldUpstream) -> None:
    """Two calls leave as one and each client gets its own rows."""
    proxy = in_memory_proxy(upstream, max_batch_calls=2, max_wait_ms=1000)

    first, second = _batch_of_two(proxy)
    upstream.answer(0, b"[[0.1],[0.20],[3e-7]]")
    proxy.flush()

    assert [json.loads(body) for body in upstream.bodies] == [
        {"inputs": ["hello", "world", "bye"]}
    ]
    assert first.answers()[0].body == b"[[0.1],[0.20]]"
    assert second.answers()[0].body == b"[[3e-7]]"
    assert first.answers()[0].header("Content-Length") == "14"


def test_a_client_that_hangs_up_is_not_sent(upstream: HeldUpstream) -> None:
    """A client that leaves while its call waits costs the upstream no work."""
    proxy = in_memory_proxy(upstream, max_batch_calls=3, max_wait_ms=1000)
    first, second = _batch_of_two(proxy)

    first.leave()
    proxy.clock.advance(1)
    proxy.flush()
    upstream.answer(0, b"[[3]]")
    proxy.flush()

    assert [json.loads(body) for body in upstream.bodies] == [{"inputs": "bye"}]
    assert second.answers()[0].body == b"[[3]]"


def test_a_bad_input_is_answered_as_if_alone(upstream: HeldUpstream) -> None:
    """The upstream's own refusal reaches the one it is meant for."""
    proxy = in_memory_proxy(upstream, max_batch_calls=2, max_wait_ms=1000)
    first, second = _batch_of_two(proxy)

    upstream.answer(0, b"a batch is bad", status=422)
    proxy.flush()
    upstream.answer(1, b"[[1],[2]]")
    proxy.flush()
    upstream.answer(2, b"bye is bad", status=422)
    proxy.flush()

    assert first.answers()[0].body == b"[[1],[2]]"
    assert second.answers()[0].status == 422
    assert second.answers()[0].body == b"bye is bad"


def test_a_comparison_is_relayed_from_where_embeddings_are_expected(
    upstream: HeldUpstream,
) -> None:
    """An upstream may do that there, and not say so."""
    body = b'{"inputs":{"source_sentence":"a","sentences":["b","c"]}}'
    proxy = in_memory_proxy(upstream, task="embedding", max_wait_ms=1000)
    client = proxy.connect()

    client.embed(body, path="/")
    proxy.flush()
    upstream.answer(0, b"[0.5,0.25]")
    proxy.flush()

    assert upstream.bodies == [body]
    assert client.answers()[0].body == b"[0.5,0.25]"


def test_a_slow_upstream_is_a_504_in_json(upstream: HeldUpstream) -> None:
    """One deadline, one clear error."""
    proxy = in_memory_proxy(upstream, upstream_timeout_s=7)
    client = proxy.connect()
    client.embed(b'{"inputs":"a"}')
    proxy.flush()

    proxy.clock.advance(7)
    proxy.flush()

    [answer] = client.answers()
    assert answer.status == 504
    assert json.loads(answer.body) == {
        "error": "the inference server did not answer within 7 seconds",
        "error_type": "Timeout",
    }


def test_a_relayed_request_has_a_deadline_too(upstream: HeldUpstream) -> None:
    """Nothing hangs for ever."""
    proxy = in_memory_proxy(upstream, upstream_timeout_s=7)
    client = proxy.connect()
    client.ask("GET", "/info")
    proxy.flush()

    proxy.clock.advance(7)
    proxy.flush()

    assert client.answers("GET")[0].status == 504


def test_no_upstream_is_a_502_in_json(upstream: HeldUpstream) -> None:
    """A refused connection says so."""
    proxy = in_memory_proxy(upstream)

    def refuse(*_: object, **__: object) -> None:
        raise Refused

    proxy.upstream.request = refuse
    client = proxy.connect()
    client.embed(b'{"inputs":"a"}')

    for _ in range(7):
        proxy.clock.advance(1)

    [answer] = client.answers()
    assert answer.status == 502
    assert json.loads(answer.body)["error_type"] == "Upstream"
    assert "cannot reach the inference server" in json.loads(answer.body)["error"]


def test_overload_is_a_429_with_a_time_to_come_back(upstream: HeldUpstream) -> None:
    """Never a 503: a published client repeats that for ever."""
    proxy = in_memory_proxy(upstream, max_waiting_inputs=1, slots=1)
    clients = [proxy.connect() for _ in range(3)]

    for client in clients:
        client.embed(b'{"inputs":"a"}')

    [answer] = clients[2].answers()
    assert answer.status == 429
    assert answer.header("Retry-After") == "1"
    assert json.loads(answer.body)["error_type"] == "Overloaded"
    for client in clients:
        client.leave()


def test_credentials_keep_calls_apart_and_are_sent_on(upstream: HeldUpstream) -> None:
    """Two keys never share a batch."""
    proxy = in_memory_proxy(upstream, max_wait_ms=1000)
    for token in ("one", "two"):
        proxy.connect().embed(b'{"inputs":"a"}', ("Authorization", f"Bearer {token}"))

    proxy.clock.advance(1)
    proxy.flush()

    assert [request.getHeader("Authorization") for request in upstream.requests] == [
        "Bearer one",
        "Bearer two",
    ]
    for client in proxy.clients:
        client.leave()


def test_our_own_key_stands_in_for_the_clients(upstream: HeldUpstream) -> None:
    """With INFERENCE_SERVICE_KEY all calls share, whatever key they showed."""
    proxy = in_memory_proxy(
        upstream, upstream_key="ours", max_batch_calls=2, max_wait_ms=1000
    )
    for token in ("one", "two"):
        proxy.connect().embed(b'{"inputs":"a"}', ("Authorization", f"Bearer {token}"))
    proxy.connect().ask("GET", "/info", b"", ("Authorization", "Bearer three"))

    proxy.flush()

    assert [request.getHeader("Authorization") for request in upstream.requests] == [
        "Bearer ours",
        "Bearer ours",
    ]
    for client in proxy.clients:
        client.leave()


@pytest.mark.parametrize(
    "header",
    [
        ("X-Request-Id", "{n}"),
        ("User-Agent", "client {n}"),
        ("Accept-Encoding", "gzip;q=0.{n}"),
        ("X-Amzn-Trace-Id", "{n}"),
        ("X-Stainless-Retry-Count", "{n}"),
        ("Connection", "keep-alive, x-{n}"),
    ],
)
def test_headers_about_the_caller_do_not_keep_calls_apart(
    upstream: HeldUpstream, header: tuple[str, str]
) -> None:
    """Real clients send something of their own with every request."""
    proxy = in_memory_proxy(upstream, max_batch_calls=2, max_wait_ms=1000)

    for number in (1, 2):
        name, value = header
        proxy.connect().embed(b'{"inputs":"a"}', (name, value.format(n=number)))
    proxy.flush()

    assert len(upstream.requests) == 1
    for client in proxy.clients:
        client.leave()


@pytest.mark.parametrize(
    "header", [("Origin", "http://{n}"), ("X-Api-Key", "{n}"), ("Cookie", "s={n}")]
)
def test_headers_that_may_change_an_answer_keep_calls_apart(
    upstream: HeldUpstream, header: tuple[str, str]
) -> None:
    """When in doubt, apart."""
    proxy = in_memory_proxy(upstream, max_wait_ms=1000)

    for number in (1, 2):
        name, value = header
        proxy.connect().embed(b'{"inputs":"a"}', (name, value.format(n=number)))
    proxy.clock.advance(1)
    proxy.flush()

    assert len(upstream.requests) == 2
    for client in proxy.clients:
        client.leave()


def test_a_page_of_our_own_shares_batches_with_all_others(
    upstream: HeldUpstream,
) -> None:
    """The browser says where it comes from, but no answer depends on that."""
    proxy = in_memory_proxy(upstream, max_batch_calls=2, max_wait_ms=1000)

    proxy.connect().embed(b'{"inputs":"a"}', ("Origin", "http://door"))
    proxy.connect().embed(b'{"inputs":"a"}')
    proxy.flush()

    assert len(upstream.requests) == 1
    for client in proxy.clients:
        client.leave()


@pytest.mark.parametrize(
    "path",
    ["/embed/", "/%65mbed", "/x/../embed", "/embed%2F", "/a%ff?x=%zz"],
)
def test_other_paths_are_relayed_as_they_are(upstream: HeldUpstream, path: str) -> None:
    """A path is not decoded, merged or redirected on its way."""
    proxy = in_memory_proxy(upstream)
    client = proxy.connect()
    client.embed(b'{"inputs":"a"}', path=path)

    proxy.flush()
    upstream.answer(0, b"not here", status=404)
    proxy.flush()

    assert upstream.requests[0].uri == path.encode()
    assert client.answers()[0].body == b"not here"


def test_an_absolute_target_means_its_path(upstream: HeldUpstream) -> None:
    """As HTTP wants it of a server that is asked like a proxy."""
    proxy = in_memory_proxy(upstream)
    proxy.connect().ask("GET", "http://door/info?x=1")

    proxy.flush()

    assert upstream.requests[0].uri == b"/info?x=1"
    proxy.clients[0].leave()


def test_a_body_over_the_limit_is_refused_at_once(upstream: HeldUpstream) -> None:
    """The answer does not wait for the rest of the bytes."""
    proxy = in_memory_proxy(upstream, max_body_bytes=100)
    client = proxy.connect()

    client.send(
        b"POST /embed HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n"
        b"Content-Length: 101\r\n\r\n"
    )
    client.send(b"x" * 50)

    [answer] = client.answers()
    assert answer.status == 413
    assert answer.header("Connection") == "close"
    assert json.loads(answer.body)["error"] == "a request may have 100 bytes at most"
    client.leave()


def test_a_chunked_body_over_the_limit_is_refused(upstream: HeldUpstream) -> None:
    """A body without a length has a limit as well."""
    proxy = in_memory_proxy(upstream, max_body_bytes=10)
    client = proxy.connect()

    client.send(
        b"POST /embed HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    )
    client.send(b"b\r\n" + b"x" * 11 + b"\r\n0\r\n\r\n")

    assert client.answers()[0].status == 413
    client.leave()


def test_a_chunked_call_is_batched(upstream: HeldUpstream) -> None:
    """How a body is framed says nothing about what is in it."""
    proxy = in_memory_proxy(upstream)
    client = proxy.connect()

    client.send(
        b"POST /embed HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n"
        b'5\r\n{"inp\r\n9\r\nuts":"a"}\r\n0\r\n\r\n'
    )
    proxy.flush()
    upstream.answer(0, b"[[1]]")
    proxy.flush()

    assert upstream.bodies == [b'{"inputs":"a"}']
    assert client.answers()[0].body == b"[[1]]"


def test_pipelined_calls_are_answered_in_order(upstream: HeldUpstream) -> None:
    """Two requests in one segment get two answers, the first one first."""
    proxy = in_memory_proxy(upstream)
    client = proxy.connect()
    one = b"POST /embed HTTP/1.1\r\nContent-Type: application/json\r\n"
    one += b'Content-Length: 14\r\n\r\n{"inputs":"a"}'

    client.send(one + one.replace(b'"a"', b'"b"'))
    proxy.flush()
    upstream.answer(0, b"[[1]]")
    proxy.flush()
    upstream.answer(1, b"[[2]]")
    proxy.flush()

    assert [answer.body for answer in client.answers()] == [b"[[1]]", b"[[2]]"]


def test_a_relayed_body_is_sent_on_while_it_arrives(upstream: HeldUpstream) -> None:
    """The upstream connection opens before the client has sent everything."""
    proxy = in_memory_proxy(upstream)
    client = proxy.connect()

    client.send(b"POST /other HTTP/1.1\r\nHost: x\r\nContent-Length: 6\r\n\r\nabc")
    proxy.flush()
    before = list(upstream.bodies)
    client.send(b"def")
    proxy.flush()
    upstream.answer(0, b"done")
    proxy.flush()

    assert before == []
    assert upstream.bodies == [b"abcdef"]
    assert client.answers()[0].body == b"done"


def test_an_early_answer_waits_for_the_rest_of_the_body(upstream: HeldUpstream) -> None:
    """The rest of a body is not taken for the next request."""
    proxy = in_memory_proxy(upstream, upstream_timeout_s=3)
    client = proxy.connect()
    client.send(b"POST /other HTTP/1.1\r\nHost: x\r\nContent-Length: 6\r\n\r\nabc")
    proxy.flush()

    proxy.clock.advance(3)
    client.send(b"def")
    client.ask("GET", "/info")
    proxy.flush()
    upstream.answer(-1, b"info")
    proxy.flush()

    assert [answer.status for answer in client.answers()] == [504, 200]


def test_a_client_that_leaves_a_relay_cancels_it(upstream: HeldUpstream) -> None:
    """The upstream does no work for an answer that no client waits for."""
    proxy = in_memory_proxy(upstream)
    client = proxy.connect()
    client.ask("GET", "/slow")
    proxy.flush()
    gone: list[object] = []
    upstream.requests[0].notifyFinish().addErrback(gone.append)

    client.leave()
    proxy.flush()

    assert len(gone) == 1
    assert not proxy.site.requests


def test_a_draining_proxy_closes_connections_after_their_answers(
    upstream: HeldUpstream,
) -> None:
    """Accepted calls are answered, and then the connection goes."""
    proxy = in_memory_proxy(upstream, max_wait_ms=60000)
    busy, idle = proxy.connect(), proxy.connect()
    busy.embed(b'{"inputs":"a"}')
    drained: list[object] = []

    proxy.site.drain().addCallback(drained.append)
    proxy.collector.flush()
    proxy.clock.advance(0)
    proxy.flush()
    early = list(drained)
    upstream.answer(0, b"[[1]]")
    proxy.flush()
    proxy.clock.advance(0)

    assert early == []
    assert busy.answers()[0].body == b"[[1]]"
    assert not idle.transport.connected
    assert not busy.transport.connected
    assert drained == [None]


def test_a_call_on_an_open_connection_is_served_while_draining(
    upstream: HeldUpstream,
) -> None:
    """A keep-alive client that did not know yet is answered, and told."""
    proxy = in_memory_proxy(upstream)
    client, other = proxy.connect(), proxy.connect()
    other.embed(b'{"inputs":"a"}')
    proxy.site.drain()
    proxy.clock.advance(0)

    client.embed(b'{"inputs":"b"}')
    proxy.flush()
    upstream.answer(0, b"[[1]]")
    upstream.answer(1, b"[[2]]")
    proxy.flush()
    proxy.clock.advance(0)

    assert client.answers()[0].body == b"[[2]]"
    assert client.answers()[0].header("Connection") == "close"


def test_calls_with_different_queries_are_sent_with_their_own(
    upstream: HeldUpstream,
) -> None:
    """A query may choose another version or deployment of the model."""
    proxy = in_memory_proxy(upstream, max_wait_ms=1000, slots=3)

    for query in ("", "?v=1", "?v=1", "?v=2"):
        proxy.connect().embed(b'{"inputs":"a"}', path=f"/embed{query}")
    proxy.clock.advance(1)
    proxy.flush()

    sent = [
        (request.uri, len(json.loads(body)["inputs"]))
        for request, body in zip(upstream.requests, upstream.bodies, strict=True)
    ]
    assert sent == [(b"/embed", 1), (b"/embed?v=1", 2), (b"/embed?v=2", 1)]
    for client in proxy.clients:
        client.leave()


def test_a_call_of_two_types_is_relayed(upstream: HeldUpstream) -> None:
    """Which of them counts is for the upstream to say."""
    proxy = in_memory_proxy(upstream, max_wait_ms=1000)
    client = proxy.connect()
    types = [("Content-Type", kind) for kind in ("application/json", "text/plain")]

    client.ask("POST", "/embed", b'{"inputs":"a"}', *types)
    proxy.flush()

    [request] = upstream.requests
    told = request.requestHeaders.getRawHeaders("Content-Type")
    assert told == ["application/json", "text/plain"]
    client.leave()


@pytest.mark.parametrize("query", ["?a[]=1", '?a="x"', "?a=|"])
def test_a_query_that_could_be_spelled_anew_is_relayed(
    upstream: HeldUpstream, query: str
) -> None:
    """What reaches the upstream is what the client wrote."""
    proxy = in_memory_proxy(upstream)
    client = proxy.connect()
    client.embed(b'{"inputs":"a"}', path=f"/embed{query}")

    proxy.flush()

    assert upstream.requests[0].uri == f"/embed{query}".encode()
    client.leave()


def test_our_own_errors_have_their_names(upstream: HeldUpstream) -> None:
    """The first line of a 429 says Too Many Requests."""
    proxy = in_memory_proxy(upstream, max_connections=0)
    client = proxy.connect()

    client.ask("GET", "/info")

    assert client.answers("GET")[0].reason == "Too Many Requests"
