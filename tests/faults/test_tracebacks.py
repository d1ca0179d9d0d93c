"""A traceback in the log is a bug: no client and no server can have one written."""

from collections.abc import Callable, Iterator, Sequence
from random import Random

import pytest
from pytest_twisted import ensureDeferred
from twisted.logger import LogEvent, globalLogPublisher

from support.client import ByteClient, sleep, together, turn
from support.proxy import StartedProxy, paths_of, proxy_before_byte_server, without
from support.upstream import Peer

ROUNDS = 400
AT_ONCE = 20

BODY = b'{"inputs":["a","b"],"query":"q"}'
LONG = b'{"inputs":["%b"]}' % (b"a" * 300_000)


def request(line: bytes, body: bytes, *, lines: bytes = b"") -> bytes:
    """Write a request with a body of a known length."""
    head = b"%b HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n" % line
    return b"%b%bContent-Length: %d\r\n\r\n%b" % (head, lines, len(body), body)


def in_chunks(line: bytes, chunks: bytes) -> bytes:
    """Write a request with a body in chunks."""
    head = b"%b HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n" % line
    return b"%bTransfer-Encoding: chunked\r\n\r\n%b" % (head, chunks)


ROUTES = (b"/embed", b"/v1/embeddings", b"/rerank", b"/other", b"/-/status.json")
CHUNKS = (
    b"20\r\n%b\r\n0\r\n\r\n" % BODY,
    b"5\r\nhello\r\nZZ\r\nmore",
    b"5\r\nhello, and more\r\n0\r\n\r\n",
    b"FFFFFFFFFFFFFFFFFFFFFFFF\r\n",
    b"5\r\nhello\r\n0\r\nTrailer: x\r\n\r\n",
)
REQUESTS = [
    *(request(b"POST %b" % path, body) for path in ROUTES for body in (BODY, LONG)),
    *(in_chunks(b"POST %b" % path, each) for path in ROUTES for each in CHUNKS),
    *(request(b"%b /other" % verb, b"123456789") for verb in (b"OPTIONS", b"PUT")),
    request(b"POST /embed", BODY, lines=b"Expect: 100-continue\r\n"),
    request(b"POST /other", LONG, lines=b"Expect: 100-continue\r\n"),
    b"GET /other HTTP/1.1\r\nHost: x\r\n\r\n" * 3,
    b"HEAD /other HTTP/1.0\r\n\r\n",
    b"nonsense\r\n\r\n",
]

OK = b"HTTP/1.1 200 OK\r\n"
ANSWERS = [
    OK + b"Content-Length: 9\r\n\r\n[[1],[2]]",
    OK + b"Content-Length: 300000\r\n\r\n" + b"x" * 300_000,
    OK + b"Transfer-Encoding: chunked\r\n\r\n9\r\n[[1],[2]]\r\n0\r\n\r\n",
    OK + b"Transfer-Encoding: chunked\r\n\r\n9\r\n[[1],[2]]\r\nZZ\r\n",
    OK + b"Transfer-Encoding: chunked\r\n\r\n3\r\n[[1],[2]]\r\n",
    OK + b"Content-Length: 9\r\nTransfer-Encoding: chunked\r\n\r\n[[1],[2]]",
    OK + b"Content-Length: x\r\n\r\n[[1],[2]]",
    OK + b"Content-Encoding: gzip\r\nContent-Length: 9\r\n\r\n[[1],[2]]",
    OK + b"\r\nuntil the end",
    b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\n" + OK + b"Content-Length: 9\r\n\r\n[[1],[2]]",
    b"HTTP/1.1 204 No Content\r\nContent-Length: 9\r\n\r\n[[1],[2]]",
    b"HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\n\r\nno!",
    b"\x15\x03\x01\x00\x02\x02\x46",
    b"nonsense\r\n\r\n",
    b"",
]

End = Callable[[object], object]


def half_close(transport: object) -> None:
    """Send no more, but go on reading."""
    transport.loseWriteConnection()  # type: ignore[attr-defined]


def close(transport: object) -> None:
    """Close when all is sent."""
    transport.loseConnection()  # type: ignore[attr-defined]


def reset(transport: object) -> None:
    """Break off."""
    transport.abortConnection()  # type: ignore[attr-defined]


def stay(_transport: object) -> None:
    """Do nothing more."""


@pytest.fixture
def logged() -> Iterator[list[LogEvent]]:
    """Give what is logged."""
    events: list[LogEvent] = []
    globalLogPublisher.addObserver(events.append)
    yield events
    globalLogPublisher.removeObserver(events.append)


def pieces_of(data: bytes, random: Random) -> Sequence[bytes]:
    """Cut off an end, or nothing, and cut the rest in two."""
    whole = random.choice([len(data), random.randint(0, len(data))])
    middle = random.choice(
        [whole, data.find(b"\r\n\r\n") + 4, random.randint(0, whole)]
    )
    return data[: min(middle, whole)], data[middle:whole]


async def misbehave(here: StartedProxy, random: Random) -> None:
    """Send some of a request, and end it in one way or another."""
    client: ByteClient = await here.byte_client()
    for piece in pieces_of(random.choice(REQUESTS), random):
        if client.is_open:
            client.send(piece)
        await sleep(random.choice([0, 0, 0.001, 0.01]))
    if client.is_open:
        random.choice([half_close, close, reset])(client.transport)
    await sleep(random.choice([0, 0.005, 0.03]))
    if client.is_open:
        reset(client.transport)
        await client.lost


def answers_badly(random: Random) -> Callable[[Peer], None]:
    """Answer with some of an answer, and end it in one way or another."""

    def asked(peer: Peer) -> None:
        for piece in pieces_of(random.choice(ANSWERS), random):
            peer.transport.write(piece)
        random.choice([half_close, close, reset, stay])(peer.transport)

    return asked


@pytest.mark.parametrize(
    "fast_paths",
    [paths_of("fast"), paths_of("treq"), without("server")],
    ids=["fast", "treq", "Klein"],
)
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.filterwarnings(
    # Twisted drops the socket of a connection that is given up while it is made.
    "ignore:Exception ignored in. <socket:pytest.PytestUnraisableExceptionWarning"
)
@ensureDeferred
async def test_no_client_and_no_server_can_have_a_traceback_written(
    logged: list[LogEvent], fast_paths: frozenset[str], seed: int
) -> None:
    """Whatever breaks off, and wherever."""
    random = Random(seed)  # noqa: S311  a test must repeat itself
    settings = {
        "fast_paths": fast_paths,
        "connect_patience_s": 0.05,
        "upstream_timeout_s": 0.2,
        "drain_timeout_s": 1.0,
    }
    async with proxy_before_byte_server(**settings) as here:
        here.upstream.asked = answers_badly(random)
        for _ in range(ROUNDS // AT_ONCE):
            await together(misbehave(here, random) for _ in range(AT_ONCE))

    for _ in range(3):
        await turn()  # what was broken off is closed in the next one
    failures = [event for event in logged if "log_failure" in event]
    said = [str(event["log_failure"].getTraceback()) for event in failures]
    assert said == []
