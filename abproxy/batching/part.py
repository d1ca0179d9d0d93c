"""
A part: consecutive items of one call that share a batch, and their waiter.

A call is one part unless it is larger than a cap.  The parts of a call are
linked: the next one queues up only when the one before has left, so that a
large import never stands in front of all other calls.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from math import inf
from typing import cast

from attrs import frozen
from msgspec import Struct
from twisted.internet.defer import Deferred, FirstError, gatherResults
from twisted.python.failure import Failure

from abproxy.dialects.call import Call, PartResult
from abproxy.events import Cause
from abproxy.http.messages import Response

__all__ = [
    "Caps",
    "Part",
    "Priority",
    "halves",
    "join_results",
    "likely_good_first",
    "reject",
    "replace_by_parts",
    "size_of",
    "split_call",
    "split_part",
]

Priority = tuple[float, int]
"""A place in the queue over all lanes: a lower one is older, or more urgent."""


@frozen(kw_only=True)
class Caps:
    """The limits at which a batch is full."""

    calls: int
    """Client requests in a batch."""

    items: int
    """Inputs in a batch."""

    size: int
    """Bytes of JSON in a batch's items."""

    def are_reached(self, calls: int, items: int, size: int) -> bool:
        """Return whether a batch of so much is full."""
        return items >= self.items or calls >= self.calls or size >= self.size

    def fill(self, calls: int, items: int, size: int) -> float:
        """Return how full a batch is, by the cap it comes closest to; 1 is full."""
        shares = (calls / self.calls, items / self.items, size / self.size)
        return min(1.0, max(shares))


_NO_WAITER: Deferred[list[PartResult]] = Deferred()


class Part(Struct, kw_only=True, eq=False):
    """Some items of a call, from its arrival to their rows."""

    call: Call

    items: Sequence[bytes]

    lengths: Sequence[int]

    arrived_at: float
    """When its call came, on the clock's scale."""

    next_part: "Part | None" = None
    """The next part of the same call, until that one queues up."""

    on_cancel: "Callable[[Part], None] | None" = None
    """Called if the caller leaves; set by what holds the part: a lane, a batch."""

    priority: Priority = (-inf, 0)
    """Its place; before all others if it has left without queueing up."""

    overtaken: int = 0
    """How many batches have left with younger parts of its lane."""

    connection_failures: int = 0
    """How many requests it was in when their connection broke."""

    size: int = 0
    """Bytes of its items, with a comma each."""

    waiter: Deferred[list[PartResult]] = _NO_WAITER
    """Fires once; with several results if the part had to be split after all."""

    cancelled: bool = False
    """Whether its caller has left."""

    def __post_init__(self) -> None:
        self.size = size_of(self.items)
        self.waiter = Deferred(self._cancel)

    def __repr__(self) -> str:
        """Name its call: a text is never printed."""
        return f"Part({self.call!r}, {len(self.items)} items)"

    def _cancel(self, _waiter: Deferred[list[PartResult]]) -> None:
        self.cancelled = True
        on_cancel, self.on_cancel = self.on_cancel, None
        if on_cancel is not None:
            on_cancel(self)

    @property
    def is_whole_call(self) -> bool:
        """Return whether this is all that its call asked for."""
        return len(self.items) == len(self.call.items.raw)

    @property
    def mean_size(self) -> float:
        """Return the bytes of an item on average: an estimate of its tokens."""
        return self.size / len(self.items)

    def fire(self, outcome: list[PartResult] | Failure) -> None:
        """
        Hand the outcome to the waiter, if there still is one.

        A waiter whose caller left is called by its cancellation, or is just
        about to be; firing it again would raise, and those after it in the batch
        would wait for ever.
        """
        self.on_cancel = None
        if not self.cancelled and not self.waiter.called:
            self.waiter.callback(outcome)


def size_of(items: Sequence[bytes]) -> int:
    """Measure *items* in bytes, with a comma each."""
    return sum(map(len, items)) + len(items)


def reject(parts: Sequence[Part], cause: Cause) -> None:
    """Fire each of *parts* with the reason why there are no rows for it."""
    for part in parts:
        if isinstance(cause, Response):
            part.fire([PartResult(response=cause)])
        else:
            part.fire(Failure(cause.copy()))


def halves(parts: list[Part]) -> list[list[Part]]:
    """Return two halves of *parts*, or fewer if there are fewer."""
    middle = (len(parts) + 1) // 2
    return [half for half in (parts[:middle], parts[middle:]) if half]


def likely_good_first(parts: list[Part]) -> list[Part]:
    """
    Order *parts* by how likely they are to succeed.

    Bad inputs are most often too long, or empty: so those of the usual length go
    first; and of those alike the ones in the middle, to begin somewhere.
    """
    middle = len(parts) // 2
    usual = sorted(part.size for part in parts)[middle]

    def unlikelihood(at: int) -> tuple[int, int]:
        return abs(parts[at].size - usual), abs(at - middle)

    return [parts[at] for at in sorted(range(len(parts)), key=unlikelihood)]


# From one call to parts


def split_call(call: Call, caps: Caps, now: float) -> list[Part]:
    """Make the parts of *call*, each linked to the next; one if it goes whole."""
    whole = Part(
        call=call,
        items=call.items.raw,
        lengths=call.items.lengths,
        arrived_at=now,
    )
    fits = len(whole.items) <= caps.items and whole.size <= caps.size
    if fits or call.lane_key.serial:
        return [whole]
    parts = split_part(whole, caps)
    for part, following in pairwise(parts):
        part.next_part = following
    return parts


def split_part(part: Part, caps: Caps) -> list[Part]:
    """Make parts of a *part*, each within *caps*; one alone if it fits."""
    return [
        Part(
            call=part.call,
            items=part.items[span],
            lengths=part.lengths[span],
            arrived_at=part.arrived_at,
        )
        for span in _ranges(part.items, caps)
    ]


def _ranges(items: Sequence[bytes], caps: Caps) -> Iterator[slice]:
    """
    Divide *items* into ranges that each fit into one batch.

    One item over the cap of bytes makes a range by itself: whether it is
    too large is for the upstream to say.
    """
    start = size = 0
    for at, item in enumerate(items):
        size += len(item) + 1
        if at > start and (at - start == caps.items or size > caps.size):
            yield slice(start, at)
            start, size = at, len(item) + 1
    yield slice(start, len(items))


def replace_by_parts(part: Part, caps: Caps) -> list[Part]:
    """Make parts within *caps* that wait in the place of *part*, and answer it."""
    pieces = split_part(part, caps)
    for piece in pieces:
        piece.priority = part.priority
        piece.connection_failures = part.connection_failures
    joined = join_results(pieces).addBoth(part.fire)
    part.on_cancel = lambda _part: joined.cancel()
    return pieces


# And back again: what ends the wait for one part ends it for all, be it a
# failure, a caller who leaves, or a response of the upstream that is no rows.


class _NotRows(Exception):
    """A part of a large call got a response instead of rows."""


def _rows_or_stop(results: list[PartResult]) -> list[PartResult]:
    if results[0].rows is None:
        raise _NotRows(results[0])
    return results


def join_results(parts: list[Part]) -> Deferred[list[PartResult]]:
    """
    Wait for all *parts* of one call; fires with their results in order.

    A response that is no rows is the only result then.
    """
    if len(parts) == 1:
        return parts[0].waiter
    return Deferred.fromCoroutine(_join(parts))


async def _join(parts: list[Part]) -> list[PartResult]:
    # From the last to the first, also when they are cancelled: room that one
    # part gives back must not be taken by a later one that is about to go.
    waiters = [part.waiter.addCallback(_rows_or_stop) for part in reversed(parts)]
    try:
        found = await gatherResults(waiters, consumeErrors=True)
        return [result for results in reversed(found) for result in results]
    except FirstError as first:
        for waiter in waiters:
            waiter.cancel()
        if isinstance(first.subFailure.value, _NotRows):
            return list(first.subFailure.value.args)
        raise cast("BaseException", first.subFailure.value) from first
