"""Callers that ask all the time, and look at each answer."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from support.client import Answer, Caller, together
from support.proxy import StartedProxy

__all__ = ["load"]


async def _asks_on(caller: Caller, name: str, is_over: list[bool]) -> list[Answer]:
    """Ask until it is over; only answers that are not the caller's rows are kept."""
    wrong, turn = [], 0
    while not is_over:
        own = [f"{name} {turn} {at}" for at in range(1 + turn % 3)]
        answer = await caller.embed(*own)
        if not answer.is_for(own):
            wrong.append(answer)
        turn += 1
    return wrong


@asynccontextmanager
async def load(here: StartedProxy, callers: int = 30) -> AsyncIterator[None]:
    """Keep callers asking; each gets its own rows, every time."""
    is_over: list[bool] = []
    crowd = await here.crowd(callers)
    asked = together(
        _asks_on(caller, f"caller {at}", is_over) for at, caller in enumerate(crowd)
    )
    yield
    is_over.append(True)
    assert await asked == [[]] * callers
    await here.comes_to_rest()
