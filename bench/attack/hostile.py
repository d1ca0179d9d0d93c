"""Hostile JSON: answered as the server itself would, and never at others' expense."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from urllib.parse import urlsplit

from attrs import define, field

from bench.attack.bodies import LARGE, SMALL
from bench.attack.client import call, connect, get
from bench.attack.corpus import Case
from bench.attack.found import Plan, Row
from bench.attack.proxies import Proxy, breakable, proxy

__all__ = ["hostile_json"]

MAY_COST_S = 2.0
"""
CPU time that a body of some megabytes may cost the proxy.

One with a member for each byte costs ten times as much if each is made an object of.
"""

TOO_LARGE = 413
"""What the proxy says of too many inputs or members; the server is not asked."""


async def hostile_json(plan: Plan) -> list[Row]:
    """Send the bodies through the proxy with and without its fast server."""
    many = ("--max-batch", "100000", "--permits", "1000000")
    async with AsyncExitStack() as stack:
        upstream = await stack.enter_async_context(breakable(plan.folder, *many))
        direct = _asking(urlsplit(upstream.url).port or 0)
        proxies = [
            await stack.enter_async_context(
                proxy(plan.folder, upstream.url, fast_paths=paths)
            )
            for paths in ("all", "none")
        ]
        small = Row(what=f"{len(SMALL)} small bodies of odd JSON")
        large = Row(what=f"{len(LARGE)} bodies of megabytes that are much work")
        for case in SMALL:
            await _compare(proxies, direct, case, small)
        neighbour = Neighbour()
        for each in proxies:
            asking = asyncio.create_task(neighbour.ask(each))
            for case in LARGE:
                await _endure(each, direct, case, large)
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)
        large.measured.append(f"{neighbour.answers:,} answers to a neighbour meanwhile")
        large.measured.append(f"the slowest after {neighbour.slowest_s:.2f} s")
        for each in proxies:
            left = await each.held()
            large.hold(not left, f"still held: {left}")
            large.hold(not each.tracebacks(), "a traceback in the log")
        return [small, large]


Asking = Callable[[bytes], Awaitable[tuple[int, bytes]]]


def _asking(port: int) -> Asking:
    """Return what asks with a body, on a connection of its own."""

    async def ask(body: bytes) -> tuple[int, bytes]:
        connection = await connect(port)
        try:
            return await connection.ask(call(body))
        finally:
            connection.reset()

    return ask


async def _compare(proxies: list[Proxy], direct: Asking, case: Case, row: Row) -> None:
    expected = await direct(case.data)
    for each in proxies:
        answer = await _asking(each.port)(case.data)
        row.tried += 1
        row.hold(answer == expected, f"{case.name}: {answer!r}, not {expected!r}")


async def _endure(each: Proxy, direct: Asking, case: Case, row: Row) -> None:
    began_s = each.child.cpu_s
    answer = await _asking(each.port)(case.data)
    cost_s = each.child.cpu_s - began_s
    row.tried += 1
    row.hold(cost_s < MAY_COST_S, f"{case.name}: {cost_s:.1f} s of CPU time")
    if answer[0] != TOO_LARGE:
        expected = await direct(case.data)
        same = answer == expected
        row.hold(
            same, f"{case.name}: {answer[0]}, not {expected[0]}: {answer[1][:99]!r}"
        )


@define
class Neighbour:
    """One who only wants to know whether the proxy is alive."""

    answers: int = 0
    slowest_s: float = field(default=0.0)

    async def ask(self, each: Proxy) -> None:
        """Ask on and on."""
        connection = await each.connect()
        with suppress(asyncio.CancelledError):
            while True:
                began = time.monotonic()
                await connection.ask(get(b"/-/healthy"))
                self.answers += 1
                self.slowest_s = max(self.slowest_s, time.monotonic() - began)
                await asyncio.sleep(0.01)
        connection.reset()
