"""The longest life of a request, from its head to its answer, in whatever phase."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from abproxy.errors import UpstreamTimeout
from support.client import Answer, Client
from support.proxy import InMemoryProxy, wired, without
from support.upstream import HeldUpstream

OWN = ("Request-Timeout-Ms", "2000")

SAID = {
    "client": "your deadline of 2000 ms has passed",
    "operator": "there was no answer within 2000 ms (CALL_DEADLINE)",
}


@pytest.fixture(params=[True, False], ids=["fast", "Klein"])
def is_fast(request: pytest.FixtureRequest) -> Any:
    """Whether calls take the fast path."""
    return request.param


@pytest.fixture(params=["client", "operator"])
def by(request: pytest.FixtureRequest) -> Any:
    """Who says how long."""
    return request.param


@pytest.fixture
def proxy(*, is_fast: bool, by: str) -> Iterator[InMemoryProxy]:
    """Give a proxy with a deadline, or without."""
    paths = without() if is_fast else without("server")
    deadline_s = 2.0 if by == "operator" else None
    held = HeldUpstream()
    with wired(held, slots=1, fast_paths=paths, call_deadline_s=deadline_s) as here:
        yield here


def call(
    proxy: InMemoryProxy, by: str, text: str = "a", *, path: str = "/embed"
) -> Client:
    """Send a call, with the client's deadline if that is whose it is."""
    client = proxy.connect()
    member = "input" if path.startswith("/v1") else "inputs"
    lines = [OWN] if by == "client" else []
    client.embed(json.dumps({member: text}).encode(), *lines, path=path)
    return client


def only(client: Client) -> Answer:
    """Return the one answer that a client has got."""
    [answer] = client.answers()
    return answer


def begin(proxy: InMemoryProxy, by: str, body: bytes) -> Client:
    """Send the head of a call and the first byte of its body."""
    client = proxy.connect()
    own = f"{OWN[0]}: {OWN[1]}\r\n" if by == "client" else ""
    client.send(
        b"POST /embed HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        b"%bContent-Length: %d\r\n\r\n%b" % (own.encode(), len(body), body[:1])
    )
    return client


def test_a_body_that_arrives_too_slowly_is_not_waited_for(
    proxy: InMemoryProxy, by: str
) -> None:
    """Bytes of it may come all the time."""
    client = begin(proxy, by, b'{"inputs":"' + b"a" * 100 + b'"}')

    for _ in range(4):
        proxy.clock.advance(0.5)
        client.send(b"a")

    answer = only(client)
    assert (answer.status, answer.json["error"]) == (504, SAID[by])
    assert answer.header("Connection") == "close"


def test_what_the_body_took_counts(proxy: InMemoryProxy, by: str) -> None:
    """The deadline is for the whole, and begins with the head."""
    body = b'{"inputs":"a"}'
    client = begin(proxy, by, body)
    proxy.clock.advance(1.5)
    client.send(body[1:])
    is_sent = len(proxy.upstream.open)

    proxy.clock.advance(0.5)

    assert is_sent == 1
    assert proxy.upstream.sent[0].was_cancelled
    assert (only(client).status, only(client).json["error"]) == (504, SAID[by])


@pytest.mark.parametrize(
    ("path", "type_"), [("/embed", "error_type"), ("/v1/embeddings", "type")]
)
def test_a_call_in_flight_is_cancelled(
    proxy: InMemoryProxy, by: str, path: str, type_: str
) -> None:
    """The answer is in the words of its route."""
    client = call(proxy, by, path=path)
    proxy.clock.advance(1.9)
    before = client.answers()

    proxy.clock.advance(0.1)

    assert not before
    assert proxy.upstream.sent[0].was_cancelled
    assert (only(client).status, only(client).json[type_]) == (504, "Timeout")


def test_a_call_that_waits_is_never_sent(proxy: InMemoryProxy) -> None:
    """And takes no place any more."""
    busy, client = proxy.call("busy", truncate=True), proxy.connect()
    client.embed(b'{"inputs":"a"}', ("Request-Timeout-Ms", "1000"))

    proxy.clock.advance(1)
    proxy.upstream.sent[0].answer()

    assert only(client).status == 504
    assert only(busy).status == 200
    assert len(proxy.upstream.sent) == 1


def test_all_parts_of_a_large_call_end(proxy: InMemoryProxy, by: str) -> None:
    """Those in flight, those in the queue, and those that are not made yet."""
    client = proxy.connect()
    lines = [OWN] if by == "client" else []
    client.embed(json.dumps({"inputs": ["a"] * 3000}).encode(), *lines)

    proxy.clock.advance(2)

    assert only(client).status == 504
    assert all(sent.was_cancelled for sent in proxy.upstream.sent)
    assert not proxy.collector.admission.items
    assert not proxy.collector.admission.rest_items


def test_a_call_that_is_looked_into_is_not_sent_again(
    proxy: InMemoryProxy, by: str
) -> None:
    """After a failure of its batch it is as old as it was before."""
    busy = call(proxy, by)
    clients = [call(proxy, by, text) for text in "bcd"]
    proxy.upstream.sent[0].answer()
    proxy.clock.advance(1)
    proxy.upstream.sent[1].refuse(500)

    for _ in range(4):
        proxy.clock.advance(0.25)

    assert only(busy).status == 200
    assert [only(client).status for client in clients] == [504] * 3
    assert len(proxy.upstream.sent) > 2
    assert not proxy.upstream.open


def test_a_call_that_waits_for_an_upstream_in_trouble_is_not_sent_again(
    proxy: InMemoryProxy, by: str
) -> None:
    """It was refused, and is in the queue once more."""
    client = call(proxy, by)
    for _ in range(8):
        for sent in proxy.upstream.open:
            sent.refuse(503)
        proxy.clock.advance(0.25)
    count = len(proxy.upstream.sent)

    proxy.clock.pump([1] * 5)

    assert count > 1
    assert only(client).status == 504
    assert len(proxy.upstream.sent) == count


def test_a_call_that_is_sent_again_for_a_deadline_of_ours_keeps_its_own(
    proxy: InMemoryProxy, by: str
) -> None:
    """Its batch took too long, and so may it."""
    call(proxy, by)
    clients = [call(proxy, by, text) for text in "bc"]
    proxy.upstream.sent[0].answer()
    proxy.clock.advance(1)
    proxy.upstream.sent[1].fail(UpstreamTimeout("too late"))

    proxy.clock.advance(1)

    assert [only(client).status for client in clients] == [504] * 2
    assert len(proxy.upstream.sent) > 2
    assert not proxy.upstream.open


def test_a_relayed_request_waits_no_longer(proxy: InMemoryProxy, by: str) -> None:
    """Until its answer begins."""
    client = proxy.connect()
    lines = [OWN] if by == "client" else []
    client.ask("POST", "/rerank", b'{"query":"a","texts":["b"]}', *lines)
    proxy.flush()

    proxy.clock.advance(2)
    proxy.flush()

    assert (only(client).status, only(client).json["error"]) == (504, SAID[by])


def test_the_shorter_deadline_counts(*, is_fast: bool) -> None:
    """A client may ask for less than the operator allows, but not for more."""
    paths = without() if is_fast else without("server")
    with wired(slots=1, fast_paths=paths, call_deadline_s=3.0) as proxy:
        hasty, patient = proxy.connect(), proxy.connect()
        hasty.embed(b'{"inputs":"a"}', OWN)
        patient.embed(b'{"inputs":"b"}', ("Request-Timeout-Ms", "9000"))
        proxy.clock.advance(2)
        told = [len(hasty.answers()), len(patient.answers())]
        proxy.clock.advance(1)

        assert told == [1, 0]
        assert only(patient).status == 504


def test_an_answer_in_time_leaves_no_timer(proxy: InMemoryProxy, by: str) -> None:
    """Nor does a client that leaves while it sends."""
    client = call(proxy, by)
    proxy.answer_all()
    gone = begin(proxy, by, b'{"inputs":"a"}')
    gone.leave()

    assert only(client).status == 200
    client.leave()
    proxy.clock.advance(0)
    assert not proxy.clock.getDelayedCalls()
