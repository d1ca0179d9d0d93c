"""
A part: consecutive items of one call that ride together, and their waiter.

A call is one part unless it is larger than a cap.  The parts of a call form
a chain: the next one queues up only when the one before has left, so that a
large import never stands in front of everybody else.
"""

from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Protocol

from attrs import frozen
from msgspec import Struct
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from abproxy.dialects.call import Call, PartResult

__all__ = ["Caps", "Holder", "Part", "Turn", "chain", "cut_up", "size_of"]

Turn = tuple[float, int]
"""A place in the queue of all lanes: a lower one is older, or more urgent."""


@frozen(kw_only=True)
class Caps:
    """What makes a batch full."""

    calls: int
    """Client requests in a batch."""

    items: int
    """Inputs in a batch."""

    size: int
    """Bytes of JSON in a batch's items."""

    def fill(self, calls: int, items: int, size: int) -> float:
        """Say how full a batch is, by the cap that it comes closest to; 1 is full."""
        shares = (calls / self.calls, items / self.items, size / self.size)
        return min(1.0, max(shares))


_NOBODY: Deferred[list[PartResult]] = Deferred()


class Holder(Protocol):
    """Whoever has a part at the moment: its lane, or the trip it is on."""

    def drop(self, part: "Part") -> None:
        """The part's caller has left."""


class Part(Struct, kw_only=True, eq=False):
    """Some items of a call on their way to their rows."""

    call: Call

    items: Sequence[bytes]

    lengths: Sequence[int]

    arrived_at: float
    """When its call came, on the clock's scale."""

    rest: "Part | None" = None
    """The next part of the same call."""

    holder: Holder | None = None

    turn: Turn = (0, 0)

    overtaken: int = 0
    """How many batches have left with younger parts of its lane."""

    breaks: int = 0
    """How many requests it was in when their connection broke."""

    size: int = 0
    """Bytes of its items, with a comma each."""

    waiter: Deferred[list[PartResult]] = _NOBODY
    """Fires once; with several shares if the part had to be cut after all."""

    gone: bool = False
    """Whether its caller has left."""

    def __post_init__(self) -> None:
        """Measure the items and make the waiter."""
        self.size = size_of(self.items)
        self.waiter = Deferred(self._caller_left)

    def __repr__(self) -> str:
        """Say whose it is: a text is never printed."""
        return f"Part({self.call!r}, {len(self.items)} items)"

    def _caller_left(self, _waiter: Deferred[list[PartResult]]) -> None:
        self.gone = True
        holder, self.holder = self.holder, None
        if holder is not None:
            holder.drop(self)

    @property
    def is_whole_call(self) -> bool:
        """Whether this is all that its call asked for."""
        return len(self.items) == len(self.call.items.raw)

    @property
    def mean_size(self) -> float:
        """Bytes of an item on average: an estimate of its tokens."""
        return self.size / len(self.items)

    def fire(self, outcome: list[PartResult] | Failure) -> None:
        """
        Hand the outcome to the waiter, if there still is one.

        A waiter whose caller left is called by its cancellation, or is just
        about to be; firing it again would raise and starve everybody after it
        in the batch.
        """
        self.holder = None
        if not self.gone and not self.waiter.called:
            self.waiter.callback(outcome)


def size_of(items: Sequence[bytes]) -> int:
    """Measure *items* in bytes, with a comma each."""
    return sum(map(len, items)) + len(items)


def _stretches(items: Sequence[bytes], caps: Caps) -> Iterator[slice]:
    """
    Cut *items* into stretches that each fit into one batch.

    One item over the cap of bytes makes a stretch by itself: whether it is
    too large is for the upstream to say.
    """
    start = size = 0
    for at, item in enumerate(items):
        size += len(item) + 1
        if at > start and (at - start == caps.items or size > caps.size):
            yield slice(start, at)
            start, size = at, len(item) + 1
    yield slice(start, len(items))


def cut_up(part: Part, caps: Caps) -> list[Part]:
    """Make parts of a *part*, each within *caps*; one alone if it fits."""
    return [
        Part(
            call=part.call,
            items=part.items[stretch],
            lengths=part.lengths[stretch],
            arrived_at=part.arrived_at,
        )
        for stretch in _stretches(part.items, caps)
    ]


def chain(call: Call, caps: Caps, now: float) -> list[Part]:
    """Make the parts of *call*, each linked to the next."""
    whole = Part(
        call=call,
        items=call.items.raw,
        lengths=call.items.lengths,
        arrived_at=now,
    )
    if len(whole.items) <= caps.items and whole.size <= caps.size:
        return [whole]
    parts = cut_up(whole, caps)
    for part, following in pairwise(parts):
        part.rest = following
    return parts
