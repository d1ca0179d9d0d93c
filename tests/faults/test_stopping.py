"""What becomes of those who are in, or nearly, when the proxy stops."""

import socket
from typing import Any

import msgspec
from pytest_twisted import ensureDeferred

from bench.breakable import Traits
from support.client import LOCALHOST, Caller, sleep, together, until
from support.proxy import started_proxy


def _ask_without_the_reactor(port: int, text: str) -> socket.socket:
    """Connect and ask, while the proxy is not even looking."""
    body = msgspec.json.encode({"inputs": text})
    asking = socket.create_connection((LOCALHOST, port), timeout=5)
    asking.sendall(Caller().head("/embed", len(body)) + body)
    return asking


def _read_all(asking: socket.socket) -> bytes:
    with asking, asking.makefile("rb") as stream:
        return stream.read()


@ensureDeferred
async def test_connections_in_the_kernels_queue_are_accepted_before_the_end() -> None:
    """The kernel has told them that they are connected."""
    async with started_proxy() as here:
        port: Any = here.service._port
        port.numberAccepts = 1
        asking = [_ask_without_the_reactor(here.port, f"{at}") for at in range(50)]

        await here.service.stopService()

        heads = [_read_all(each).partition(b"\r\n")[0] for each in asking]
        assert heads == [b"HTTP/1.1 200 OK"] * 50


@ensureDeferred
async def test_a_client_that_has_just_read_an_answer_may_send_the_next_call() -> None:
    """Its client keeps the connection and knows nothing of an end."""
    async with started_proxy() as here:
        callers = await here.crowd(32)
        await together(caller.embed("first") for caller in callers)

        stopped = here.service.stopService()
        await until(lambda: here.service.site.is_draining)
        await sleep(0)
        answers = await together(caller.embed("next") for caller in callers)
        await stopped

        assert all(answer.is_for(["next"]) for answer in answers)
        assert {answer.header("Connection") for answer in answers} == {"close"}


@ensureDeferred
async def test_stopping_ends_in_time_though_the_upstream_is_silent() -> None:
    """Who cannot be answered is cut off at the drain timeout."""
    async with started_proxy(Traits(ms=60_000), drain_timeout_s=0.2) as here:
        [caller] = await here.crowd(1)
        caller.embed("a").addErrback(lambda _: None)
        await until(lambda: here.upstream.work.inputs == 1)

        await here.service.stopService()

        await until(lambda: not caller.is_open)
        await until(lambda: here.upstream.seen.hung_up == 1)


@ensureDeferred
async def test_a_call_that_arrives_slowly_is_answered_while_others_are() -> None:
    """A call that is all here before the last answer is still served."""
    async with started_proxy(Traits(ms=200)) as here:
        slow, other = await here.crowd(2)
        body = b'{"inputs":["slow"]}'
        slow.transport.write(slow.head("/embed", len(body)) + body[:9])
        asked = other.embed("other")
        await until(lambda: here.upstream.work.inputs == 1)

        stopped = here.service.stopService()
        slow.transport.write(body[9:])

        assert (await asked).is_for(["other"])
        await until(lambda: slow.received.endswith(b"]]"))
        await stopped
