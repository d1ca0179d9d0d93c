"""Whose inputs are whose: none is lost, swapped, or blamed for another."""

from typing import Any

import msgspec
import pytest
from pytest_twisted import ensureDeferred

from bench.breakable import row_of
from support.client import together
from support.proxy import started_proxy

CALLS = [["a", "b", "c"], ["d"], ["e", "f"], ["g", "h", "i", "j"]]
POSITIONS = [(call, at) for call, texts in enumerate(CALLS) for at in range(len(texts))]


@pytest.mark.parametrize(("bad", "at"), POSITIONS)
@ensureDeferred
async def test_a_bad_input_fails_its_own_call_wherever_it_is(bad: int, at: int) -> None:
    """Its sender hears what the upstream says to it alone; the others get rows."""
    calls = [list(texts) for texts in CALLS]
    calls[bad][at] = "BAD"
    async with started_proxy(max_wait_ms=60_000, max_batch_calls=4) as here:
        callers = await here.crowd(4)

        answers = await together(
            caller.embed(*texts) for caller, texts in zip(callers, calls, strict=True)
        )

        failed = answers.pop(bad)
        calls.pop(bad)
        assert (failed.status, failed.json["error_type"]) == (422, "Validation")
        assert [each.is_for(own) for each, own in zip(answers, calls, strict=True)] == [
            True
        ] * 3
        assert len(here.upstream.seen.batches) <= 1 + 2 * 2 + 2
        await here.comes_to_rest()


@ensureDeferred
async def test_all_bad_inputs_get_an_error_each() -> None:
    """At most two requests are made for each of them."""
    async with started_proxy(max_wait_ms=60_000, max_batch_calls=16) as here:
        callers = await here.crowd(16)

        answers = await together(caller.embed("BAD") for caller in callers)

        assert [answer.status for answer in answers] == [422] * 16
        assert len(here.upstream.seen.batches) <= 2 * 16
        await here.comes_to_rest()


@ensureDeferred
async def test_calls_with_different_options_never_share() -> None:
    """What one caller asked for is not done to another."""
    bodies = [
        {"inputs": ["a"], "normalize": True},
        {"inputs": ["b"], "normalize": False},
        {"inputs": ["c"]},
        {"inputs": ["d"], "normalize": False},
    ]
    async with started_proxy(max_wait_ms=60_000, max_batch_calls=2) as here:
        callers = await here.crowd(4)

        answers = await together(
            caller.post("/embed", msgspec.json.encode(body))
            for caller, body in zip(callers, bodies, strict=True)
        )

        right = [
            answer.is_for(text) for answer, text in zip(answers, "abcd", strict=True)
        ]
        assert right == [True] * 4
        assert here.upstream.seen.batches == [2, 2]


@pytest.mark.parametrize("count", [32, 33, 64, 1000, 10_000])
@ensureDeferred
async def test_a_call_of_any_size_is_answered_in_order(count: int) -> None:
    """It is cut into batches and joined again."""
    texts = [f"text {at}" for at in range(count)]
    async with started_proxy() as here:
        [caller] = await here.crowd(1)

        answer = await caller.embed(*texts)

        assert answer.is_for(texts)
        assert max(here.upstream.seen.batches) == 32
        await here.comes_to_rest()


def _embeddings(answer: Any) -> list[tuple[int, list[float]]]:
    return [(each["index"], each["embedding"]) for each in answer.json["data"]]


@ensureDeferred
async def test_an_openai_call_of_any_size_is_answered_in_order() -> None:
    """With indexes from 0 on, whatever they were upstream."""
    texts = [f"text {at}" for at in range(100)]
    async with started_proxy() as here:
        [caller] = await here.crowd(1)

        answer = await caller.post(
            "/v1/embeddings", msgspec.json.encode({"input": texts})
        )

        expected = [(at, row_of(text)) for at, text in enumerate(texts)]
        assert _embeddings(answer) == expected
