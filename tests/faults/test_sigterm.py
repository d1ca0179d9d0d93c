"""SIGTERM to the real process, in the middle of its work."""

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from signal import SIGCONT, SIGHUP, SIGINT, SIGSTOP, SIGTERM, Signals
from typing import IO

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.error import ConnectError, ConnectionClosed

from abproxy.service.proxy import SAME_SIGNAL_S
from bench.breakable import Traits
from support.client import Tally, connect, sleep, together, until
from support.processes import Daemon, daemon
from support.upstream import breakable


async def _end(here: Daemon) -> int:
    await until(lambda: here.process.poll() is not None)
    return here.process.wait()


@pytest.mark.parametrize("closes", [False, True], ids=["keep-alive", "close"])
@ensureDeferred
async def test_sigterm_under_load_loses_no_call(
    tmp_path: Path, *, closes: bool
) -> None:
    """Two hundred clients: each call is answered, and then nobody is let in."""
    tally = Tally()
    async with (
        breakable(Traits(ms=20, ms_per_input=0.2)) as upstream,
        daemon(tmp_path, upstream) as here,
    ):
        clients = together(
            tally.ask_until_refused(here.port, f"client {at}", closes=closes)
            for at in range(200)
        )
        await until(lambda: tally.answers["right"] > 200)

        here.process.send_signal(SIGTERM)
        await clients
        exit_code = await _end(here)

        assert set(tally.answers) == {"right"}
        assert exit_code == 0
        with pytest.raises(ConnectError, match="refused"):
            await connect(here.port)


@ensureDeferred
async def test_sigterm_sends_calls_that_are_held_for_the_wait(tmp_path: Path) -> None:
    """They do not wait any longer, and the process ends when they are answered."""
    async with (
        breakable(Traits()) as upstream,
        daemon(tmp_path, upstream, "--max-wait-time=60000") as here,
    ):
        caller = await connect(here.port)
        asked = caller.embed("a")
        recorder = await connect(here.port)
        while not (await recorder.get("/-/status.json")).json["flow"]["waiting_items"]:
            await sleep(0.01)

        here.process.send_signal(SIGTERM)

        assert (await asked).is_for(["a"])
        assert await _end(here) == 0


@pytest.mark.parametrize("first", [SIGTERM, SIGINT])
@ensureDeferred
async def test_a_second_signal_stops_at_once(tmp_path: Path, first: Signals) -> None:
    """Who is in a hurry does not wait for a silent upstream."""
    async with (
        breakable(Traits(ms=60_000)) as upstream,
        daemon(tmp_path, upstream) as here,
    ):
        caller = await connect(here.port)
        asked = caller.embed("a")
        await until(lambda: upstream.seen.batches)

        here.process.send_signal(first)
        await until(lambda: "Draining 1 calls" in here.log.read_text())
        await sleep(2 * SAME_SIGNAL_S)
        here.process.send_signal(SIGTERM)

        with pytest.raises(ConnectionClosed):
            await asked
        assert await _end(here) == 0


@ensureDeferred
async def test_signals_that_come_together_ask_for_one_end(tmp_path: Path) -> None:
    """A terminal and a supervisor may both pass on the same wish: no call is lost."""
    async with (
        breakable(Traits(ms=300)) as upstream,
        daemon(tmp_path, upstream) as here,
    ):
        caller = await connect(here.port, closes=True)
        asked = caller.embed("a")
        await until(lambda: upstream.seen.batches)

        for number in (SIGSTOP, SIGTERM, SIGINT, SIGCONT):
            here.process.send_signal(number)

        assert (await asked).is_for(["a"])
        assert await _end(here) == 0
        assert "Traceback" not in here.log.read_text()


@ensureDeferred
async def test_sighup_reads_the_settings_again(tmp_path: Path) -> None:
    """A key that was added to the file opens the door without a restart."""
    async with (
        breakable(Traits()) as upstream,
        daemon(tmp_path, upstream) as here,
    ):
        caller = await connect(here.port)
        before = await caller.embed("a")
        (tmp_path / ".env").write_text("API_KEY=sesame\n", encoding="utf-8")

        here.process.send_signal(SIGHUP)
        await until(lambda: "Settings changed: API_KEY" in here.log.read_text())
        after = await caller.embed("a")

        assert before.status == 200
        assert after.status == 401
        assert "sesame" not in here.log.read_text()


@asynccontextmanager
async def in_terminal(folder: Path) -> AsyncIterator[tuple[Daemon, IO[bytes]]]:
    """Start the proxy in a terminal of its own."""
    ours, theirs = os.openpty()
    with os.fdopen(ours, "wb", buffering=0) as terminal:
        async with (
            breakable(Traits()) as upstream,
            daemon(folder, upstream, stdin=theirs) as here,
        ):
            os.close(theirs)
            yield here, terminal


@ensureDeferred
async def test_a_terminal_that_closes_is_an_end(tmp_path: Path) -> None:
    """Nobody is left with a proxy that runs on unseen and keeps the port."""
    async with in_terminal(tmp_path) as (here, terminal):
        caller = await connect(here.port)
        await caller.embed("a")

        terminal.close()
        here.process.send_signal(SIGHUP)

        assert await _end(here) == 0


@ensureDeferred
async def test_sighup_in_a_terminal_reads_the_settings_again(tmp_path: Path) -> None:
    """As long as the terminal is there, it is the operator who asks."""
    async with in_terminal(tmp_path) as (here, _terminal):
        caller = await connect(here.port)
        await caller.embed("a")

        here.process.send_signal(SIGHUP)

        await until(lambda: "nothing has changed" in here.log.read_text())
        assert (await caller.embed("a")).status == 200
