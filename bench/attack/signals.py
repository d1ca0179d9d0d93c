"""SIGTERM, SIGHUP and killed processes under load: nothing is lost but what must be."""

import asyncio
import json
import os
import signal
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from attrs import define

from bench.attack.client import Connection, call
from bench.attack.found import Plan, Row
from bench.attack.proxies import Breakable, Proxy, breakable, proxy
from bench.attack.rows import are_right

__all__ = ["signals"]

OK = 200
CLIENTS = 30
RUNS = 3
UNDER_LOAD_S = 1.0
ENDS_S = 20


@define
class Load:
    """Clients that call on and on, and what came of it."""

    proxy: Proxy
    is_over: bool = False
    right: int = 0
    wrong: int = 0
    lost: int = 0
    """Calls that were sent, and never answered."""

    async def run(self, name: str) -> None:
        """Call until it is over, or the port is closed."""
        connection: Connection | None = None
        turn = 0
        while not self.is_over:
            try:
                connection = connection or await self.proxy.connect()
            except OSError:
                return
            turn += 1
            texts = [f"{name} {turn}"]
            if not await self._call(connection, texts):
                connection.reset()
                connection = None
        if connection is not None:
            connection.reset()

    async def _call(self, connection: Connection, texts: list[str]) -> bool:
        body = json.dumps({"inputs": texts}).encode()
        try:
            status, answer = await connection.ask(call(body))
        except (OSError, EOFError):
            self.lost += 1
            return False
        is_right = status == OK and are_right(answer, texts)
        self.right += is_right
        self.wrong += not is_right
        return connection.stays


@asynccontextmanager
async def _loaded(each: Proxy) -> AsyncIterator[Load]:
    """Let clients call meanwhile; they have all ended afterwards."""
    load = Load(each)
    calling = [asyncio.create_task(load.run(f"client {at}")) for at in range(CLIENTS)]
    try:
        await asyncio.sleep(UNDER_LOAD_S)
        yield load
    finally:
        load.is_over = True
        await asyncio.gather(*calling)


async def signals(plan: Plan) -> list[Row]:
    """Send each signal to one process, and to several that share a port."""
    options = ("--ms=3", "--ms-per-input=0.2", "--workers=4")
    async with breakable(plan.folder, *options) as upstream:
        return [
            await _terminated(plan, upstream, workers=1),
            await _terminated(plan, upstream, workers=2),
            await _reloaded(plan, upstream, workers=1),
            await _reloaded(plan, upstream, workers=2),
            await _worker_killed(plan, upstream),
            await _supervisor_killed(plan, upstream),
        ]


async def _terminated(plan: Plan, upstream: Breakable, workers: int) -> Row:
    row = Row(what=f"SIGTERM under load, {_processes(workers)}")
    for _ in range(RUNS):
        async with proxy(plan.folder, upstream.url, workers=workers) as each:
            async with _loaded(each) as load:
                os.kill(each.child.pid, signal.SIGTERM)
                code = await asyncio.to_thread(_ended, each.child.pid)
            row.hold(code == 0, f"exit code {code}")
            _count(load, row, may_be_lost=0)
    return row


async def _reloaded(plan: Plan, upstream: Breakable, workers: int) -> Row:
    row = Row(what=f"SIGHUP 20 times under load, {_processes(workers)}")
    async with proxy(plan.folder, upstream.url, workers=workers) as each:
        resting = await _when_all_are_up(each, workers)
        async with _loaded(each) as load:
            for _ in range(20):
                os.kill(each.child.pid, signal.SIGHUP)
                await asyncio.sleep(0.05)
        _count(load, row, may_be_lost=0)
        await _rests(each, resting, row)
    return row


async def _worker_killed(plan: Plan, upstream: Breakable) -> Row:
    row = Row(what=f"a worker of two killed {RUNS} times under load")
    async with proxy(plan.folder, upstream.url, workers=2) as each:
        resting = await _when_all_are_up(each, 2)
        for _ in range(RUNS):
            async with _loaded(each) as load:
                worker = _children(each.child.pid)[0]
                held = _sockets(worker)
                os.kill(worker, signal.SIGKILL)
                await _until_two(each.child.pid, worker, row)
            _count(load, row, may_be_lost=held)
        await _rests(each, resting, row)
    return row


async def _supervisor_killed(plan: Plan, upstream: Breakable) -> Row:
    row = Row(what="the supervisor of two workers killed under load")
    async with proxy(plan.folder, upstream.url, workers=2) as each:
        async with _loaded(each) as load:
            workers = _children(each.child.pid)
            os.kill(each.child.pid, signal.SIGKILL)
            left = await _until_gone(workers)
        row.hold(not left, f"workers stay: {left}")
        _count(load, row, may_be_lost=0)
    return row


def _count(load: Load, row: Row, may_be_lost: int) -> None:
    row.tried += load.right + load.wrong + load.lost
    row.hold(load.right, "nothing was answered")
    row.hold(not load.wrong, f"{load.wrong} wrong answers")
    row.hold(load.lost <= may_be_lost, f"{load.lost} calls lost")
    row.measured.append(f"{load.lost} of {CLIENTS} clients lost a call")


async def _when_all_are_up(each: Proxy, workers: int) -> Mapping[str, float]:
    """Return the gauges at rest, to which each worker adds the request for its own."""
    ends_at = time.monotonic() + ENDS_S
    asked = 1 if workers == 1 else 1 + workers
    while True:
        resting = await each.gauges()
        if resting["requests_open"] >= asked or time.monotonic() > ends_at:
            return resting
        await asyncio.sleep(0.1)


async def _rests(each: Proxy, resting: Mapping[str, float], row: Row) -> None:
    left = await each.held(resting)
    row.hold(not left, f"still held: {left}")
    row.hold(not each.tracebacks(), "a traceback in the log")


def _processes(workers: int) -> str:
    return "one process" if workers == 1 else f"{workers} workers"


def _ended(pid: int) -> int:
    """Wait for the end of a process, and leave it to who has started it."""
    info = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    return info.si_status if info is not None else -1


def _children(pid: int) -> list[int]:
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii")
    return [int(each) for each in found.split()]


def _sockets(pid: int) -> int:
    """Count the sockets of a process: it serves no more clients than that."""
    files = Path(f"/proc/{pid}/fd").iterdir()
    return sum(str(each.readlink()).startswith("socket:") for each in files)


def _is_there(pid: int) -> bool:
    return Path(f"/proc/{pid}").exists()


async def _until_two(pid: int, killed: int, row: Row) -> None:
    ends_at = time.monotonic() + ENDS_S
    while killed in _children(pid) or len(_children(pid)) < 2:  # noqa: PLR2004
        if time.monotonic() > ends_at:
            row.fail("no other worker was started")
            return
        await asyncio.sleep(0.05)
    await asyncio.sleep(UNDER_LOAD_S)


async def _until_gone(pids: list[int]) -> list[int]:
    """Wait until the processes have ended; returns those that have not in time."""
    ends_at = time.monotonic() + ENDS_S
    while left := [pid for pid in pids if _is_there(pid)]:
        if time.monotonic() > ends_at:
            return left
        await asyncio.sleep(0.05)
    return []
