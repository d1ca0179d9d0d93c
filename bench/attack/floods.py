"""Floods and slow peers, beside a neighbour who goes on being answered."""

import asyncio
from contextlib import AsyncExitStack
from statistics import median

from bench.attack.attackers import (
    ALL,
    MEGABYTE,
    Attack,
    Attacker,
    attacked,
    neighbour,
    prober,
)
from bench.attack.found import Plan, Row
from bench.attack.proxies import Proxy, breakable, proxy

__all__ = ["floods"]

MAX_BODY = 8 * MEGABYTE
MAX_MEMORY = 64 * MEGABYTE
MAY_TAKE_MB = 256
"""Python and all libraries have 60 of it, MAX_MEMORY_BYTES are 64."""

LEAST_S = 1.0


async def floods(plan: Plan) -> list[Row]:
    """Let each kind of attacker do its work, and then all at once."""
    options = ("--ms=1", "--ms-per-input=0.02", "--dimensions=512")
    limits = {"max_memory_bytes": MAX_MEMORY, "max_body_bytes": MAX_BODY}
    async with AsyncExitStack() as stack:
        upstream = await stack.enter_async_context(breakable(plan.folder, *options))
        started = proxy(plan.folder, upstream.url, api_key="k", **limits)
        each = await stack.enter_async_context(started)
        seconds = max(LEAST_S, plan.seconds / (len(ALL) + 2))
        rows = [await _one(each, one, seconds) for one in ALL]
        return [*rows, await _all(each, seconds * 2)]


async def _one(each: Proxy, attacker: Attacker, seconds: float) -> Row:
    about = (attacker.__doc__ or "").partition(".")[0]
    row = Row(what=about)
    await _endure(each, [attacker], seconds, row)
    return row


async def _all(each: Proxy, seconds: float) -> Row:
    row = Row(what="all of these at once")
    await _endure(each, ALL, seconds, row)
    tracebacks = each.tracebacks()
    row.hold(not tracebacks, f"{tracebacks} tracebacks in the log")
    return row


async def _endure(
    each: Proxy,
    attackers: list[Attacker] | tuple[Attacker, ...],
    seconds: float,
    row: Row,
) -> None:
    attack = Attack(port=each.port, key=each.key, body_bytes=MAX_BODY)

    def ask() -> list[float]:
        with attacked(attack, attackers):
            return [*prober(attack, seconds / 2), *neighbour(attack, seconds / 2)]

    try:
        took_s = await asyncio.to_thread(ask)
    except (OSError, EOFError, ValueError) as error:
        row.fail(f"the neighbour got no answer: {error!r}")
        return
    row.tried = len(took_s)
    row.measured.append(f"neighbour's median {median(took_s) * 1000:.0f} ms")
    row.measured.append(f"slowest {max(took_s):.2f} s")
    left = await each.held()
    row.hold(not left, f"still held: {left}")
    row.measured.append(f"memory afterwards {each.memory_mb:.0f} MB")
    row.hold(each.memory_mb < MAY_TAKE_MB, f"memory {each.memory_mb:.0f} MB")
