"""The time of day is set while calls wait: no timer goes by it, and every date does."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import datetime
from pathlib import Path
from time import time

import msgspec
import pytest
from attrs import frozen
from pytest_twisted import ensureDeferred

from bench.breakable import Breakable, Traits
from support.client import connect, sleep, until
from support.processes import Daemon, daemon
from support.upstream import breakable

HOUR_S = 3600

STEPPING = """
import os, time

class Stepping:
    real = staticmethod(time.time)

    def __call__(self):
        with open(os.environ["CLOCK"]) as file:
            return self.real() + float(file.read() or 0)

time.time = Stepping()
"""
"""Python runs this at its start, before anything has asked for the time."""


@frozen
class Stepped:
    """A proxy whose time of day can be set."""

    daemon: Daemon
    clock: Path

    @property
    def port(self) -> int:
        """Where it listens."""
        return self.daemon.port

    def set(self, by_s: float) -> None:
        """Set its clock to so many seconds from now."""
        new = self.clock.with_suffix(".new")
        new.write_text(str(by_s))
        new.rename(self.clock)


@asynccontextmanager
async def stepped(
    folder: Path, upstream: Breakable, *options: str
) -> AsyncIterator[Stepped]:
    """Run such a proxy."""
    clock = folder / "clock"
    clock.touch()
    (folder / "sitecustomize.py").write_text(STEPPING)
    about = {"PYTHONPATH": str(folder), "CLOCK": str(clock)}
    async with daemon(folder, upstream, *options, **about) as here:
        yield Stepped(here, clock)


WAYS = pytest.mark.parametrize(
    "options", [(), ("--workers=2",)], ids=["one process", "workers"]
)


@WAYS
@ensureDeferred
async def test_a_held_call_leaves_in_time_though_the_clock_is_set_back(
    tmp_path: Path, options: tuple[str, ...]
) -> None:
    """It would wait an hour longer otherwise."""
    async with (
        breakable(Traits()) as upstream,
        stepped(tmp_path, upstream, "--max-wait-time=1000", *options) as here,
    ):
        caller = await connect(here.port)
        asked = caller.embed("a")
        recorder = await connect(here.port)
        while not (await recorder.get("/-/status.json")).json["flow"]["waiting_items"]:
            await sleep(0.01)

        here.set(-HOUR_S)

        assert (await asked).is_for(["a"])


@WAYS
@ensureDeferred
async def test_a_call_in_flight_is_answered_though_the_clock_is_set_forward(
    tmp_path: Path, options: tuple[str, ...]
) -> None:
    """It would be too late for every deadline otherwise."""
    async with (
        breakable(Traits(ms=1000)) as upstream,
        stepped(tmp_path, upstream, *options) as here,
    ):
        caller = await connect(here.port)
        asked = caller.embed("a")
        await until(lambda: upstream.seen.batches)

        here.set(HOUR_S)

        assert (await asked).is_for(["a"])


@WAYS
@ensureDeferred
async def test_dates_are_those_of_the_clock_as_it_is_set(
    tmp_path: Path, options: tuple[str, ...]
) -> None:
    """In the access log, where the time that a call took is none, and on the page."""
    log = tmp_path / "access.log"
    options = ("--log-format=json", f"--access-log={log}", *options)
    async with (
        breakable(Traits()) as upstream,
        stepped(tmp_path, upstream, *options) as here,
    ):
        caller = await connect(here.port)
        here.set(HOUR_S)
        await caller.embed("a")
        await until(lambda: log.exists() and log.read_text().endswith("\n"))
        page = (await caller.get("/-/status.json")).json

    line = msgspec.json.decode(log.read_text().splitlines()[0])
    written = datetime.fromisoformat(line["time"]).timestamp()
    dates = [written, page["now"], page["started_at"], page["upstream"]["since"]]
    dates += [each["at"] for each in page["batches"]]
    half_s = HOUR_S / 2
    assert len(dates) == 5
    assert all(half_s < date - time() < HOUR_S + half_s for date in dates)
    assert 0 <= line["duration_ms"] < 1000 * half_s
    assert 0 <= page["now"] - page["started_at"] < half_s
