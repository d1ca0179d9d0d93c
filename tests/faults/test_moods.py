"""Servers, gateways and firewalls of each kind: no call hangs, the next is right."""

import msgspec
import pytest
from pytest_twisted import ensureDeferred

from bench.attack.faulty import BAD, FAULTY, RELAYED
from bench.attack.rows import are_own
from bench.breakable import Traits
from bench.breakable.moods import MOODS
from support.client import Answer, together
from support.proxy import StartedProxy, paths_of, started_proxy

SETTINGS = {
    "max_wait_ms": 20,
    "upstream_timeout_s": 0.5,
    "connect_patience_s": 1.0,
    "overload_patience_s": 0.5,
}
CALLS = {"alone": [[BAD, "a"]], "together": [[BAD, "a"], ["b", "c"]]}


async def ask(here: StartedProxy, texts: list[str], more: bytes = b"}") -> Answer:
    """Ask for the rows of *texts* on a connection of its own."""
    caller = await here.caller()
    body = msgspec.json.encode({"inputs": texts})
    answer: Answer = await caller.post("/embed", body[:-1] + more)
    return answer


async def is_well_afterwards(here: StartedProxy) -> bool:
    """Mend the server, and ask once more."""
    here.upstream.mend()
    here.upstream.change(**msgspec.to_builtins(Traits()))
    answer = await ask(here, ["next"])
    await here.comes_to_rest()
    return answer.is_for(["next"])


@pytest.mark.parametrize("client", ["fast", "treq"])
@pytest.mark.parametrize("mood", MOODS)
@ensureDeferred
async def test_whatever_the_server_is_like_no_call_hangs(
    mood: str, client: str
) -> None:
    """Alone, with another, and relayed."""
    async with started_proxy(fast_paths=paths_of(client), **SETTINGS) as here:
        here.upstream.be(mood)

        for calls in CALLS.values():
            answers = await together(ask(here, texts) for texts in calls)
            pairs = zip(answers, calls, strict=True)
            assert all(are_own(answer.body, texts) for answer, texts in pairs)
        assert (await ask(here, ["d"], RELAYED)).status

        assert await is_well_afterwards(here)


@pytest.mark.parametrize("client", ["fast", "treq"])
@pytest.mark.parametrize(("fault", "value"), FAULTY)
@ensureDeferred
async def test_whatever_the_server_answers_no_call_gets_rows_of_another(
    fault: str, value: int, client: str
) -> None:
    """Alone, and with another."""
    async with started_proxy(fast_paths=paths_of(client), **SETTINGS) as here:
        for calls in CALLS.values():
            here.upstream.break_(fault, value, 1)
            answers = await together(ask(here, texts) for texts in calls)
            pairs = zip(answers, calls, strict=True)
            assert all(are_own(answer.body, texts) for answer, texts in pairs)

        assert await is_well_afterwards(here)
