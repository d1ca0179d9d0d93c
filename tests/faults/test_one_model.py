"""A server that comes back as another model: no call gets rows of two."""

from typing import Any

import pytest
from pytest_twisted import ensureDeferred

from bench.breakable import Traits, row_of
from support.client import Answer, Caller, together, until
from support.proxy import StartedProxy, inference_server, paths_of, started_proxy

TEXTS = [f"text {at}" for at in range(150)]
SWAPS = 4
LARGE = Traits(model="m0", sha="sha-0", ms=4, workers=2, restart_s=0.05)


def models_of(answer: Answer) -> set[int]:
    """Return which models have computed the rows in an answer."""
    rows = answer.json
    assert len(rows) == len(TEXTS)
    return {
        model
        for row, text in zip(rows, TEXTS, strict=True)
        for model in range(SWAPS + 1)
        if row == row_of([f"m{model}", f"sha-{model}", text])
    }


async def swap(here: StartedProxy, model: int) -> None:
    """Kill the server; it comes back as another model."""
    here.upstream.die()
    here.upstream.change(model=f"m{model}", sha=f"sha-{model}")
    await until(lambda: here.upstream._listening is not None)


def ask(callers: list[Caller], answers: list[Answer], is_over: list[None]) -> Any:
    """Ask for the rows of all texts again and again."""

    async def one(caller: Caller) -> None:
        while not is_over:
            answers.append(await caller.embed(*TEXTS))

    return together(one(caller) for caller in callers)


async def more(answers: list[Answer], count: int) -> None:
    """Wait for some more answers."""
    most = len(answers) + count
    await until(lambda: len(answers) >= most)


@pytest.mark.parametrize("client", ["fast", "treq"])
@pytest.mark.parametrize("cache_bytes", [0, 1 << 24])
@ensureDeferred
async def test_a_server_that_comes_back_as_another_model_mixes_no_rows(
    client: str, cache_bytes: int
) -> None:
    """Large calls go on while it is killed again and again."""
    about = {"fast_paths": paths_of(client), "cache_bytes": cache_bytes}
    async with started_proxy(LARGE, **about) as here:
        callers, answers = await here.crowd(4), list[Answer]()
        is_over: list[None] = []
        asking = ask(callers, answers, is_over)
        for model in range(1, SWAPS + 1):
            await more(answers, 3)
            await swap(here, model)
        await more(answers, 5)
        is_over.append(None)
        await asking

        good = [answer for answer in answers if answer.status == 200]
        assert [len(models_of(answer)) for answer in good] == [1] * len(good)
        assert set().union(*map(models_of, good)) >= {0, SWAPS}
        bad = {answer.json["error"] for answer in answers if answer.status != 200}
        assert all("another model" in words for words in bad)
        await here.comes_to_rest()


@ensureDeferred
async def test_answers_say_which_model_they_are_of_if_that_is_asked_for() -> None:
    """The rows of a call that is alone, shared, split or remembered."""
    async with started_proxy(LARGE, model_header=True, cache_bytes=1 << 24) as here:
        caller = await here.caller()
        for model in (0, 1):
            if model:
                await swap(here, model)
                await until(lambda: here.upstream.seen.deaths == 1)
                await until(lambda: inference_server(here.service).is_certain)
            large = await caller.embed(*TEXTS)
            again = await caller.embed(TEXTS[0])
            lone = await caller.embed(f"lone {model}")
            for answer in (large, again, lone):
                assert answer.header("X-Model-Sha") == f"sha-{model}"
            assert again.header("X-Cache") == "hit"


@ensureDeferred
async def test_no_answer_says_which_model_it_is_of_otherwise() -> None:
    """Its lines are the server's."""
    async with started_proxy(LARGE) as here:
        caller = await here.caller()

        answer = await caller.embed("a")

        assert answer.status == 200
        assert answer.header("X-Model-Sha") is None
