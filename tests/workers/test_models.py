"""Several models and several workers, as an operator starts them."""

import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from pytest_twisted import ensureDeferred

from bench.breakable import Breakable, Traits
from support.client import connect, the_reactor, until
from support.processes import Daemon, daemon


@asynccontextmanager
async def two_of_each(folder: Path) -> AsyncIterator[tuple[Daemon, Path]]:
    """Run two workers in front of two models."""
    small, large = (
        Breakable(reactor=the_reactor(), traits=Traits(dimensions=each))
        for each in (3, 7)
    )
    small.start()
    large.start()
    file = folder / "models.toml"
    file.write_text(f'[small]\nurl = "{small.url}"\n[large]\nurl = "{large.url}"\n')
    options = ("--workers=2", f"--models={file}")
    try:
        async with daemon(folder, small, *options) as here:
            await until(lambda: " with 2 workers" in here.log.read_text())
            yield here, file
            here.process.terminate()
            await until(lambda: here.process.poll() is not None)
    finally:
        await small.stop()
        await large.stop()


async def _dimensions(here: Daemon, model: str) -> int:
    """Ask a model; return how long its rows are, or 0 if there is no such model."""
    caller = await connect(here.port, closes=True)
    answer = await caller.post(f"/models/{model}/embed", b'{"inputs":["a"]}')
    caller.hang_up()
    if answer.status == 404:
        return 0
    return len(answer.json[0])


@ensureDeferred
async def test_all_workers_serve_all_models(tmp_path: Path) -> None:
    """Whichever accepts the connection, and the figures are of all together."""
    async with two_of_each(tmp_path) as (here, _):
        for model, dimensions in (("small", 3), ("large", 7)) * 4:
            assert await _dimensions(here, model) == dimensions

        caller = await connect(here.port, closes=True)
        status = (await caller.get("/-/status.json?model=large")).json
        caller.hang_up()
        assert [each["calls"] for each in status["models"]] == [4, 4]
        assert status["totals"]["calls"] == 4


@ensureDeferred
async def test_a_model_is_taken_out_of_all_workers(tmp_path: Path) -> None:
    """On one signal to the supervisor; a broken file changes nothing in any."""
    async with two_of_each(tmp_path) as (here, file):
        whole = file.read_text()
        file.write_text(whole + "x = 1\n")
        here.process.send_signal(signal.SIGHUP)
        await until(lambda: "no setting of a model" in here.log.read_text())
        assert await _dimensions(here, "large") == 7

        file.write_text(whole.partition("[large]")[0])
        here.process.send_signal(signal.SIGHUP)
        await until(
            lambda: here.log.read_text().count("large is not served any more") == 2
        )
        for _ in range(4):
            assert await _dimensions(here, "large") == 0
            assert await _dimensions(here, "small") == 3
