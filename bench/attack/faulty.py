"""An inference server that is faulty, slow, away or odd: no call hangs or is wrong."""

import asyncio
import json
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Any

import attrs
from attrs import define, field

from bench.attack.client import call
from bench.attack.found import Plan, Row
from bench.attack.proxies import CLIENTS, Breakable, Proxy, breakable, proxy
from bench.attack.rows import are_own, are_right
from bench.breakable import Traits
from bench.breakable.control import DEEDS
from bench.breakable.faults import FAULTS
from bench.breakable.moods import MOODS

__all__ = ["BAD", "FAULTY", "faulty"]

OK = 200
CUT = 1
"""As a status: the connection was broken off."""

HANGS_S = 30
"""Longer than all waits together, as the proxies here are set."""

PATIENT: Mapping[str, object] = {
    "max_wait_time": 20,
    "upstream_timeout": 1,
    "connect_patience": 2,
    "overload_patience": 2,
    "call_timeout": 5,
}
VALUES: Mapping[str, Sequence[int]] = {
    "refuse": (0, 503),
    "cut": (0, 20, 100),
    "stall": (0, 20, 100),
    "truncate": (0, 1),
}
"""Values of faults, other than 0 alone."""

FAULTY = [(name, value) for name in FAULTS for value in VALUES.get(name, (0,))]
BAD = "DROP TABLE NO-NORM NAN " + "x" * 600
"""A text that each of the moods refuses."""

RELAYED = b',"x":1,"x":2}'
"""Members that may be read in two ways: the call is passed on as it is."""


async def faulty(plan: Plan) -> list[Row]:
    """Try each mood, fault and deed, through both clients."""
    async with AsyncExitStack() as stack:
        trials = []
        for paths in CLIENTS.values():
            upstream = await stack.enter_async_context(breakable(plan.folder))
            started = proxy(plan.folder, upstream.url, fast_paths=paths, **PATIENT)
            trials.append(Trial(upstream, await stack.enter_async_context(started)))
        found = await asyncio.gather(*(each.run() for each in trials))
        rows = [_joined(alike) for alike in zip(*found, strict=True)]
        for each in trials:
            rows[-1].hold(not each.proxy.tracebacks(), "a traceback in the log")
        return rows


def _joined(alike: tuple[Row, ...]) -> Row:
    """Make one row of those of both clients."""
    return Row(
        what=alike[0].what,
        tried=sum(each.tried for each in alike),
        failures=[failure for each in alike for failure in each.failures],
        measured=[
            f"{way}: {', '.join(each.measured)}"
            for way, each in zip(CLIENTS, alike, strict=True)
        ],
    )


@define
class Trial:
    """What is tried through one client."""

    upstream: Breakable
    proxy: Proxy
    _calls: Iterator[int] = field(factory=lambda: iter(range(1_000_000)))
    _slowest_s: float = 0
    _statuses: Counter[int] = field(factory=Counter)

    async def run(self) -> list[Row]:
        """Try everything that there is."""
        beside = "alone, with another, and relayed"
        ways = {
            f"{len(MOODS)} moods of the server: {beside}": [
                ("be", {"mood": mood}) for mood in MOODS
            ],
            f"{len(FAULTY)} faulty answers: {beside}": [
                ("break", {"fault": name, "value": value}) for name, value in FAULTY
            ],
            f"{len(DEEDS)} failures of the server: {beside}": [
                ("do", {"do": deed, "seconds": 0.5}) for deed in DEEDS
            ],
        }
        return [await self._all(what, commands) for what, commands in ways.items()]

    async def _all(self, what: str, commands: Sequence[tuple[str, Any]]) -> Row:
        row = Row(what=what)
        self._slowest_s, self._statuses = 0, Counter()
        for command, how in commands:
            for calls in (["own"], ["own", "own"], ["relayed"]):
                await self.upstream.tell(command, **how)
                await self._together(calls, f"{how}, {' and '.join(calls)}", row)
                await self._afterwards(f"{how}, {' and '.join(calls)}", row)
        told = ", ".join(
            f"{'cut off' if status == CUT else status} {n} times"
            for status, n in sorted(self._statuses.items())
        )
        row.measured += [told, f"slowest {self._slowest_s:.1f} s"]
        return row

    async def _together(self, calls: Sequence[str], name: str, row: Row) -> None:
        row.tried += 1
        tries = [self._texts(BAD if not at else "") for at in range(len(calls))]
        answers = await asyncio.gather(
            *(
                self._ask(texts, is_relayed=kind == "relayed")
                for texts, kind in zip(tries, calls, strict=True)
            )
        )
        for (status, body), texts in zip(answers, tries, strict=True):
            self._statuses[status] += 1
            row.hold(status, f"{name}: no answer: {body!r}")
            right = are_own(body, texts)
            row.hold(status != OK or right, f"{name}: wrong rows: {body[:500]!r}")

    async def _afterwards(self, name: str, row: Row) -> None:
        """Mend the server: the next call is right, and nothing is held."""
        await self.upstream.tell("mend")
        await self.upstream.tell("traits", **attrs.asdict(Traits()))
        texts = self._texts()
        status, body = await self._ask(texts)
        right = status == OK and are_right(body, texts)
        row.hold(right, f"{name}: then {status}: {body[:500]!r}")
        left = await self.proxy.held()
        row.hold(not left, f"{name}: still held: {left}")

    def _texts(self, bad: str = "") -> list[str]:
        texts = [f"text {next(self._calls)}" for _ in range(11)]
        return [*texts, bad] if bad else texts

    async def _ask(
        self, texts: Sequence[str], *, is_relayed: bool = False
    ) -> tuple[int, bytes]:
        """Return status and body of the answer; 0 and what happened if none came."""
        body = json.dumps({"inputs": texts}).encode()
        began = time.monotonic()
        connection = await self.proxy.connect()
        try:
            asked = call(body[:-1] + RELAYED if is_relayed else body)
            return await connection.ask(asked, HANGS_S)
        except (OSError, EOFError, ValueError) as error:
            # An answer that is passed on as it comes may break off as it has come.
            is_hanging = isinstance(error, TimeoutError)
            cut = is_relayed and not is_hanging
            return CUT if cut else 0, repr(error).encode()
        finally:
            connection.reset()
            self._slowest_s = max(self._slowest_s, time.monotonic() - began)
