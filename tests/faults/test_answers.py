"""What callers get of an upstream whose answers are wrong, or come in half."""

from typing import Any

import pytest
from pytest_twisted import ensureDeferred

from bench.breakable import Traits
from bench.breakable.messages import Answer
from bench.breakable.rows import spell
from support.client import together, turn
from support.proxy import paths_of, proxy_before_byte_server, started_proxy
from support.upstream import Peer

BROKEN = ["too-few", "too-many", "truncate", "error-body", "garbage"]


@pytest.mark.parametrize("fault", BROKEN)
@ensureDeferred
async def test_a_broken_answer_to_several_calls_is_asked_for_again(fault: str) -> None:
    """Nothing is guessed: each call gets what it gets alone."""
    async with started_proxy(max_wait_ms=60_000, max_batch_calls=2) as here:
        one, two = await here.crowd(2)
        here.upstream.break_(fault)

        hit = await together([one.embed("a"), two.embed("b")])
        spared = await together([one.embed("c"), two.embed("d")])

        assert [hit[0].is_for(["a"]), hit[1].is_for(["b"])] == [True, True]
        assert [spared[0].is_for(["c"]), spared[1].is_for(["d"])] == [True, True]
        await here.comes_to_rest()


@pytest.mark.parametrize("fault", BROKEN)
@ensureDeferred
async def test_a_broken_answer_to_one_part_is_a_502_for_the_whole_call(
    fault: str,
) -> None:
    """A large call is never answered with a hole in it."""
    async with started_proxy(Traits(max_batch=2)) as here:
        [caller] = await here.crowd(1)
        here.upstream.break_(fault)

        hit = await caller.embed("a", "b", "c", "d", "e")
        spared = await caller.embed("a", "b", "c", "d", "e")

        assert hit.status == 502
        assert spared.is_for(["a", "b", "c", "d", "e"])
        await here.comes_to_rest()


ANSWER = Answer(body=b"[%b,%b]" % (spell("a", 1), spell("b", 1)))


@pytest.mark.parametrize("client", ["fast", "treq"])
@pytest.mark.parametrize("chunked", [False, True])
@ensureDeferred
async def test_a_connection_cut_at_any_byte_is_never_a_wrong_answer(
    *, chunked: bool, client: str
) -> None:
    """What does not arrive whole is asked for again, and nobody sees a piece."""
    traits = Traits(dimensions=1, chunked=chunked)
    batches: dict[str, Any] = {"max_wait_ms": 1000, "max_batch_calls": 2}
    async with started_proxy(traits, fast_paths=paths_of(client), **batches) as here:
        one, two = await here.crowd(2)

        for at in range(len(ANSWER.to_bytes(chunked=chunked))):
            here.upstream.break_("cut", at)
            answers = await together([one.embed("a"), two.embed("b")])
            rows = [b"[%b]" % spell("a", 1), b"[%b]" % spell("b", 1)]
            assert [answer.body for answer in answers] == rows, at

        await here.comes_to_rest()


@pytest.mark.parametrize("client", ["fast", "treq"])
@pytest.mark.parametrize("chunked", [False, True])
@ensureDeferred
async def test_a_lone_answer_cut_at_any_byte_is_never_passed_on(
    *, chunked: bool, client: str
) -> None:
    """The upstream's own bytes reach a caller whole, or not at all."""
    whole = Answer(body=b"[%b]" % spell("a", 1))
    traits = Traits(dimensions=1, chunked=chunked)
    async with started_proxy(traits, fast_paths=paths_of(client)) as here:
        [caller] = await here.crowd(1)

        for at in range(len(whole.to_bytes(chunked=chunked))):
            here.upstream.break_("cut", at)
            answer = await caller.embed("a")
            assert (answer.status, answer.body) == (200, whole.body), at

        await here.comes_to_rest()


@pytest.mark.parametrize("client", ["fast", "treq"])
@ensureDeferred
async def test_a_batch_whose_answer_is_not_http_is_sent_again(client: str) -> None:
    """Something else may have answered there for a moment."""
    batches: dict[str, Any] = {"max_wait_ms": 1000, "max_batch_calls": 2}
    async with started_proxy(fast_paths=paths_of(client), **batches) as here:
        one, two = await here.crowd(2)
        here.upstream.break_("no-http")

        answers = await together([one.embed("a"), two.embed("b")])

        assert [answers[0].is_for(["a"]), answers[1].is_for(["b"])] == [True, True]
        await here.comes_to_rest()


@pytest.mark.parametrize("client", ["fast", "treq"])
@pytest.mark.parametrize("later", [False, True])
@ensureDeferred
async def test_an_answer_without_a_request_reaches_no_call(
    *, later: bool, client: str
) -> None:
    """Right behind another answer or after a while: the next caller gets its own."""
    rows = [b"[[1]]", b"[[2]]"]
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"

    def answer(peer: Peer) -> None:
        peer.transport.write(head + rows.pop(0) + (b"" if later else stale))

    stale = head + b"[[9]]"
    async with proxy_before_byte_server(fast_paths=paths_of(client)) as here:
        here.upstream.asked = answer
        caller = await here.byte_client()
        post = b"POST /embed HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\n"
        call = post + b'Content-Length: 14\r\n\r\n{"inputs":"a"}'

        caller.send(call)
        await caller.until(b"[[1]]")
        here.upstream.peers[0].transport.write(stale)
        await turn()
        caller.send(call)
        await caller.until(b"[[2]]")

        assert b"[[9]]" not in caller.received
        assert len(here.upstream.peers) == 2
