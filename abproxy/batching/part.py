"""
A part: consecutive items of one call that share a batch, and their waiter.

A call is one part unless it is larger than a cap.  The next part of a large call
is made, and queues up, only when the one before has left: so a large import never
stands in front of all other calls, and costs no more than its bytes until then.

Nothing here refers back to itself once it has its outcome: what a call holds is
free as soon as it is answered, refused or cancelled.
"""

import sys
from collections.abc import Callable, Sequence
from math import inf
from typing import Any

from attrs import frozen
from msgspec import Struct
from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure

from abproxy.dialects.call import Call, PartResult
from abproxy.events import Cause
from abproxy.http.messages import Response

__all__ = [
    "ANY_NUMBER",
    "Caps",
    "Outcome",
    "Part",
    "Priority",
    "Waiter",
    "end_of_part",
    "part_of",
    "reject",
    "size_of",
    "whole_part",
]

ANY_NUMBER = sys.maxsize
"""The cap of what is sent whole, as its answer cannot be split."""

Priority = tuple[float, int]
"""A place in the queue over all lanes, by turn and arrival: a lower one is first."""


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


Outcome = list[PartResult] | Failure


class Waiter(Deferred[list[PartResult]]):
    """
    Fires with the results of a call, or of a part of one.

    Other calls may follow it; a caller that leaves takes nothing from them.
    """

    call: Call
    """What is asked for, where others may follow."""

    followers: list[Any] | None = None
    """Those who wait for the same outcome; as long as there are any, work goes on."""

    on_end: Callable[["Waiter", Outcome], None] | None = None
    """Called with the outcome, when the caller has it; None once it is there."""

    _stop: Callable[[Deferred[list[PartResult]]], object] | None = None
    """Stops the work, once only others wait."""

    def fire(self, outcome: Outcome) -> None:
        """Fire with *outcome* for the caller, unless it has left, and for followers."""
        on_end, self.on_end, self._stop = self.on_end, None, None
        if not self.called:
            self.callback(outcome)
        if on_end is not None:
            on_end(self, outcome)

    def cancel(self) -> None:
        """Note that the caller has left; if no other waits, stop the work."""
        if self.called or not self.followers:
            on_end, self.on_end = self.on_end, None
            super().cancel()
            if on_end is not None:
                on_end(self, Failure(CancelledError()))
        else:
            self._stop = self._canceller
            self.errback(CancelledError())

    def give_up(self) -> None:
        """Stop the work, as its caller and the last of the others have left."""
        on_end, self.on_end = self.on_end, None
        if self._stop is not None:
            self._stop(self)
        if on_end is not None:
            on_end(self, Failure(CancelledError()))


_NO_WAITER = Waiter()


class Part(Struct, kw_only=True, eq=False):
    """Some items of a call, from when they queue up to their rows."""

    call: Call

    items: Sequence[bytes]

    lengths: Sequence[int]

    size: int
    """Bytes of its items, with a comma each."""

    arrived_at: float
    """When it queued up first, on the clock's scale."""

    rest_of: Any = None
    """The large call whose next part queues up when this one has left, or None."""

    may_be_held: bool = True
    """Whether it may wait for others to join; a later part's call has waited."""

    on_cancel: "Callable[[Part], None] | None" = None
    """Called if the caller leaves; set by what holds the part: a lane, a batch."""

    priority: Priority = (-inf, 0)
    """Its place; before all others if it has left without queueing up."""

    overtaken: int = 0
    """How many batches have left with younger parts of its lane."""

    sends: int = 0
    """How many requests it was in."""

    connection_failures: int = 0
    """How many requests it was in when their connection broke."""

    is_second: bool = False
    """Whether it is computed again, as its pieces were not of one model."""

    waiter: Waiter = _NO_WAITER
    """Fires once; with several results if the part had to be split after all."""

    cancelled: bool = False
    """Whether its caller has left."""

    def __repr__(self) -> str:
        """Return its call and no text: texts are never printed."""
        return f"Part({self.call!r}, {len(self.items)} items)"

    def cancel(self, _waiter: Deferred[list[PartResult]]) -> None:
        """Note that its caller has left."""
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
        Fire the waiter with the outcome, if there still is one.

        A waiter whose caller left is called by its cancellation, or is just
        about to be; firing it again would raise, and those after it in the batch
        would wait for ever.
        """
        self.on_cancel = None
        if not self.cancelled:
            self.waiter.fire(outcome)


def size_of(items: Sequence[bytes]) -> int:
    """Return the bytes of *items*, with a comma for each."""
    return sum(map(len, items)) + len(items)


def reject(parts: Sequence[Part], cause: Cause) -> None:
    """Fire each of *parts* with the reason why there are no rows for it."""
    for part in parts:
        if isinstance(cause, Response):
            part.fire([PartResult(response=cause)])
        else:
            part.fire(Failure(cause.copy()))


def whole_part(call: Call, size: int, now: float) -> Part:
    """Return the only part of a *call* whose items have so many bytes."""
    part = Part(
        call=call,
        items=call.items.raw,
        lengths=call.items.lengths,
        size=size,
        arrived_at=now,
    )
    part.waiter = Waiter(part.cancel)
    return part


def part_of(
    call: Call,
    items: Sequence[bytes],
    lengths: Sequence[int],
    span: slice,
    arrived_at: float,
) -> Part:
    """Return a part with those *items* of a *call* that are in the *span*."""
    own = items[span]
    part = Part(
        call=call,
        items=own,
        lengths=lengths[span],
        size=size_of(own),
        arrived_at=arrived_at,
    )
    part.waiter = Waiter(part.cancel)
    return part


def end_of_part(items: Sequence[bytes], start: int, caps: Caps) -> int:
    """
    Return where the part ends that begins with the item at *start*.

    One item over the cap of bytes makes a part by itself: whether it is
    too large is for the upstream to say.
    """
    most = min(start + caps.items, len(items))
    size = 0
    for at in range(start, most):
        size += len(items[at]) + 1
        if size > caps.size and at > start:
            return at
    return most
