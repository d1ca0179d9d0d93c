"""The same with real sockets, where bytes take their time."""

from typing import Any

import msgspec
import pytest
from pytest_twisted import ensureDeferred

from bench.breakable import Traits
from support.client import together, until
from support.network import bound
from support.proxy import paths_of, started_proxy

CLIENTS = ["fast", "treq"]
TOGETHER: dict[str, Any] = {"max_wait_ms": 60_000, "max_batch_calls": 8}


@pytest.mark.parametrize("client", CLIENTS)
@pytest.mark.parametrize("places", [[0], [7], [3, 4]])
@ensureDeferred
async def test_a_firewall_refuses_only_who_says_the_words(
    places: list[int], client: str
) -> None:
    """The others get their rows, and nobody a page that is not about its own text."""
    async with started_proxy(fast_paths=paths_of(client), **TOGETHER) as here:
        here.upstream.be("firewall")
        callers = await here.crowd(8)
        texts = [f"text {at}" for at in range(8)]
        await together(
            caller.embed(text) for caller, text in zip(callers, texts, strict=True)
        )
        here.upstream.seen.batches.clear()
        for at in places:
            texts[at] = "x; DROP TABLE y"

        answers = await together(
            caller.embed(text) for caller, text in zip(callers, texts, strict=True)
        )

        refused = [at for at, answer in enumerate(answers) if answer.status == 403]
        right = [at for at, answer in enumerate(answers) if answer.is_for([texts[at]])]
        assert (refused, len(right)) == (places, 8 - len(places))
        assert all(b"403 Forbidden" in answers[at].body for at in refused)
        assert len(here.upstream.seen.batches) <= bound(8, len(places))
        await here.comes_to_rest()


@pytest.mark.parametrize("client", CLIENTS)
@ensureDeferred
async def test_a_restart_behind_a_gateway_is_a_delay(client: str) -> None:
    """What its port answers meanwhile reaches nobody."""
    traits = Traits(gateway=502, ms=50)
    async with started_proxy(traits, fast_paths=paths_of(client), **TOGETHER) as here:
        callers = await here.crowd(8)
        texts = [f"text {at}" for at in range(8)]
        asked = together(
            caller.embed(text) for caller, text in zip(callers, texts, strict=True)
        )
        await until(lambda: here.upstream.work.inputs)

        here.upstream.die(0.3)
        answers = await asked

        assert [
            answer.is_for([text]) for answer, text in zip(answers, texts, strict=True)
        ] == [True] * 8
        await here.comes_to_rest()


@pytest.mark.parametrize("client", CLIENTS)
@ensureDeferred
async def test_late_chunks_travel_alone_and_whole(client: str) -> None:
    """Rows that depend on others of their call are not changed by other calls."""
    async with started_proxy(Traits(max_batch=64), fast_paths=paths_of(client)) as here:
        callers = await here.crowd(8)
        calls = [
            {"inputs": [f"{at} {of}" for of in range(40)], "late_chunking": True}
            for at in range(8)
        ]
        body = list(map(msgspec.json.encode, calls))

        shared = await together(
            caller.post("/embed", own)
            for caller, own in zip(callers, body, strict=True)
        )
        alone = [await callers[0].post("/embed", own) for own in body]

        assert [each.body for each in shared] == [each.body for each in alone]
        assert here.upstream.seen.batches == [40] * 16
