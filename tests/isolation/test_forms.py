"""Answers in other forms than TEI's and OpenAI's own."""

from typing import Any

import msgspec
import pytest

from bench.breakable import Traits, row_of
from support.network import network

OPENAI = "/v1/embeddings"
TOGETHER: dict[str, Any] = {"max_wait_ms": 100, "max_batch_calls": 8}


@pytest.mark.parametrize("client", ["fast", "treq"])
@pytest.mark.parametrize("mood", ["no-index", "null-index", "no-zero-index"])
def test_rows_without_indexes_are_in_their_order(mood: str, client: str) -> None:
    """In one request, each caller gets its own, whatever number they lack."""
    with network(mood=mood, client=client, **TOGETHER) as here:
        texts = [[f"{at}, {of}" for of in range(1 + at % 3)] for at in range(8)]

        got = here.settle(*[here.post({"input": own}, path=OPENAI) for own in texts])

        rows = [
            [each["embedding"] for each in msgspec.json.decode(body)["data"]]
            for _, body in got
        ]
        assert rows == [[row_of(text) for text in own] for own in texts]
        assert len(here.upstream.inputs) == 1


def _numbers(usage: Any, path: str = "") -> dict[str, float]:
    found: dict[str, float] = {}
    for name, value in usage.items():
        if isinstance(value, dict):
            found |= _numbers(value, f"{path}{name}.")
        else:
            found[path + name] = value
    return found


def _usage(told: tuple[int, bytes]) -> dict[str, float]:
    return _numbers(msgspec.json.decode(told[1])["usage"])


NAMES = {
    "prompt_tokens",
    "total_tokens",
    "cost",
    "prompt_tokens_details.cached_tokens",
}


def _expected(characters: int) -> dict[str, float]:
    return {
        "prompt_tokens": characters,
        "total_tokens": characters,
        "cost": pytest.approx(characters * 1.3e-7, abs=2e-9),
        "prompt_tokens_details.cached_tokens": characters // 2,
    }


def test_every_number_of_a_usage_is_shared_out() -> None:
    """Whatever its depth and kind, the shares add up to what was billed."""
    with network(mood="bills", **TOGETHER) as here:
        texts = ["x" * (1 + 3 * at) for at in range(8)]

        got = here.settle(*[here.post({"input": own}, path=OPENAI) for own in texts])

        shares = [_usage(told) for told in got]
        assert len(here.upstream.inputs) == 1
        assert {name: sum(each[name] for each in shares) for name in NAMES} == (
            _expected(sum(map(len, texts)))
        )


def test_the_usage_of_a_call_that_was_split_is_the_sum_of_its_parts() -> None:
    """A caller is told what its call cost, however it was sent."""
    with network(mood="bills", max_batch_inputs=4) as here:
        texts = ["x" * (2 + 2 * at) for at in range(10)]

        [told] = here.settle(here.post({"input": texts}, path=OPENAI))

        assert len(here.upstream.inputs) == 3
        assert _usage(told) == _expected(sum(map(len, texts)))


@pytest.mark.parametrize(
    "more",
    [{"late_chunking": True}, {"modality": ["text", "text", "image"]}],
)
@pytest.mark.parametrize("path", ["/embed", OPENAI])
def test_inputs_that_depend_on_each_other_stay_alone_and_whole(
    path: str, more: dict[str, Any]
) -> None:
    """Their rows are what they are directly, and no byte of the request is another."""
    member = "inputs" if path == "/embed" else "input"
    openai = Traits(openai=True, max_batch=2048)
    with network(openai, max_batch_inputs=2, **TOGETHER) as here:
        calls = [{member: [f"{at} {of}" for of in range(3)], **more} for at in range(8)]

        got = here.settle(*[here.post(call, path=path) for call in calls])

        assert got == [here.alone(call, path=path) for call in calls]
        sent = {request.body for request in here.upstream.requests}
        assert sent == {msgspec.json.encode(call) for call in calls}
