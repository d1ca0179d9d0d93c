"""
Tenants with keys of their own, who mark their texts, in front of a server that fails.

The server quotes the request in whatever it answers beside rows, so that an answer
that reaches the wrong tenant shows whose it was.
"""

import asyncio
import json
import re
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import AsyncExitStack
from random import Random
from typing import Any

from attrs import define, field

from bench.attack.client import Connection, call
from bench.attack.faulty import FAULTY, RELAYED
from bench.attack.found import Plan, Row
from bench.attack.proxies import Breakable, Proxy, breakable, proxy
from bench.attack.rows import are_own, are_right
from bench.breakable.control import DEEDS

__all__ = ["soak"]

TENANTS = 8
CALLERS = 5
"""Connections of each tenant."""

OK = 200
HANGS_S = 60
WARM_UP = 0.3
"""The share of the time after which memory should no longer grow."""

MAY_GROW_MB = 24
LARGE = 33
"""With so many inputs a call is split: its rows are complete, or it is an error."""

SETTINGS = {
    "api_key": ",".join(f"key-{at}" for at in range(TENANTS)),
    "dedupe": "true",
    "cache_bytes": 4 << 20,
    "max_wait_time": 5,
    "upstream_timeout": 2,
    "connect_patience": 2,
    "overload_patience": 2,
    "call_timeout": 10,
}
PATHS = ("/embed", "/embed", "/", "/v1/embeddings")
MARK = re.compile(rb"tenant (\d+) ")


async def soak(plan: Plan) -> list[Row]:
    """Let all tenants call while the server fails, and look at each answer."""
    row = Row(what=f"{TENANTS} tenants with {CALLERS} connections each, random faults")
    options = ("--quotes", "--ms=2", "--ms-per-input=0.2", "--workers=4")
    async with AsyncExitStack() as stack:
        upstream = await stack.enter_async_context(breakable(plan.folder, *options))
        started = proxy(plan.folder, upstream.url, **SETTINGS)
        each = await stack.enter_async_context(started)
        ends_at = time.monotonic() + plan.seconds
        tenants = [
            Tenant(each, at, Random(plan.random.random()), row)  # noqa: S311
            for at in range(TENANTS)
        ]
        calling = [
            asyncio.create_task(tenant.call_until(ends_at))
            for tenant in tenants
            for _ in range(CALLERS)
        ]
        failing = asyncio.create_task(_fail_until(ends_at, upstream, plan.random))
        await asyncio.sleep(plan.seconds * WARM_UP)
        before_mb = each.memory_mb
        await asyncio.gather(*calling)
        faults = await failing
        after_mb = each.memory_mb
        left = await each.held()
        row.hold(not left, f"still held: {left}")
        row.hold(not each.tracebacks(), "a traceback in the log")
        grown = after_mb - before_mb
        row.hold(grown < MAY_GROW_MB, f"memory has grown by {grown:.0f} MB")
        statuses: Counter[int] = sum((t.statuses for t in tenants), Counter())
        told = ", ".join(
            f"{status} {n:,} times" for status, n in sorted(statuses.items())
        )
        slowest_s = max(tenant.slowest_s for tenant in tenants)
        row.measured += [
            f"{plan.seconds:.0f} s",
            f"{faults:,} faults",
            told,
            f"{sum(t.gone for t in tenants):,} callers left",
            f"{sum(t.cut for t in tenants):,} relayed answers cut off by the server",
            f"slowest answer {slowest_s:.1f} s",
            f"memory {before_mb:.0f} to {after_mb:.0f} MB",
        ]
        return [row]


async def _fail_until(ends_at: float, upstream: Breakable, random: Random) -> int:
    """Let something fail now and then; returns how often, and mends it in the end."""
    count = 0
    while time.monotonic() < ends_at:
        command, how = _failure(random)
        await upstream.tell(command, **how)
        count += 1
        await asyncio.sleep(random.uniform(0.05, 0.8))
        if random.random() < 0.3:  # noqa: PLR2004
            await upstream.tell("mend")
    await upstream.tell("mend")
    return count


def _failure(random: Random) -> tuple[str, dict[str, Any]]:
    """Draw something that goes wrong."""
    kind = random.choice(("break", "break", "break", "do", "refuse", "refuse"))
    if kind == "do":
        deed = random.choice([*DEEDS])
        return kind, {"do": deed, "seconds": random.uniform(0.05, 0.6)}
    if kind == "break":
        name, value = random.choice(FAULTY)
        return kind, {"fault": name, "value": value, "times": random.randint(1, 4)}
    status = random.choice((400, 403, 404, 413, 422, 424, 429, 500, 502, 503, 504))
    text = f"tenant {random.randrange(TENANTS)} "
    return kind, {"text": text, "status": status}


@define(eq=False)
class Tenant:
    """One tenant: its key, and what it has got."""

    proxy: Proxy
    number: int
    random: Random
    row: Row
    statuses: Counter[int] = field(factory=Counter)
    slowest_s: float = 0
    gone: int = 0
    cut: int = 0
    """Relayed answers that broke off."""

    _calls: int = 0

    async def call_until(self, ends_at: float) -> None:
        """Call on and on, on one connection after the other."""
        connection: Connection | None = None
        while time.monotonic() < ends_at:
            connection = connection or await self.proxy.connect()
            if not await self._call(connection):
                connection.reset()
                connection = None
        if connection is not None:
            connection.reset()

    async def _call(self, connection: Connection) -> bool:
        """Make one call; returns whether the connection may be used again."""
        texts, path = self._texts(), self.random.choice(PATHS)
        is_relayed = self.random.random() < 0.1  # noqa: PLR2004
        request = self._request(texts, path, is_relayed=is_relayed)
        if self.random.random() < 0.03:  # noqa: PLR2004
            connection.writer.write(request)
            await asyncio.sleep(self.random.uniform(0, 0.05))
            self.gone += 1
            return False
        began = time.monotonic()
        self.row.tried += 1
        try:
            status, body = await connection.ask(request, HANGS_S)
        except (OSError, EOFError, ValueError) as error:
            # An answer that is passed on as it comes may break off as it has come.
            is_cut = is_relayed and not isinstance(error, TimeoutError)
            self.row.hold(is_cut, f"tenant {self.number}: no answer: {error!r}")
            self.cut += is_cut
            return False
        self.slowest_s = max(self.slowest_s, time.monotonic() - began)
        self.statuses[status] += 1
        self._look(status, body, texts)
        return connection.stays

    def _request(self, texts: Sequence[str], path: str, *, is_relayed: bool) -> bytes:
        member = "input" if path.startswith("/v1") else "inputs"
        told: dict[str, Any] = {member: texts}
        body = json.dumps(told).encode()
        if is_relayed:
            body = body[:-1] + RELAYED
        key = b"Authorization: Bearer key-%d" % self.number
        lines = [key, b"X-Priority: bulk"][: self.random.choice((1, 1, 2))]
        return call(body, *lines, path=path.encode())

    def _texts(self) -> list[str]:
        self._calls += 1
        count = self.random.choice((1, 1, 1, 2, 5, 30, 70))
        texts = [f"tenant {self.number} text {self._calls} {at}" for at in range(count)]
        chance = self.random.random()
        if chance < 0.05:  # noqa: PLR2004
            texts[-1] += " BAD"
        elif chance < 0.052:  # noqa: PLR2004
            texts[-1] += " DEADLY"
        elif chance < 0.2:  # noqa: PLR2004
            texts[0] = f"text of all {self._calls % 10}"
        return texts

    def _look(self, status: int, body: bytes, texts: Sequence[str]) -> None:
        """Fail if there is anything of others, or not all of one's own."""
        others = {int(found) for found in MARK.findall(body)} - {self.number}
        if others:
            self.row.fail(f"tenant {self.number} got {body[:900]!r}")
        if status == OK:
            whole = are_right(body, texts)
            is_right = whole if len(texts) >= LARGE else are_own(body, texts)
            self.row.hold(is_right, f"wrong rows for {texts[:3]}: {body[:500]!r}")
