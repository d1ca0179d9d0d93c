"""
The ways that a call can take to the server: alone, with a timer, by abproxy.

A way is written as it stands in a table: `direct`, `timer 50/32` (ms / calls),
`abproxy`, `abproxy budget=64 slots=4 packs=no wait_ms=5`.
"""

import sys
from collections.abc import Sequence
from typing import Any, Protocol

from attrs import define, field, frozen
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.python.failure import Failure

from abproxy.batching.admission import Admission
from abproxy.batching.collector import BatchCollector
from abproxy.batching.concurrency import (
    AdaptiveLimit,
    Budget,
    FixedLimit,
    Limit,
)
from abproxy.batching.part import Caps
from abproxy.batching.slots import make_slots
from abproxy.dialects.call import Call, Dialect, Items, LaneKey, PartResult, Rows
from abproxy.dialects.split import distribute
from abproxy.http.messages import Response, UpstreamRequest
from bench.simulation.fleets import Several, choosing
from bench.simulation.servers import Server

__all__ = ["BATCH", "Served", "Way", "call_of", "make_way", "rows_of"]

BATCH = 32
"""Items in a full batch: TEI's own default."""

ASSUMED_PERMITS = 512
"""What abproxy goes by where nothing is said: TEI's own default."""


class Commas(Dialect):
    """The language of the modelled servers."""

    path = b"/"

    def read(self, body: bytes) -> None:
        """Read nothing: calls are made in one piece."""

    def batch_body(self, items: Sequence[bytes], options: bytes) -> bytes:  # noqa: ARG002
        """Join the items."""
        return b",".join(items)

    def split(
        self,
        body: bytes,
        lengths: Sequence[Sequence[int]],
        order: Sequence[int] | None = None,
    ) -> list[Rows]:
        """Split the rows as those of any other language."""
        return distribute(body.split(b","), lengths, order)

    def write(self, parts: Sequence[Rows], items: Items) -> bytes:  # noqa: ARG002
        """Join the rows."""
        return b",".join(row for part in parts for row in part.raw)

    def error_body(self, error: Exception) -> bytes:
        """Say what went wrong."""
        return str(error).encode()


COMMAS = Commas()
NONE = Items(raw=(), lengths=())


def _lane(*, is_bulk: bool) -> LaneKey:
    return LaneKey(
        dialect=COMMAS,
        path=b"/",
        headers=(),
        options=b"bulk" * is_bulk,
        is_bulk=is_bulk,
    )


LANES = {is_bulk: _lane(is_bulk=is_bulk) for is_bulk in (False, True)}


def call_of(items: Sequence[bytes], *, is_bulk: bool = False) -> Call:
    """Make a call."""
    return Call(
        lane_key=LANES[is_bulk],
        items=Items(raw=items, lengths=[len(item) for item in items]),
        alone=UpstreamRequest(
            path=b"/", headers=(), body=b",".join(items), items=len(items)
        ),
    )


def rows_of(results: Sequence[PartResult]) -> bytes | None:
    """Write a call's answer; None if it was refused."""
    if results[0].response.status != 200:  # noqa: PLR2004
        return None
    parts = [result.rows for result in results if result.rows is not None]
    return COMMAS.write(parts, NONE) if parts else results[0].response.body


Served = Server | Several
"""What a way leads to."""


class Way(Protocol):
    """Where clients hand in their calls."""

    def submit(self, call: Call) -> Deferred[list[PartResult]]:
        """Take in *call*, as abproxy's Departures do."""


@define(eq=False)
class Direct:
    """No proxy; a call too large for the server is sent in pieces, one by one."""

    server: Served

    def submit(self, call: Call) -> Deferred[list[PartResult]]:
        """Send it."""
        return Deferred.fromCoroutine(self._send(call))

    async def _send(self, call: Call) -> list[PartResult]:
        items = call.items.raw
        if len(items) <= BATCH:
            return [PartResult(response=await self.server.send(call.alone))]
        bodies = []
        for start in range(0, len(items), BATCH):
            request = call.lane_key.request(items[start : start + BATCH])
            reply = await self.server.send(request)
            if reply.status != 200:  # noqa: PLR2004
                return [PartResult(response=reply)]
            bodies.append(reply.body)
        whole = Response(status=200, reason=b"", headers=(), body=b",".join(bodies))
        return [PartResult(response=whole)]


@define(kw_only=True, eq=False)
class Timer:
    """
    The classic: a batch leaves when it is full, or some time after its first call.

    Nothing bounds what is in flight, and what happens to a batch happens to
    all of its calls.
    """

    server: Served
    wait_s: float
    calls: int

    _waiting: list[tuple[Call, Deferred[list[PartResult]]]] = field(factory=list)
    _items: int = 0
    _timer: IDelayedCall | None = None

    def submit(self, call: Call) -> Deferred[list[PartResult]]:
        """Add it to the batch."""
        count = len(call.items.raw)
        if self._items and self._items + count > BATCH:
            self._leave()
        done: Deferred[list[PartResult]] = Deferred()
        self._waiting.append((call, done))
        self._items += count
        if len(self._waiting) >= self.calls or self._items >= BATCH:
            self._leave()
        elif self._timer is None:
            self._timer = self.server.clock.callLater(self.wait_s, self._ring)
        return done

    def _ring(self) -> None:
        self._timer = None
        self._leave()

    def _leave(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        batch, self._waiting, self._items = self._waiting, [], 0
        items = [item for call, _ in batch for item in call.items.raw]
        done = self.server.send(batch[0][0].lane_key.request(items))
        done.addCallbacks(_share_out, _fail, (batch,), {}, (batch,), {})


def _share_out(
    reply: Response, batch: list[tuple[Call, Deferred[list[PartResult]]]]
) -> None:
    if reply.status == 200:  # noqa: PLR2004
        parts = COMMAS.split(reply.body, [call.items.lengths for call, _ in batch])
        results = [PartResult(response=reply, rows=own) for own in parts]
    else:
        results = [PartResult(response=reply)] * len(batch)
    for (_, done), result in zip(batch, results, strict=True):
        done.callback([result])


def _fail(
    failure: Failure, batch: list[tuple[Call, Deferred[list[PartResult]]]]
) -> None:
    for _, done in batch:
        done.errback(Failure(failure.value))


@frozen(kw_only=True)
class Chosen:
    """What may be said about abproxy; the rest is as it is by default."""

    budget: int | None = None
    slots: int | None = None
    packs: bool = True
    wait_ms: float = 0.0
    calls: int = sys.maxsize
    items: int = BATCH
    turns: bool = False
    """Whether each of several servers gets its turn, as behind a balancer."""


def _proxy(server: Served, chosen: Chosen) -> BatchCollector:
    clock, send, servers = server.clock, server.send, 1
    if isinstance(server, Several) and not chosen.turns:
        send, servers = choosing(server, ASSUMED_PERMITS), len(server.servers)
    batch, permits = chosen.items * servers, ASSUMED_PERMITS * servers
    limit: Limit
    if chosen.budget is None:
        limit = AdaptiveLimit(clock=clock, ceiling=permits, batch=batch)
    else:
        limit = FixedLimit(ceiling=chosen.budget, batch=batch)
    return BatchCollector(
        clock=clock,
        send=send,
        caps=Caps(calls=chosen.calls, items=chosen.items, size=1_900_000),
        budget=Budget(
            limit=limit,
            slots=make_slots(chosen.slots),
            servers=servers,
        ),
        admission=Admission(clock=clock, max_items=10_000, max_size=64 << 20),
        max_wait_s=chosen.wait_ms / 1000,
        packs=chosen.packs,
    )


READ: dict[str, Any] = {
    "budget": int,
    "slots": int,
    "packs": lambda text: text == "yes",
    "wait_ms": float,
    "calls": int,
    "items": int,
    "turns": lambda text: text == "yes",
}
"""How each of them is written."""


def make_way(name: str, server: Served) -> Way:
    """
    Build the way that is called *name*.

    Raises:
        ValueError: there is no such way.
    """
    kind, *words = name.split()
    if kind == "direct" and not words:
        return Direct(server)
    if kind == "timer" and len(words) == 1:
        wait_ms, _, calls = words[0].partition("/")
        return Timer(server=server, wait_s=float(wait_ms) / 1000, calls=int(calls))
    if kind == "abproxy":
        pairs = [word.partition("=")[::2] for word in words]
        try:
            chosen = Chosen(**{key: READ[key](value) for key, value in pairs})
        except KeyError as error:
            raise ValueError(f"abproxy has no {error} here: {name!r}") from error
        return _proxy(server, chosen)
    raise ValueError(f"no way is called {name!r}")
