"""Odd and ambiguous requests: all ways through the proxy must read them alike."""

import asyncio
import re
import time
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from itertools import pairwise
from random import Random

from attrs import define, field, frozen

from bench.attack.client import Connection, connect, get
from bench.attack.corpus import CASES, SMUGGLED
from bench.attack.found import Plan, Row
from bench.attack.proxies import WAYS, proxy
from bench.attack.tap import BARRIER, Seen, Tap, tap

__all__ = ["framing"]

_OF_THE_MOMENT = re.compile(rb"\r\n(?:Date|X-Request-Id): [^\r]*")
QUIET_ROUNDS = 2
SETTLE_S = 0.1
MOST_LOOKS = 5
MOST_ROUNDS = 60
LONG = 9999
"""A case of more bytes is not joined with others."""

PIECES = (b"\r\n", b"\r", b"\n", b"\0", b" ", b"\t", b":", b",", b";", b"0", b"chunked")


@frozen
class Outcome:
    """What became of the bytes of one connection."""

    answered: bytes
    asked: tuple[Seen, ...]
    wrong: tuple[bytes, ...]


@define(eq=False)
class Way:
    """One proxy, its upstream, and a connection that shows that both are idle."""

    port: int
    tap: Tap
    helper: Connection = field(repr=False)

    async def send(self, pieces: Sequence[bytes], settle_s: float) -> Outcome:
        """Send *pieces* on a connection, and return what came of them."""
        connection = await connect(self.port)
        received = bytearray()
        reading = asyncio.create_task(_read_into(connection, received))
        await connection.send(pieces, 0.001 if len(pieces) > 1 else 0)
        await self._until_quiet(received, settle_s)
        connection.reset()
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)
        # What is cancelled now is not mistaken for part of the next case.
        await self.helper.ask(get(BARRIER))
        return Outcome(_OF_THE_MOMENT.sub(b"", bytes(received)), *self.tap.take())

    async def _until_quiet(self, received: bytearray, settle_s: float) -> None:
        quiet = 0
        for _ in range(MOST_ROUNDS):
            before = len(received), len(self.tap.seen)
            # What was sent before is read before this, and answered before it.
            await self.helper.ask(get(BARRIER))
            await asyncio.sleep(settle_s)
            quiet = quiet + 1 if before == (len(received), len(self.tap.seen)) else 0
            if quiet == QUIET_ROUNDS:
                return


async def _read_into(connection: Connection, received: bytearray) -> None:
    while data := await connection.reader.read(1 << 16):
        received += data


async def framing(plan: Plan) -> list[Row]:
    """Send the corpus whole and in pieces, and then what is made of it at random."""
    async with AsyncExitStack() as stack:
        ways = {}
        for name, paths in WAYS.items():
            upstream = await stack.enter_async_context(tap())
            started = proxy(plan.folder, upstream.url, fast_paths=paths)
            port = (await stack.enter_async_context(started)).port
            helper = await connect(port)
            stack.callback(helper.reset)
            ways[name] = Way(port, upstream, helper)
        return [
            await _corpus(ways),
            await _in_pieces(ways, plan.random),
            await _mutations(ways, plan),
        ]


async def _corpus(ways: Mapping[str, Way]) -> Row:
    row = Row(what=f"{len(CASES)} cases of framing, through {len(ways)} ways")
    for case in CASES:
        await _compare(ways, case.name, [case.data], row, is_known=True)
    return row


async def _in_pieces(ways: Mapping[str, Way], random: Random) -> Row:
    row = Row(what="the same in pieces")
    for case in CASES:
        pieces = _cut(case.data, random)
        await _compare(ways, f"{case.name}, in pieces", pieces, row, is_known=True)
    return row


async def _mutations(ways: Mapping[str, Way], plan: Plan) -> Row:
    row = Row(what="requests changed at random, several on a connection")
    ends_at = time.monotonic() + plan.seconds
    while time.monotonic() < ends_at:
        data = _mutated(plan.random)
        pieces = _cut(data, plan.random)
        await _compare(ways, f"changed: {data[:2000]!r}", pieces, row)
    return row


async def _compare(
    ways: Mapping[str, Way],
    name: str,
    pieces: Sequence[bytes],
    row: Row,
    *,
    is_known: bool = False,
) -> None:
    """
    Look whether all *ways* do the same with *pieces*.

    What comes together decides whether a refused request is known to be whole, and its
    connection kept: so what differs is looked at again, and is a failure if no outcome
    is possible for all.
    """
    looks = [await _outcomes(ways, pieces, 0)]
    while not _possible(looks) and len(looks) < MOST_LOOKS:
        looks.append(await _outcomes(ways, pieces, SETTLE_S * len(looks)))
    row.tried += len(ways)
    if not _possible(looks):
        told = [_difference(looks[-1][0], outcome) for outcome in looks[-1]]
        row.fail(f"{name}: {dict(zip(ways, told, strict=True))}")
    for way, outcome in zip(ways, looks[0], strict=True):
        if outcome.wrong:
            row.fail(f"{name}: {way}: no request: {outcome.wrong!r}")
        if is_known and _is_smuggled(outcome):
            row.fail(f"{name}: {way}: smuggled: {outcome.asked!r}")


def _possible(looks: Sequence[Sequence[Outcome]]) -> set[Outcome]:
    """Return the outcomes that all ways have had."""
    return set.intersection(*map(set, zip(*looks, strict=True)))


async def _outcomes(
    ways: Mapping[str, Way], pieces: Sequence[bytes], settle_s: float
) -> list[Outcome]:
    return await asyncio.gather(
        *(each.send(pieces, settle_s) for each in ways.values())
    )


def _difference(one: Outcome, other: Outcome) -> str:
    if one.answered != other.answered:
        return f"answered {other.answered[:600]!r}, not {one.answered[:600]!r}"
    return f"asked {other.asked!r}, not {one.asked!r}" if one != other else "first"


def _is_smuggled(outcome: Outcome) -> bool:
    return any(
        SMUGGLED in seen.first or any(SMUGGLED in name for name, _ in seen.lines)
        for seen in outcome.asked
    )


def _cut(data: bytes, random: Random) -> list[bytes]:
    """Cut *data* into up to six pieces."""
    count = min(5, len(data) - 1)
    cuts = sorted(random.sample(range(1, len(data)), count))
    return [data[start:end] for start, end in pairwise([0, *cuts, len(data)])]


def _mutated(random: Random) -> bytes:
    """Put one to three cases behind each other, and change some of their bytes."""
    chosen = random.choices(CASES, k=random.randint(1, 3))
    data = bytearray(b"".join(case.data for case in chosen if len(case.data) < LONG))
    for _ in range(random.randint(0, 3)):
        at = random.randrange(len(data) + 1)
        length = random.choice((0, 0, 1, 2, 8))
        data[at : at + length] = random.choice(
            (b"", random.choice(PIECES), bytes(data[at - 20 : at]))
        )
    return bytes(data) or b"x"
