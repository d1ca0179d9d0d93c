"""A real Prometheus watches a real proxy, whose upstream breaks on command."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from attrs import frozen
from pytest_twisted import ensureDeferred
from twisted.internet.error import ConnectionAborted

from bench.breakable import Breakable, Traits
from deploy.deployed import needs, panels, queries
from deploy.realprometheus import Prometheus, prometheus
from support.client import connect, together, until
from support.processes import Daemon, daemon
from support.upstream import breakable

ALERT = "AbproxyUpstreamUnreachable"
OF_SERVERS = "abproxy_server_"


@frozen(kw_only=True)
class _Watched:
    """An upstream, a proxy, and who watches it."""

    upstream: Breakable
    proxy: Daemon
    watch: Prometheus


@asynccontextmanager
async def _watched(folder: Path, *options: str) -> AsyncIterator[_Watched]:
    async with (
        breakable(Traits()) as upstream,
        daemon(folder, upstream, *options) as proxy,
        prometheus(folder, proxy.port) as watch,
    ):
        await watch.becomes('up{job="abproxy"} == 1')
        await watch.becomes("abproxy_upstream_up == 1")
        # Until it had found the proxy, it had something to report.
        await watch.becomes("absent(ALERTS)")
        yield _Watched(upstream=upstream, proxy=proxy, watch=watch)


@needs("prometheus")
@ensureDeferred
async def test_an_upstream_that_is_away_is_reported_until_it_is_back(
    tmp_path: Path,
) -> None:
    """First it is only suspected; when it answers again, all is quiet."""
    async with _watched(tmp_path) as here:
        watch, client = here.watch, await connect(here.proxy.port)

        await here.upstream.stop()
        ready = await client.get("/-/ready")
        await watch.becomes(f'ALERTS{{alertname="{ALERT}", alertstate="firing"}}')
        during = await watch.alerts()
        here.upstream.start()
        answer = await client.embed("a")
        await watch.becomes(f'absent(ALERTS{{alertname="{ALERT}"}})')

        assert (ready.status, answer.status) == (503, 200)
        assert set(during) == {ALERT}
        told = during[ALERT]["annotations"]
        assert told["description"].startswith("It is unreachable for a minute")
        states = await watch.ask(f'count_over_time(ALERTS{{alertname="{ALERT}"}}[5m])')
        assert len(states) == len(("pending", "firing"))
        assert await watch.alerts() == {}
        client.hang_up()
        await until(lambda: not client.is_open)


async def _asks(here: _Watched, path: str, body: bytes) -> int:
    caller = await connect(here.proxy.port, closes=True)
    answer = await caller.post(path, body)
    await until(lambda: not caller.is_open)
    return answer.status


async def _leaves(here: _Watched) -> None:
    """Ask, and hang up when the upstream has heard of it."""
    here.upstream.break_("stall")
    before = len(here.upstream.seen.batches)
    caller = await connect(here.proxy.port)
    asked = caller.embed("a")
    asked.addErrback(lambda failure: failure.trap(ConnectionAborted))
    await until(lambda: len(here.upstream.seen.batches) > before)
    caller.hang_up()
    await asked


async def _all_happens(here: _Watched) -> list[int]:
    """A good call, a bad one, and all that can go wrong; the statuses."""
    await _leaves(here)
    good, bad = b'{"inputs":["a"]}', b'{"inputs":["BAD"]}'
    statuses = [
        *await together(_asks(here, "/embed", body) for body in [good, bad, good]),
        await _asks(here, "/nowhere", b""),
        await _asks(here, "/embed", b" " * 2001),
    ]
    here.upstream.break_("cut", times=3)
    return [*statuses, await _asks(here, "/embed", good)]


@needs("prometheus")
@ensureDeferred
async def test_every_panel_of_the_dashboard_has_figures(tmp_path: Path) -> None:
    """After a day on which everything happens that is shown."""
    async with _watched(tmp_path, "--max-body-bytes=2000") as here:
        first = await _all_happens(here)
        await here.watch.becomes('abproxy_calls_total{status="502"}')
        second = await _all_happens(here)

        await together(
            here.watch.becomes(query)
            for panel in panels()
            for query in queries(panel)
            if OF_SERVERS not in query
        )

        assert first == second == [200, 422, 200, 404, 413, 502]


@needs("prometheus")
@ensureDeferred
async def test_panels_of_several_servers_have_figures(tmp_path: Path) -> None:
    """With one server there is nothing to tell apart."""
    async with breakable(Traits()) as one, breakable(Traits()) as other:
        urls = f"--inference-service-url={one.url},{other.url}"
        async with (
            daemon(tmp_path, one, urls) as proxy,
            prometheus(tmp_path, proxy.port) as watch,
        ):
            here = _Watched(upstream=one, proxy=proxy, watch=watch)
            await watch.becomes("abproxy_upstream_up == 1")
            for server in (one, other):
                server.break_("refuse", 429)
            body = b'{"inputs":["a"]}'
            statuses = [await _asks(here, "/embed", body) for _ in range(20)]
            await watch.becomes("abproxy_server_share")
            await one.stop()
            statuses += [await _asks(here, "/embed", body) for _ in range(20)]

            asked = [
                query
                for panel in panels()
                for query in queries(panel)
                if OF_SERVERS in query
            ]
            await together(watch.becomes(query) for query in asked)

            assert asked
            assert set(statuses) == {200}
