"""The server that batches by itself is a good one: what waits goes together."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from threading import Event

from bench.gpu.batcher import MOST_TEXTS, Batcher


class Held:
    """A model that computes when it may, and notes its steps."""

    def __init__(self) -> None:
        self.may = Event()
        self.begun = Event()
        self.steps: list[list[str]] = []

    def encode(self, texts: Sequence[str]) -> list[str]:
        self.steps.append([*texts])
        self.begun.set()
        self.may.wait()
        return [f"row of {text}" for text in texts]


async def _answers(model: Held, calls: Sequence[Sequence[str]]) -> list[list[str]]:
    batcher = Batcher(model)
    work = asyncio.create_task(batcher.work())
    first = asyncio.create_task(batcher.rows_of(calls[0]))
    await asyncio.get_running_loop().run_in_executor(None, model.begun.wait)
    others = asyncio.gather(*(batcher.rows_of(each) for each in calls[1:]))
    await asyncio.sleep(0)  # all of them wait
    model.may.set()
    rows = [await first, *await others]
    work.cancel()
    with suppress(asyncio.CancelledError):
        await work
    return rows


def test_what_waits_is_in_the_next_step() -> None:
    """And each call gets its own rows."""
    model = Held()
    rows = asyncio.run(_answers(model, [["a"], ["b"], ["c", "d"]]))

    assert model.steps == [["a"], ["b", "c", "d"]]
    assert rows == [["row of a"], ["row of b"], ["row of c", "row of d"]]


def test_a_step_has_a_bound() -> None:
    """What does not fit is in the one after."""
    model = Held()
    large = ["x"] * (MOST_TEXTS - 1)
    asyncio.run(_answers(model, [["a"], large, ["b"], ["c", "d"]]))

    assert [len(each) for each in model.steps] == [1, MOST_TEXTS, 2]
