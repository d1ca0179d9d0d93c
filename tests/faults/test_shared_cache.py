"""A real Redis that several proxies share: up, away, slow, full, and with garbage."""

import shutil
import signal
import socket
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import pytest
from attrs import define
from pytest_twisted import ensureDeferred

from abproxy.reuse.entry import Keys
from abproxy.reuse.layers import Layers
from support.client import sleep, together, until
from support.proxy import StartedProxy, model_of, started_proxy

pytestmark = pytest.mark.skipif(
    shutil.which("redis-server") is None, reason="redis-server is not installed"
)


@define(eq=False)
class Redis:
    """A real server at a socket of its own."""

    folder: Path
    process: Any = None

    @property
    def path(self) -> Path:
        """The socket."""
        return self.folder / "redis.sock"

    @property
    def url(self) -> str:
        """How proxies know it."""
        return f"unix://{self.path}"

    def start(self, *options: str) -> None:
        """Start it, empty."""
        program = shutil.which("redis-server")
        assert program is not None
        self.process = subprocess.Popen(  # noqa: S603
            [program, "--port", "0", "--unixsocket", self.path, "--save", "", *options],
            cwd=self.folder,
            stdout=subprocess.DEVNULL,
        )

    def stop(self) -> None:
        """Kill it."""
        self.process.send_signal(signal.SIGCONT)
        self.process.kill()
        self.process.wait()
        self.path.unlink(missing_ok=True)

    def command(self, *words: str) -> bytes:
        """Let its own client send a command."""
        program = shutil.which("redis-cli")
        assert program is not None
        return subprocess.check_output(  # noqa: S603
            [program, "-s", self.path, *words]
        )


@pytest.fixture
def redis(tmp_path: Path) -> Iterator[Redis]:
    """Give a server that runs."""
    with _running(Redis(tmp_path)) as server:
        yield server


@contextmanager
def _running(server: Redis) -> Iterator[Redis]:
    server.start()
    try:
        yield server
    finally:
        server.stop()


def layers_of(proxy: StartedProxy) -> Layers:
    """Return what a proxy asks before it computes."""
    layers: Layers = model_of(proxy.service).layers
    return layers


@asynccontextmanager
async def proxies(redis: Redis, **settings: Any) -> AsyncIterator[list[StartedProxy]]:
    """Start two proxies that share a server, each with an upstream of its own."""
    await until(redis.path.exists)
    settings = {"cache_url": redis.url, **settings}
    async with AsyncExitStack() as stack:
        both = [
            await stack.enter_async_context(started_proxy(**settings)) for _ in range(2)
        ]
        for proxy in both:
            layers = layers_of(proxy)
            assert layers.shared is not None
            # As if both had said the same version of the same model.
            keys = Keys(epoch=["same"], by_client=False, are_ours=False)
            layers.learn(keys, shows=True)
            factory = layers.shared.store.client._factory
            await until(lambda each=factory: each.size)
        yield both


async def is_right(proxy: StartedProxy, *texts: str) -> bool:
    """Return whether a new caller is answered with the right rows."""
    [caller] = await proxy.crowd(1)
    return (await caller.embed(*texts)).is_for(list(texts))


async def from_others(proxy: StartedProxy) -> float:
    """Return how many inputs were answered by the shared server."""
    [caller] = await proxy.crowd(1)
    metrics = (await caller.get("/metrics")).body.decode()
    name = 'abproxy_reused_inputs_total{source="shared_cache"} '
    [line] = [each for each in metrics.splitlines() if each.startswith(name)]
    return float(line.removeprefix(name))


@ensureDeferred
async def test_two_proxies_remember_together(redis: Redis) -> None:
    """What one has computed the other knows, each input by itself."""
    async with proxies(redis) as (one, two):
        assert await is_right(one, "a", "b", "c")
        await until(lambda: redis.command("dbsize").strip() == b"3")
        assert await is_right(two, "c", "x", "a")
        assert await from_others(two) == 2


@ensureDeferred
async def test_a_server_that_is_killed_costs_no_call(redis: Redis) -> None:
    """And it is used again when it is back, empty as it is."""
    async with proxies(redis) as (one, two):
        assert await is_right(one, "a")
        redis.stop()
        for text in "abcdef":
            assert await is_right(one, text)
            assert await is_right(two, text)
        redis.start()
        await until(redis.path.exists)
        before = await from_others(two)

        async def is_found() -> bool:
            assert await is_right(one, "z")
            assert await is_right(two, "z")
            return await from_others(two) > before

        while not await is_found():
            await sleep(0.2)


@ensureDeferred
async def test_a_server_that_hangs_costs_no_call(redis: Redis) -> None:
    """It is waited for a moment, and then not asked."""
    async with proxies(redis) as (one, two):
        assert await is_right(one, "a")
        redis.process.send_signal(signal.SIGSTOP)
        answers = await together(is_right(two, f"t{n}") for n in range(50))
        assert all(answers)
        store = layers_of(two).shared
        assert store is not None
        assert store.store.is_away


@ensureDeferred
async def test_a_server_without_tls_does_not_keep_the_proxy_from_its_end() -> None:
    """A connection that has not shaken hands cannot say that it closes."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"rediss://127.0.0.1:{silent.getsockname()[1]}"
        async with started_proxy(cache_url=url) as proxy:
            assert await is_right(proxy, "a")


@ensureDeferred
async def test_a_server_without_memory_costs_no_call(redis: Redis) -> None:
    """It refuses what is to be kept."""
    async with proxies(redis) as (one, two):
        redis.command("config", "set", "maxmemory", "1")
        for text in "abcde":
            assert await is_right(one, text)
            assert await is_right(two, text)


@ensureDeferred
async def test_garbage_in_the_server_is_a_miss(redis: Redis) -> None:
    """Another program may write there as well."""
    spoil = "for _,k in ipairs(redis.call('keys','*')) do redis.call('set',k,'x') end"
    async with proxies(redis) as (one, two):
        assert await is_right(one, "a", "b")
        await until(lambda: redis.command("dbsize").strip() == b"2")
        redis.command("eval", spoil, "0")
        assert await is_right(two, "a", "b")
        assert await from_others(two) == 0


@ensureDeferred
async def test_entries_of_another_type_are_a_miss(redis: Redis) -> None:
    """MGET gives none for what is no text."""
    spoil = (
        "for _,k in ipairs(redis.call('keys','*')) do "
        "redis.call('del',k) redis.call('lpush',k,'x') end"
    )
    async with proxies(redis) as (one, two):
        assert await is_right(one, "a")
        await until(lambda: redis.command("dbsize").strip() == b"1")
        redis.command("eval", spoil, "0")
        assert await is_right(two, "a")


@ensureDeferred
async def test_the_rate_of_a_client_counts_in_both(redis: Redis) -> None:
    """Four inputs to one proxy leave none for the other."""
    settings = {"rate_limit": 4.0, "rate_limit_shared": True}
    async with proxies(redis, **settings) as (one, two):
        [first], [second] = await one.crowd(1), await two.crowd(1)
        assert (await first.embed("a", "b", "c", "d")).status == 200
        refused = await second.embed("a", "b", "c", "d")
        assert refused.status == 429
        assert int(refused.header("Retry-After") or 0) == 1


@ensureDeferred
async def test_each_proxy_counts_by_itself_while_the_server_is_away(
    redis: Redis,
) -> None:
    """A limit is no reason to refuse what could be answered."""
    settings = {"rate_limit": 4.0, "rate_limit_shared": True}
    async with proxies(redis, **settings) as (one, two):
        redis.stop()
        [first], [second] = await one.crowd(1), await two.crowd(1)
        assert (await first.embed("a", "b", "c", "d")).status == 200
        assert (await second.embed("a", "b", "c", "d")).status == 200
        assert (await second.embed("a", "b", "c", "d")).status == 429
