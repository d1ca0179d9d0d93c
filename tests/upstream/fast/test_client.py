"""One question, one answer, one deadline: as with treq, where nothing else is said."""

import gc
from collections.abc import Callable
from typing import Any

import pytest
from twisted.internet.defer import CancelledError, Deferred, fail
from twisted.internet.error import (
    ConnectionDone,
    ConnectionLost,
    DNSLookupError,
    TimeoutError,  # noqa: A004  it is what Twisted says
)
from twisted.internet.error import ConnectionRefusedError as Refused

from abproxy.errors import CannotConnect, ConnectionBroken, UpstreamTimeout
from abproxy.upstream.fast.connection import Exchange
from upstream.clients import CLIENTS, Client, fast, question

HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n"
WHOLE = HEAD + b"\r\n[[1]]"
CHUNKS = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n[[1]]\r\n0\r\n\r\n"
GET = question(method=b"GET", path=b"/info", body=b"")


@pytest.fixture(params=CLIENTS)
def client(request: pytest.FixtureRequest) -> Client:
    """Make either client."""
    make: Callable[[], Client] = CLIENTS[request.param]
    return make()


def answered(client: Client, answer: bytes = WHOLE) -> Any:
    """Ask and answer."""
    asked = client.send()
    client.ends.last.answer(answer)
    return asked.told


# Connections.


@pytest.mark.parametrize("answer", [WHOLE, CHUNKS, HEAD + b"X-A: 1\r\n\r\n[[1]]"])
def test_a_connection_is_used_again(client: Client, answer: bytes) -> None:
    """A batch does not pay for a handshake."""
    replies = [answered(client, answer) for _ in range(3)]

    assert [reply.body for reply in replies] == [b"[[1]]"] * 3
    assert len(client.ends.all) == 1
    client.close()


def test_another_host_may_be_named(client: Client) -> None:
    """A gateway chooses the server by it; the connection leads where the URL does."""
    asked = client.send(question((b"Host", b"model.example")))

    sent = client.ends.last.asked()
    assert sent.count(b"Host:") == 1
    assert b"\r\nHost: model.example\r\n" in sent
    asked.reply.cancel()
    client.close()


@pytest.mark.parametrize(
    ("line", "idle_s", "connections"),
    [("", 3.9, 1), ("", 4.1, 2), ("timeout=2", 1.1, 2), ("timeout=9", 7.9, 1)],
)
def test_a_connection_is_used_again_as_long_as_the_server_keeps_it(
    client: Client, line: str, idle_s: float, connections: int
) -> None:
    """What it says of that counts, or else what most servers do."""
    said = b"Keep-Alive: %b\r\n" % line.encode() if line else b""
    answer = b"HTTP/1.1 200 OK\r\n%bContent-Length: 2\r\n\r\n[]" % said
    client.send()
    client.ends.last.answer(answer)

    client.clock.advance(idle_s)
    client.send()

    assert len(client.ends.all) == connections


def test_a_connection_that_the_server_closes_early_is_learned_from(
    client: Client,
) -> None:
    """The next one is not kept as long."""
    answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]"
    client.send()
    client.ends.last.answer(answer)
    client.clock.advance(2)
    client.ends.last.lose()

    client.send()
    client.ends.last.answer(answer)
    client.clock.advance(1.6)

    assert client.ends.last.is_given_up


def test_who_asks_at_the_same_time_gets_another_connection(client: Client) -> None:
    """There is one question at a time on each."""
    asked = [client.send(), client.send()]

    for end, row in zip(client.ends.all, (b"[[1]]", b"[[2]]"), strict=True):
        end.answer(HEAD + b"\r\n" + row)

    assert [each.told.body for each in asked] == [b"[[1]]", b"[[2]]"]
    client.close()


def test_the_next_question_may_follow_from_an_answer(client: Client) -> None:
    """It finds the connection free."""
    first = client.send()
    then: list[Any] = []
    first.reply.addCallback(lambda _: then.append(client.send()))

    client.ends.last.answer(WHOLE)
    client.ends.last.answer(WHOLE)

    assert then[0].told.body == b"[[1]]"
    assert len(client.ends.all) == 1
    client.close()


def test_a_connection_that_was_closed_meanwhile_is_not_used(client: Client) -> None:
    """A server may close an idle connection at any time."""
    answered(client)
    client.ends.last.lose()

    assert answered(client).body == b"[[1]]"

    assert len(client.ends.all) == 2
    client.close()


@pytest.mark.parametrize("rest", [b"", b"Content-Encoding: identity\r\n"])
@pytest.mark.parametrize(
    "answer",
    [
        HEAD + b"Connection: close\r\n%b\r\n[[1]]",
        HEAD + b"Connection: Close\r\n%b\r\n[[1]]",
        HEAD + b"Connection: x, close\r\n%b\r\n[[1]]",
        b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n%b\r\n[[1]]",
        HEAD + b"%b\r\n[[1]][[2]]",
        HEAD + b"%b\r\n[[1]]\r\n",
        HEAD + b"%b\r\n[[1]]" + WHOLE,
        CHUNKS.replace(b"\r\n", b"\r\n%b", 1) + WHOLE,
    ],
)
def test_after_some_answers_a_connection_is_not_used_again(
    answer: bytes, rest: bytes
) -> None:
    """The server wants to close it, or says what nobody has asked for."""
    client = fast()

    assert answered(client, answer % rest).body == b"[[1]]"

    assert client.ends.last.is_given_up
    assert answered(client).body == b"[[1]]"
    assert len(client.ends.all) == 2
    client.close()


def test_what_comes_unasked_closes_the_connection() -> None:
    """The next caller would take it for an answer."""
    client = fast()
    answered(client)

    client.ends.last.answer(WHOLE)

    assert client.ends.last.is_given_up
    assert answered(client).body == b"[[1]]"
    assert len(client.ends.all) == 2
    client.close()


@pytest.mark.parametrize("answer", [b"", HEAD + b"X-Key: secret\r\n\r\n["])
def test_a_connection_does_not_tell_the_secrets_that_it_carries(answer: bytes) -> None:
    """It may end up in a log or a traceback."""
    client = fast()
    asked = client.send(question((b"Authorization", b"Bearer secret"), body=b"secret"))
    client.ends.last.answer(answer)

    shown = repr(client.ends.last.protocol)

    assert "Exchange" in shown
    assert "secret" not in shown
    asked.reply.cancel()


# Deadlines.


def test_an_answer_leaves_no_timer_but_that_of_idle_connections() -> None:
    """A deadline that was met is forgotten."""
    client = fast()
    answered(client)

    client.close()

    assert not client.clock.getDelayedCalls()


def test_the_deadline_spans_connecting(client: Client) -> None:
    """Whatever the endpoint does."""
    client.ends.connected = Deferred()
    asked = client.send()

    client.clock.advance(7)

    assert type(asked.error) is UpstreamTimeout
    assert "within 7 seconds" in str(asked.error)
    assert client.ends.all == []


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 ", HEAD + b"\r\n[", CHUNKS[:-9]])
def test_the_deadline_spans_head_and_body(client: Client, answer: bytes) -> None:
    """A server that stops halfway is given up, and the connection closed."""
    asked = client.send()
    client.ends.last.answer(answer)
    client.clock.advance(6)
    assert asked.told is None

    client.clock.advance(1)

    assert type(asked.error) is UpstreamTimeout
    assert client.ends.last.is_given_up
    client.ends.last.lose()
    assert not client.clock.getDelayedCalls()


# Cancelling.


def test_cancelling_while_connecting_is_no_failure(client: Client) -> None:
    """Twisted may say that there is no such host; the upstream is not to blame."""
    client.ends.connected = Deferred(lambda d: d.errback(DNSLookupError()))
    asked = client.send()

    asked.reply.cancel()

    assert type(asked.error) is CancelledError
    assert client.ends.all == []


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 ", HEAD + b"\r\n[", CHUNKS[:-9]])
def test_cancelling_closes_the_connection(client: Client, answer: bytes) -> None:
    """TEI forgets what it has not begun to compute."""
    asked = client.send()
    end = client.ends.last
    end.answer(answer)

    asked.reply.cancel()
    end.lose(ConnectionLost())

    assert type(asked.error) is CancelledError
    assert end.is_given_up


def test_what_comes_after_cancelling_is_nobody_s() -> None:
    """Some of it may have been on its way."""
    client = fast()
    asked = client.send()
    asked.reply.cancel()

    client.ends.last.protocol.dataReceived(WHOLE)

    assert type(asked.error) is CancelledError
    assert client.send().told is None
    assert len(client.ends.all) == 2


# Failures.


@pytest.mark.parametrize(
    "error", [Refused("no"), DNSLookupError("no host"), TimeoutError("too late")]
)
def test_no_connection_is_said_so(error: Exception) -> None:
    """Nothing was sent, so anything may be tried again; treq's words are the same."""
    told = []

    for make in CLIENTS.values():
        client = make()
        client.ends.connected = fail(error)
        told.append(client.send().told)

    assert told[0][0] is CannotConnect
    assert told[0][1].startswith("cannot reach the inference server: ")
    assert told[0] == told[1]


@pytest.mark.parametrize("error", [ConnectionDone(), ConnectionLost("reset")])
@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 ", HEAD + b"\r\n[", CHUNKS[:-9]])
def test_a_connection_that_breaks_is_told_in_the_same_words(
    answer: bytes, error: Exception
) -> None:
    """Before the first byte and after it, on a fresh connection and on a used one."""
    told = []

    for make in CLIENTS.values():
        client = make()
        fresh = client.send()
        client.ends.last.answer(answer)
        client.ends.last.lose(error)
        answered(client)
        used = client.send()
        client.ends.last.answer(answer)
        client.ends.last.lose(error)
        told.append((fresh.told, used.told))

    assert told[0][0][0] is ConnectionBroken
    assert told[0][0] == told[0][1]
    assert told[0] == told[1]


def test_when_one_connection_broke_idle_ones_are_not_trusted(client: Client) -> None:
    """A server that restarts closes all of them, and one try must be enough."""
    [client.send() for _ in range(2)]
    for end in client.ends.all:
        end.answer(WHOLE)
        end.asked()
    hit = client.send()
    busy, idle = sorted(client.ends.all, key=lambda end: not end.value())

    busy.lose()

    assert type(hit.error) is ConnectionBroken
    assert idle.is_given_up
    assert not client.clock.getDelayedCalls()


def test_what_only_asks_is_asked_again_if_its_connection_was_closing(
    client: Client,
) -> None:
    """It met a connection that the server was closing just then."""
    answered(client)
    asked = client.send(GET)
    client.ends.all[0].lose()

    client.ends.all[1].answer(WHOLE)

    assert asked.told.body == b"[[1]]"
    assert client.ends.all[1].asked().startswith(b"GET /info ")
    client.close()


def test_it_is_asked_again_once(client: Client) -> None:
    """The second connection was fresh: the server does not want it."""
    answered(client)
    asked = client.send(GET)
    client.ends.all[0].lose()

    client.ends.all[1].lose()

    assert type(asked.error) is ConnectionBroken
    assert len(client.ends.all) == 2


def test_it_is_not_asked_again_after_the_first_byte(client: Client) -> None:
    """The server had taken it in."""
    answered(client)
    asked = client.send(GET)
    client.ends.all[0].answer(b"H")

    client.ends.all[0].lose()

    assert type(asked.error) is ConnectionBroken
    assert len(client.ends.all) == 1


def test_asked_again_it_can_be_cancelled(client: Client) -> None:
    """On the connection that it is on now."""
    answered(client)
    asked = client.send(GET)
    client.ends.all[0].lose()

    asked.reply.cancel()

    assert type(asked.error) is CancelledError
    assert client.ends.all[1].is_given_up


@pytest.mark.parametrize("answer", [WHOLE, CHUNKS])
def test_nothing_waits_for_the_garbage_collector(answer: bytes) -> None:
    """Questions and answers may be large; what is over is let go at once."""
    client = fast()
    before = exchanges_in_memory()
    gc.disable()
    try:
        for _ in range(3):
            answered(client, answer)
        left = exchanges_in_memory() - before
    finally:
        gc.enable()

    assert left == 0
    client.close()


def exchanges_in_memory() -> int:
    """Count them, those of other tests among them."""
    return sum(isinstance(each, Exchange) for each in gc.get_objects())
