"""The server that breaks does what it is told, so that others can be tested."""

from typing import Any

import msgspec
import pytest
from pytest_twisted import ensureDeferred
from sockets import breakable, connect
from twisted.internet.error import ConnectError

from bench.breakable import Fault, Traits
from bench.breakable.__main__ import parse


@pytest.mark.parametrize(
    ("text", "fault"),
    [
        ("too-few", Fault(fault="too-few")),
        ("cut=20", Fault(fault="cut", value=20)),
        ("refuse=503x3", Fault(fault="refuse", value=503, times=3)),
    ],
)
def test_a_fault_can_be_asked_for_on_the_command_line(text: str, fault: Fault) -> None:
    """Its value and how often it happens may be left out."""
    options = vars(parse(["--break", text, "--permits", "64", "--chunked"]))

    assert options["break"] == [fault]
    assert (options["permits"], options["chunked"]) == (64, True)


async def _post(port: int, path: str, body: Any) -> Any:
    caller = await connect(port)
    answer = await caller.post(path, msgspec.json.encode(body))
    caller.hang_up()
    return answer


@ensureDeferred
async def test_it_is_told_over_http_what_to_do() -> None:
    """A fault is met as often as was asked for."""
    async with breakable(Traits()) as server:
        await _post(server.port, "/-/break", {"fault": "refuse", "times": 2})

        statuses = [
            (await _post(server.port, "/embed", {"inputs": ["a"]})).status
            for _ in range(3)
        ]

        assert statuses == [429, 429, 200]


@ensureDeferred
async def test_an_unknown_fault_is_answered_with_those_there_are() -> None:
    """Whoever experiments need not read the code."""
    async with breakable(Traits()) as server:
        answer = await _post(server.port, "/-/break", {"fault": "flood"})

        assert answer.status == 400
        assert "cut" in answer.json["faults"]


@pytest.mark.parametrize(
    ("inputs", "status", "kind"),
    [
        (["a"] * 5, 422, "Validation"),
        (["a", ""], 400, "Empty"),
        (["a", "BAD"], 422, "Validation"),
        (["a"] * 4, 429, "Overloaded"),
    ],
)
@ensureDeferred
async def test_it_refuses_what_tei_refuses(
    inputs: list[str], status: int, kind: str
) -> None:
    """In the same words, so that the proxy understands them."""
    async with breakable(Traits(max_batch=4, permits=3)) as server:
        answer = await _post(server.port, "/embed", {"inputs": inputs})

        assert (answer.status, answer.json["error_type"]) == (status, kind)


@ensureDeferred
async def test_when_it_dies_its_port_is_closed() -> None:
    """As a process that is gone has no port."""
    async with breakable(Traits(restart_s=60)) as server:
        caller = await connect(server.port)
        dying = caller.embed("DEADLY").addErrback(lambda _: "died")

        assert await dying == "died"
        with pytest.raises(ConnectError):
            await connect(server.port)
