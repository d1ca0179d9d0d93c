"""The supervisor by itself, with real workers."""

import stat
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import attrs
import pytest
from pytest_twisted import ensureDeferred
from twisted.application.service import Application
from twisted.internet import reactor
from twisted.internet.error import ConnectError
from twisted.logger import ILogObserver, LogEvent, capturedLogs
from twisted.python.failure import Failure

from abproxy.errors import SettingsError
from abproxy.process import KILL_S
from abproxy.service.lifetime import ProcessContext
from abproxy.settings.settings import Settings
from abproxy.workers.supervisor import Supervisor
from abproxy.workers.wiring import wire_supervisor
from bench.breakable import Breakable, Traits
from support.client import Caller, connect, sleep, until
from support.upstream import breakable


@asynccontextmanager
async def supervisor(
    upstream: Breakable,
    read: Callable[[Settings], Settings] = lambda settings: settings,
    **more: Any,
) -> AsyncIterator[Supervisor]:
    """Run a supervisor with two workers."""
    settings = Settings(
        workers=2,
        **{"port": "0", "operations_port": "0", **more},
        upstream_url=upstream.url,
        drain_timeout_s=2.0,
    )
    here = wire_supervisor(settings, reactor, lambda: read(settings))
    with capturedLogs() as events:
        here.startService()
        await until(lambda: any("workers;" in said(event) for event in events))
    try:
        yield here
    finally:
        await here.stopService()


def said(event: LogEvent) -> str:
    """Return an event as the log shows it."""
    return str(event.get("log_format", "")).format(**event)


async def operator(here: Supervisor) -> Caller:
    """Connect to the operators' port."""
    [_, port] = here._ports
    return await connect(port.getHost().port)


@ensureDeferred
async def test_the_supervisor_answers_for_its_workers() -> None:
    """Its own pages; everything else a worker answers."""
    async with breakable(Traits()) as upstream, supervisor(upstream) as here:
        caller = await operator(here)

        answer = await caller.embed("a")
        figures = await caller.get("/metrics")
        while b"abproxy_workers_answering 2.0" not in figures.body:
            # A worker has a second, which a busy machine may not give it.
            figures = await caller.get("/metrics")
        caller.hang_up()

        assert answer.is_for(["a"])
        line = b'abproxy_calls_total{route="/embed",status="200"} 1.0'
        assert line in figures.body


@ensureDeferred
async def test_no_other_user_may_enter_its_folder() -> None:
    """And nothing of it is left behind."""
    async with breakable(Traits()) as upstream, supervisor(upstream) as here:
        folder = here.folder
        mode = stat.S_IMODE(folder.stat().st_mode)

    assert mode == 0o700
    assert not folder.exists()


@ensureDeferred
async def test_after_the_end_the_port_is_free() -> None:
    """For the process that comes next."""
    async with breakable(Traits()) as upstream, supervisor(upstream) as here:
        port = here.shared_port.port
        caller = await connect(port)
        assert (await caller.embed("a")).is_for(["a"])
        caller.hang_up()

    with pytest.raises(ConnectError):
        await connect(port)


@ensureDeferred
async def test_settings_that_cannot_be_read_change_nothing() -> None:
    """An operator's mistake is no reason to stop."""

    def mistaken(_settings: Settings) -> Settings:
        raise SettingsError("--slots: expected a whole number")

    async with breakable(Traits()) as upstream, supervisor(upstream, mistaken) as here:
        with capturedLogs() as events:
            here._reload()

        assert [said(event) for event in events] == [
            "Settings stay as they are: --slots: expected a whole number"
        ]


@ensureDeferred
async def test_a_reload_does_not_remove_all_keys() -> None:
    """Neither at the operators' port nor at that of the clients."""

    def lost(settings: Settings) -> Settings:
        return attrs.evolve(settings, api_keys=(), rate_limit=None)

    sesame = {"api_keys": ("sesame",), "rate_limit": 9.0}
    async with (
        breakable(Traits()) as upstream,
        supervisor(upstream, lost, **sesame) as here,
    ):
        with capturedLogs() as events:
            here._reload()
        callers = await operator(here), await connect(here.shared_port.port)
        statuses = [(await caller.embed("a")).status for caller in callers]
        for caller in callers:
            caller.hang_up()

        [line] = map(said, events)
        assert line.startswith("Settings stay as they are: no key is left in API_KEY")
        assert statuses == [401, 401]
        assert here.settings.rate_limit == 9


@ensureDeferred
async def test_a_new_key_in_a_file_counts_for_all_workers(tmp_path: Path) -> None:
    """And for the supervisor, which looks at the file for them."""
    file = tmp_path / "keys"
    file.write_text("old")
    settings: Any = {"api_key_file": str(file), "api_keys": ("old",)}
    async with (
        breakable(Traits()) as upstream,
        supervisor(upstream, **settings) as here,
    ):
        file.write_text("new")

        here.look_at_keys()

        callers = [await connect(here.shared_port.port) for _ in range(8)]
        callers.append(await operator(here))
        for caller in callers:
            while (await caller.get("/info", key="new")).status != 200:
                await sleep(0.01)
            assert (await caller.get("/info", key="old")).status == 401
            caller.hang_up()


@pytest.mark.parametrize("trusted", [(), ("127.0.0.0/8",), ("192.0.2.0/24",)])
@ensureDeferred
async def test_workers_read_the_header_of_the_proxy_protocol(
    tmp_path: Path, trusted: tuple[str, ...]
) -> None:
    """A client is told apart by it; a page that tries a call needs no such header."""
    port = "haproxy:tcp:0:interface=127.0.0.1"
    log = tmp_path / "access.log"
    more: Any = {"port": port, "access_log": str(log), "trusted_proxies": trusted}
    async with breakable(Traits()) as upstream, supervisor(upstream, **more) as here:
        caller = await operator(here)
        assert (await caller.embed("a")).is_for(["a"])
        caller.hang_up()
        client = await connect(here.shared_port.port)
        client.transport.write(b"PROXY TCP4 192.0.2.7 10.0.0.1 1 443\r\n")
        if trusted == ("192.0.2.0/24",):
            await until(lambda: not client.is_open)
            return
        assert (await client.embed("a")).is_for(["a"])
        client.hang_up()
        await until(lambda: "192.0.2.7 - - " in log.read_text())


@ensureDeferred
async def test_a_new_key_counts_at_the_operators_port_as_well() -> None:
    """And what cannot change is said once."""

    def changed(settings: Settings) -> Settings:
        return attrs.evolve(settings, api_keys=("sesame",), workers=3)

    async with breakable(Traits()) as upstream, supervisor(upstream, changed) as here:
        with capturedLogs() as events:
            here._reload()
            caller = await operator(here)
            refused = await caller.get("/-/status.json")
            stranger = await caller.embed("a")
            caller.hang_up()

        assert (refused.status, stranger.status) == (401, 401)
        assert "Settings need a restart: WORKERS" in map(said, events)
        assert here.settings.api_keys == ("sesame",)


@ensureDeferred
async def test_a_bug_behind_a_page_is_logged_and_said_to_be_one(
    nothing_leaked: list[object],
) -> None:
    """The operator sees 500, the log says why."""
    async with breakable(Traits()) as upstream, supervisor(upstream) as here:
        here.site.operations.pages[b"/metrics"] = lambda _: 1 / 0
        caller = await operator(here)

        answer = await caller.get("/metrics")
        caller.hang_up()

        assert answer.status == 500
        [failure] = nothing_leaked
        assert isinstance(failure, Failure)
        assert failure.check(ZeroDivisionError)
        nothing_leaked.clear()


@ensureDeferred
async def test_a_client_that_still_sends_at_the_end_is_cut_off_after_a_moment() -> None:
    """All calls are answered by then."""
    async with breakable(Traits()) as upstream, supervisor(upstream) as here:
        caller = await operator(here)
        caller.transport.write(b"POST /-/ HTTP/1.1\r\nContent-Length: 5\r\n\r\n")
        await until(lambda: here.site.channels)

    await until(lambda: not caller.is_open)


def test_workers_are_killed_only_after_their_drain() -> None:
    """Until then calls may still be answered."""
    settings = Settings(workers=2, port="0", drain_timeout_s=5.0)
    here = wire_supervisor(settings, reactor, Settings)

    assert [worker.kill_after_s for worker in here.pool] == [5.0 + KILL_S] * 2
    here.shared_port.close()


def test_twistd_is_told_who_writes_the_log() -> None:
    """As without workers."""

    def observer(_event: LogEvent) -> None:
        """Write nothing."""

    settings = Settings(workers=2, port="0")
    process = ProcessContext(log_observer=observer)  # type: ignore[arg-type]
    here = wire_supervisor(settings, reactor, Settings, process)
    application = Application("abproxy")

    here.setServiceParent(application)  # type: ignore[arg-type]

    assert application.getComponent(ILogObserver) is observer  # type: ignore[attr-defined]
    here.shared_port.close()
