"""
Whatever is sent, the proxy answers as the server behind it does.

Hypothesis draws requests of every kind, several at once so that they share
batches.  Each is also sent directly, alone: the answers must be equal.
"""

import json
from collections.abc import Sequence
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from abproxy_model.settings import Settings
from support.batching import Harness
from support.client import Answer
from support.proxy import InMemoryProxy, in_memory_proxy
from support.recorded import OF_THE_BATCH
from web.bytemodel import ModelServer
from web.requests_drawn import JSON, Drawn, good, together

OF_THE_CONNECTION = {"connection", "date", "server"}


def in_front_of(server: ModelServer, **settings: Any) -> InMemoryProxy:
    """Put a proxy in front of *server*."""
    proxy = in_memory_proxy(
        server.resource, task="embedding", has_pages=False, **settings
    )
    # The server's own connections: Twisted's would read forms, and refuse some.
    proxy.agent._serverFactory = server.site
    return proxy


def directly(server: ModelServer, request: Drawn) -> Answer:
    """Return the answer of the server itself."""
    client = server.connect()
    client.send(bytes(request))
    server.thread.go_on()
    [answer] = client.answers(request.method)
    client.leave()
    return answer


def through(
    proxy: InMemoryProxy, server: ModelServer, requests: Sequence[Drawn]
) -> list[list[Answer]]:
    """Return the proxy's answers to all at once, each on a connection of its own."""
    clients = [proxy.connect() for _ in requests]
    for client, request in zip(clients, requests, strict=True):
        client.send(bytes(request))
    for _ in range(3):  # calls of a lane that never worked wait for a second probe
        proxy.clock.advance(1)
        proxy.flush()
        while server.thread.go_on():
            proxy.flush()
    answers = [
        client.answers(request.method)
        for client, request in zip(clients, requests, strict=True)
    ]
    for client in clients:
        client.leave()
    return answers


def significant(answer: Answer) -> set[tuple[str, str]]:
    """Return the header lines that do not tell of one connection or batch."""
    return {
        (name.lower(), value)
        for name, value in answer.headers
        if name.lower() not in OF_THE_CONNECTION | OF_THE_BATCH
        and not (name.lower() == "content-length" and "usage" in str(answer.body))
    }


def without_usage(body: bytes) -> Any:
    """Return the body, without the tokens counted for a whole batch."""
    if not body.startswith(b'{"object"'):
        return body
    members = json.loads(body)
    members.pop("usage")
    return members


def assert_equal(got: Answer, expected: Answer) -> None:
    """Hold one answer against the other."""
    assert (got.status, got.reason) == (expected.status, expected.reason)
    assert without_usage(got.body) == without_usage(expected.body)
    assert significant(got) == significant(expected)


def assert_nothing_is_left(proxy: InMemoryProxy, server: ModelServer) -> None:
    """Every counter is back where it was."""
    assert not proxy.site.requests
    assert Harness(proxy.clock, None, proxy.collector).is_at_rest
    assert server.is_at_rest


@settings(max_examples=200, deadline=None)
@given(
    requests=together(),
    max_wait_ms=st.sampled_from([0.0, 1000.0]),
    auto_truncate=st.booleans(),
)
def test_whatever_is_asked_the_answer_is_the_servers_own(
    requests: Sequence[Drawn],
    max_wait_ms: float,
    auto_truncate: bool,  # noqa: FBT001
) -> None:
    """Good, nearly good and senseless requests, in one batch or alone."""
    server = ModelServer(Settings(auto_truncate=auto_truncate))
    proxy = in_front_of(server, max_wait_ms=max_wait_ms, oversize="refuse")

    answered = through(proxy, server, requests)

    for request, answers in zip(requests, answered, strict=True):
        [answer] = answers
        assert_equal(answer, directly(server, request))
    assert_nothing_is_left(proxy, server)


@settings(max_examples=100, deadline=None)
@given(requests=st.lists(good(), min_size=1, max_size=4), limit=st.integers(1, 4))
def test_a_request_over_the_limit_is_answered_as_if_there_were_none(
    requests: Sequence[Drawn], limit: int
) -> None:
    """More inputs than the server takes at once are cut up and joined again."""
    server = ModelServer(Settings(max_client_batch_size=limit))
    proxy = in_front_of(server, max_batch_inputs=limit)
    unlimited = ModelServer()

    answered = through(proxy, server, requests)

    for request, answers in zip(requests, answered, strict=True):
        [answer] = answers
        assert_equal(answer, directly(unlimited, request))
    assert_nothing_is_left(proxy, server)


def test_a_call_with_an_absolute_target_is_batched() -> None:
    """A server must accept `http://host/path`, so this is a call like any other."""
    server = ModelServer()
    proxy = in_front_of(server)
    client = proxy.connect()

    client.ask("POST", "http://door/embed", b'{"inputs":["a"]}', JSON)
    server.thread.go_on()
    proxy.flush()

    [answer] = client.answers()
    assert answer.status == 200


def test_a_method_in_small_letters_is_left_to_the_server() -> None:
    """`post` is not `POST`; the server may know what it is."""
    server = ModelServer()
    proxy = in_front_of(server)
    request = Drawn(method="post", path="/embed", body=b'{"inputs":["a"]}')

    [[answer]] = through(proxy, server, [request])

    assert_equal(answer, directly(server, request))
