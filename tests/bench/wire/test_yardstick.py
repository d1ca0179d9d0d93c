"""The yardstick is honest: it gives the right answers, and it batches."""

import asyncio
import json
from http.client import HTTPConnection
from typing import Any

import pytest

from bench.wire.checker import check
from bench.wire.contestants import Ground
from bench.wire.processes import Child
from bench.wire.workloads import Workload

pytest.importorskip("aiohttp")

from bench.wire.yardstick import MOST_INPUTS, SLOTS, Lane


def _asked(server: Child, path: str, body: dict[str, Any]) -> tuple[int, bytes]:
    connection = HTTPConnection("127.0.0.1", int(server.url.rpartition(":")[2]))
    connection.request("POST", path, json.dumps(body))
    response = connection.getresponse()
    answered = response.status, response.read()
    connection.close()
    return answered


@pytest.mark.parametrize("is_openai", [False, True], ids=["embed", "openai"])
@pytest.mark.parametrize("inputs", [1, 2, 5])
def test_its_answers_are_right(yardstick: Child, inputs: int, is_openai: bool) -> None:  # noqa: FBT001
    """Under load, byte for byte, for calls of one size and of another."""
    workload = Workload(
        name="small", clients=20, inputs=inputs, dimensions=8, is_openai=is_openai
    )

    assert check(yardstick.url, workload) == 300


@pytest.mark.parametrize("form", ["float", "base64"])
def test_its_floats_are_those_of_the_upstream(
    yardstick: Child, direct: Child, form: str
) -> None:
    """In both forms of the OpenAI route."""
    body = {"input": ["a", "b"], "encoding_format": form}

    asked = (_asked(server, "/v1/embeddings", body) for server in (yardstick, direct))
    ours, theirs = (json.loads(answered) for _, answered in asked)
    assert ours == theirs


def test_what_the_upstream_refuses_is_an_error(yardstick: Child) -> None:
    """An honest one, not a wrong answer."""
    assert _asked(yardstick, "/embed", {"inputs": []})[0] == 502


class Upstream:
    """Answers when it is told to, and remembers what it was asked."""

    def __init__(self) -> None:
        self.asked: list[list[str]] = []
        self.may_answer = asyncio.Event()

    async def __call__(self, inputs: list[str]) -> list[str]:
        self.asked.append(inputs)
        await self.may_answer.wait()
        return [each.upper() for each in inputs]


async def _sent(calls: list[list[str]]) -> tuple[list[list[str]], list[Any]]:
    upstream = Upstream()
    lane = Lane(upstream)
    answers = asyncio.gather(*(lane.rows_of(call) for call in calls))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    upstream.may_answer.set()
    return upstream.asked, await answers


def test_calls_leave_at_once_while_a_slot_is_free() -> None:
    """The others wait and then travel together."""
    calls = [[f"{number}"] for number in range(SLOTS + 3)]

    asked, answers = asyncio.run(_sent(calls))
    assert [len(batch) for batch in asked] == [*[1] * SLOTS, 3]
    assert answers == calls


def test_a_batch_has_a_cap() -> None:
    """As many inputs as the upstream takes."""
    calls = [["a", "b", "c"]] * (SLOTS + 20)

    asked, answers = asyncio.run(_sent(calls))
    assert max(map(len, asked)) == MOST_INPUTS - MOST_INPUTS % 3
    assert answers == [["A", "B", "C"]] * len(calls)


def test_it_says_what_is_missing(
    ground: Ground, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the command that gets it."""
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)

    with pytest.raises(
        Exception, match=r"aiohttp and orjson: pip install '\.\[bench\]'"
    ):
        ground.aiohttp("http://127.0.0.1:1")
