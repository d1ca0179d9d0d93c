"""Several models behind one address: what happens to one costs no other."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
from attrs import define
from pytest_twisted import ensureDeferred

from abproxy.settings.settings import Settings, settings_from
from abproxy.wiring import wire
from bench.breakable import Breakable, Traits, row_of
from support.client import Caller, connect, the_reactor, together, until

DIMENSIONS = {"small": 3, "large": 7}
"""By these the rows of the models are told apart."""

TRAITS = Traits(ms=2, ms_per_input=0.1)


@define(kw_only=True, eq=False)
class Proxy:
    """The proxy on real sockets, and the servers of its models."""

    service: Any
    servers: dict[str, Breakable]
    file: Path

    async def callers(self, count: int) -> list[Caller]:
        """Connect so many."""
        return await together(
            connect(self.service._port.getHost().port) for _ in range(count)
        )

    def write(self, *names: str) -> None:
        """Let the file have just these models."""
        tables = [f'[{name}]\nurl = "{self.servers[name].url}"\n' for name in names]
        self.file.write_text("".join(tables), encoding="utf-8")


@asynccontextmanager
async def two_models(folder: Path) -> AsyncIterator[Proxy]:
    """Start two servers, and a proxy in front of both."""
    servers = {}
    for name, dimensions in DIMENSIONS.items():
        traits = Traits(
            ms=TRAITS.ms, ms_per_input=TRAITS.ms_per_input, dimensions=dimensions
        )
        servers[name] = Breakable(reactor=the_reactor(), traits=traits)
        servers[name].start()
    here = Proxy(service=None, servers=servers, file=folder / "models.toml")
    here.write(*servers)

    def read() -> Settings:
        return settings_from({}, {"PORT": "0", "MODELS": str(here.file)}, {})

    here.service = wire(read(), the_reactor(), read)
    here.service.startService()
    await until(lambda: here.service._port)
    try:
        yield here
    finally:
        await here.service.stopService()
        for server in servers.values():
            await server.stop()


async def _asks(caller: Caller, model: str, text: str, *, by_path: bool) -> int:
    """Ask for one text; return the status if these are not the model's own rows."""
    if by_path:
        path, body = f"/models/{model}/embed", msgspec.json.encode({"inputs": [text]})
    else:
        asked = {"input": [text], "model": model}
        path, body = "/v1/embeddings", msgspec.json.encode(asked)
    answer = await caller.post(path, body)
    if answer.status != 200:
        return answer.status
    rows = (
        answer.json if by_path else [each["embedding"] for each in answer.json["data"]]
    )
    return 0 if rows == [row_of(text, DIMENSIONS[model])] else -1


async def _asks_on(
    caller: Caller, at: int, is_over: list[bool], *models: str
) -> list[int]:
    """Ask one model after the other until it is over; return what went wrong."""
    wrong, turn = [], 0
    while not is_over:
        model = models[turn % len(models)]
        text = f"caller {at} turn {turn}"
        status = await _asks(caller, model, text, by_path=turn % 3 == 0)
        wrong += [status] if status else []
        turn += 1
    return wrong


@asynccontextmanager
async def load(here: Proxy, *models: str, callers: int = 12) -> AsyncIterator[None]:
    """Keep callers asking these models; each gets its own rows, every time."""
    is_over: list[bool] = []
    crowd = await here.callers(callers)
    asked = together(
        _asks_on(caller, at, is_over, *models) for at, caller in enumerate(crowd)
    )
    try:
        yield
    finally:
        is_over.append(True)
    assert await asked == [[]] * callers
    for caller in crowd:
        caller.transport.loseConnection()


def _batches(here: Proxy, name: str) -> int:
    return len(here.servers[name].seen.batches)


@ensureDeferred
async def test_each_call_gets_rows_of_its_model(tmp_path: Path) -> None:
    """Whichever model a connection has asked before."""
    async with two_models(tmp_path) as here, load(here, "small", "large"):
        await until(lambda: all(_batches(here, name) > 30 for name in DIMENSIONS))


@ensureDeferred
async def test_a_model_whose_server_dies_costs_the_other_nothing(
    tmp_path: Path,
) -> None:
    """Its calls go on, while those of the dead one wait."""
    async with two_models(tmp_path) as here:
        async with load(here, "large"):
            await here.servers["small"].stop()
            [caller] = await here.callers(1)
            waiting = _asks(caller, "small", "x", by_path=True)
            before = _batches(here, "large")
            await until(lambda: _batches(here, "large") > before + 30)
        here.servers["small"].start()
        assert not await waiting
        caller.transport.loseConnection()


@ensureDeferred
async def test_a_model_comes_and_goes_under_load(tmp_path: Path) -> None:
    """No call of the other notices, and none that was accepted is lost."""
    async with two_models(tmp_path) as here:
        [caller] = await here.callers(1)
        async with load(here, "small"):
            large = here.servers["large"]
            large.change(ms=100)
            for _ in range(3):
                asked = caller.post("/models/large/embed", b'{"inputs":["in flight"]}')
                await until(lambda: large.work.inputs)
                here.write("small")
                here.service.reload()
                answer = await asked
                assert answer.is_for(["in flight"])
                answer = await caller.post("/models/large/embed", b'{"inputs":"x"}')
                assert answer.status == 404
                here.write("small", "large")
                here.service.reload()
        caller.transport.loseConnection()


@ensureDeferred
async def test_a_drain_answers_the_calls_of_all_models(tmp_path: Path) -> None:
    """Also of one that was taken out before."""
    async with two_models(tmp_path) as here:
        callers = await here.callers(2)
        for server in here.servers.values():
            server.change(ms=100)
        asked = [
            _asks(caller, model, "x", by_path=True)
            for caller, model in zip(callers, DIMENSIONS, strict=True)
        ]
        answered = together(asked)
        await until(lambda: all(each.work.inputs for each in here.servers.values()))
        here.write("small")
        here.service.reload()

        stopped = here.service.stopService()

        assert await answered == [0, 0]
        await stopped
        for caller in callers:
            caller.transport.loseConnection()
