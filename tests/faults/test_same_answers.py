"""One answer that is no plain HTTP, then good ones: all ways upstream do the same."""

from collections.abc import Callable, Iterator
from itertools import chain, repeat

import pytest
from pytest_twisted import ensureDeferred

from support.client import Answer
from support.proxy import StartedProxy, paths_of, proxy_before_byte_server
from support.upstream import Peer

ROWS = b"[[1]]"
OK = b"HTTP/1.1 200 OK\r\n"
GOOD = OK + b"Content-Length: 5\r\n\r\n" + ROWS
IN_CHUNKS = b"5\r\n[[1]]\r\n0\r\n\r\n"

AMBIGUOUS = {
    "another protocol": b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\n\r\n",
    "two framings": OK
    + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n"
    + IN_CHUNKS,
    "two lengths": OK + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n" + ROWS,
    "no status": b"HTTP/1.1 99 Odd\r\nContent-Length: 5\r\n\r\n" + ROWS,
}
HUGE = OK + b"Content-Length: 999999999999\r\n\r\n" + ROWS
NOT_PACKED = OK + b"Content-Encoding: gzip\r\nContent-Length: 5\r\n\r\n" + ROWS

BOTH = pytest.mark.parametrize("client", ["fast", "treq"])


def one_bad(bad: bytes) -> Callable[[Peer], None]:
    """Answer the first request so, and all others well."""
    answers: Iterator[bytes] = chain([bad], repeat(GOOD))
    return lambda peer: peer.transport.write(next(answers))


async def ask(here: StartedProxy, bad: bytes, path: str) -> Answer:
    """Ask on *path* while the first answer is *bad*."""
    here.upstream.asked = one_bad(bad)
    caller = await here.caller()
    return await caller.post(path, b'{"inputs":["a"]}')


@BOTH
@pytest.mark.parametrize("path", ["/embed", "/rerank"])
@pytest.mark.parametrize("bad", AMBIGUOUS)
@ensureDeferred
async def test_an_answer_that_others_may_read_in_another_way_is_asked_for_again(
    bad: str, path: str, client: str
) -> None:
    """By a batch of one call, and by a request that is relayed."""
    async with proxy_before_byte_server(fast_paths=paths_of(client)) as here:
        answer = await ask(here, AMBIGUOUS[bad], path)

    assert (answer.status, answer.body) == (200, ROWS)


@BOTH
@ensureDeferred
async def test_an_answer_over_the_limit_is_refused_by_what_it_announces(
    client: str,
) -> None:
    """At once: nobody waits for the deadline."""
    async with proxy_before_byte_server(fast_paths=paths_of(client)) as here:
        answer = await ask(here, HUGE, "/embed")

    assert answer.status == 502
    assert "the inference server's answer is over" in answer.json["error"]


@BOTH
@ensureDeferred
async def test_what_is_said_to_be_packed_and_is_not_is_asked_for_again(
    client: str,
) -> None:
    """It would be a body without an end, or an empty one."""
    async with proxy_before_byte_server(fast_paths=paths_of(client)) as here:
        answer = await ask(here, NOT_PACKED, "/embed")

    assert (answer.status, answer.body) == (200, ROWS)


@ensureDeferred
async def test_what_is_relayed_is_not_unpacked_whatever_it_is() -> None:
    """Its bytes are the upstream's."""
    async with proxy_before_byte_server() as here:
        answer = await ask(here, NOT_PACKED, "/rerank")

    assert (answer.status, answer.body) == (200, ROWS)
    assert answer.header("Content-Encoding") == "gzip"
