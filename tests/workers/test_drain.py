"""A drain reaches all workers, whichever of them is asked."""

import os
import signal
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from pytest_twisted import ensureDeferred

from bench.breakable import Breakable, Traits
from support.client import Answer, Caller, connect, the_reactor, together, until
from support.processes import Daemon, daemon, paused, workers_of

KEY = "of-operators"
OWNERS = ("small", "large")


@asynccontextmanager
async def two_of_each(
    folder: Path, *options: str
) -> AsyncIterator[tuple[Daemon, Sequence[Breakable]]]:
    """Run two workers in front of two servers of two models."""
    servers = [Breakable(reactor=the_reactor(), traits=Traits()) for _ in range(2)]
    for each in servers:
        each.start()
    urls = ",".join(each.url for each in servers)
    file = folder / "models.toml"
    file.write_text("".join(f'[{name}]\nurl = "{urls}"\n' for name in OWNERS))
    options = ("--workers=2", f"--models={file}")
    try:
        async with daemon(folder, servers[0], *options, ADMIN_KEY=KEY) as here:
            await until(lambda: " with 2 workers" in here.log.read_text())
            yield here, servers
            here.process.terminate()
            await until(lambda: here.process.poll() is not None)
    finally:
        for each in servers:
            await each.stop()


async def _operate(here: Daemon, method: str, path: str = "") -> Answer:
    caller = await connect(here.port, closes=True)
    shown = f"Host: proxy\r\nAuthorization: Bearer {KEY}\r\nContent-Length: 0"
    page = f"/-/upstreams{path}"
    answer = await caller.send(f"{method} {page} HTTP/1.1\r\n{shown}\r\n\r\n".encode())
    caller.hang_up()
    return answer


async def _change(here: Daemon, server: Breakable, action: str) -> Any:
    """Drain or resume, again and again until it is done, as a script of operators."""
    path = f"/{server.url.partition('//')[2]}/{action}"
    while (answer := await _operate(here, "POST", path)).status != 200:
        # A worker may not know yet which model a server has, or be slow to answer.
        assert answer.status in {409, 502}, answer.body
    return answer.json


async def _callers_of_each(here: Daemon) -> list[list[Caller]]:
    """Connect ten callers to each worker, and let each ask once."""
    found = []
    workers = workers_of(here.process.pid)
    for other in reversed(workers):
        async with paused(other):
            callers = await together(connect(here.port) for _ in range(10))
            await _ask(callers)
        found.append(callers)
    return found


async def _ask(callers: Sequence[Caller]) -> None:
    """Let each caller ask both models."""
    for name in OWNERS:
        asked = [
            caller.post(f"/models/{name}/embed", b'{"inputs":["a"]}')
            for caller in callers
        ]
        answers = await together(asked)
        assert all(answer.is_for(["a"]) for answer in answers)


def _hang_up(callers: Sequence[Sequence[Caller]]) -> None:
    for each in callers:
        for caller in each:
            caller.hang_up()


@ensureDeferred
async def test_a_drain_reaches_every_worker_and_model(tmp_path: Path) -> None:
    """What is drained gets nothing of any, until it is resumed."""
    async with two_of_each(tmp_path) as (here, [drained, _]):
        callers = await _callers_of_each(here)

        said = await _change(here, drained, "drain")
        had = len(drained.seen.batches)
        for _ in range(5):
            await together(map(_ask, callers))

        assert said["is_drained"]
        assert [each["model"] for each in said["upstreams"]] == list(OWNERS)
        assert len(drained.seen.batches) == had

        assert not (await _change(here, drained, "resume"))["is_drained"]
        for each in callers:
            had = len(drained.seen.batches)
            while len(drained.seen.batches) == had:
                await _ask(each)
        _hang_up(callers)


@ensureDeferred
async def test_the_last_server_of_a_model_is_not_drained(tmp_path: Path) -> None:
    """The answer says of which."""
    async with two_of_each(tmp_path) as (here, [drained, last]):
        await _change(here, drained, "drain")

        answer = await _operate(here, "POST", f"/{last.url.partition('//')[2]}/drain")

        assert answer.status == 409
        said = "no other server of small takes calls at the moment"
        assert answer.json["error"] == said


@ensureDeferred
async def test_a_drain_that_a_worker_has_not_heard_is_an_error(tmp_path: Path) -> None:
    """Who asks again once it answers has drained all of them."""
    async with two_of_each(tmp_path) as (here, [drained, _]):
        callers = await _callers_of_each(here)
        [silent, _] = workers_of(here.process.pid)
        # After this both workers know what both servers have.
        await _change(here, drained, "drain")
        await _change(here, drained, "resume")
        path = f"/{drained.url.partition('//')[2]}/drain"
        async with paused(silent):
            answer = await _operate(here, "POST", path)
        assert answer.status == 502

        assert (await _change(here, drained, "drain"))["is_drained"]
        had = len(drained.seen.batches)
        await together(map(_ask, callers))
        assert len(drained.seen.batches) == had
        _hang_up(callers)


@ensureDeferred
async def test_a_worker_that_is_started_anew_has_it_drained(tmp_path: Path) -> None:
    """Its predecessor was told; it knows from the start."""
    async with two_of_each(tmp_path) as (here, [drained, _]):
        await _change(here, drained, "drain")
        [killed, spared] = workers_of(here.process.pid)
        had = len(drained.seen.batches)

        os.kill(killed, signal.SIGKILL)
        await until(lambda: set(workers_of(here.process.pid)) - {killed, spared})
        async with paused(spared):
            callers = await together(connect(here.port) for _ in range(10))
            for _ in range(5):
                await _ask(callers)

        assert len(drained.seen.batches) == had
        _hang_up([callers])
