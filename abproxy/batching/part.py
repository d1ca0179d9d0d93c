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

from attrs import define, field, frozen
from msgspec import Struct
from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure

from abproxy.dialects.call import Call, PartResult
from abproxy.errors import MemoryFull
from abproxy.events import Cause
from abproxy.http.messages import Response

__all__ = [
    "ANY_NUMBER",
    "Caps",
    "Collected",
    "LargeCall",
    "Part",
    "Priority",
    "Waiter",
    "end_of_part",
    "halves",
    "likely_good_first",
    "reject",
    "size_of",
    "split_part",
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
        """Hand the *outcome* to the caller, unless it has left, and to the others."""
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

    rest_of: "LargeCall | None" = None
    """The call whose next part queues up when this one has left."""

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

    waiter: Waiter = _NO_WAITER
    """Fires once; with several results if the part had to be split after all."""

    cancelled: bool = False
    """Whether its caller has left."""

    def __repr__(self) -> str:
        """Name its call: a text is never printed."""
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
        Hand the outcome to the waiter, if there still is one.

        A waiter whose caller left is called by its cancellation, or is just
        about to be; firing it again would raise, and those after it in the batch
        would wait for ever.
        """
        self.on_cancel = None
        if not self.cancelled:
            self.waiter.fire(outcome)


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


# From one call to parts, and back


@define(eq=False)
class _Joined:
    """
    The results of several parts of one call, in order.

    What ends the wait for one part ends it for all, be it a failure, a caller who
    leaves, or a response of the upstream that is no rows.
    """

    done: Waiter = field(init=False, repr=False)
    """Fires with the results; a response that is no rows is the only one then."""

    _open: dict[int, Part] = field(init=False, factory=dict)
    """The parts that have no result yet, by their place."""

    _results: list[list[PartResult]] = field(init=False, factory=list)

    def __attrs_post_init__(self) -> None:
        self.done = Waiter(self._cancel)

    def add(self, part: Part) -> None:
        """Wait for *part* as well, which comes after those added before."""
        place = len(self._results)
        self._results.append([])
        self._open[place] = part
        part.waiter.addBoth(self._note, place)

    def _note(self, outcome: list[PartResult] | Failure, place: int) -> None:
        if self._open.pop(place, None) is None:
            return  # it ends because another one has ended it
        if isinstance(outcome, Failure) or outcome[0].rows is None:
            self._stop()
            self.done.fire(outcome)
            return
        self._results[place] = outcome
        if not self._open and not self.left_items:
            self._end()
            self.done.fire([each for one in self._results for each in one])
        elif not self._may_keep(outcome):
            self._stop()
            most = "answers that are being collected take too much memory"
            self.done.errback(MemoryFull(f"{most}: try again later"))

    def _may_keep(self, results: list[PartResult]) -> bool:  # noqa: ARG002
        """Return whether there is memory for *results* until the others come."""
        return True

    def _end(self) -> None:
        """Note that nothing is kept any more."""

    @property
    def left_items(self) -> int:
        """Return how many items are in no part yet."""
        return 0

    def _cancel(self, _done: Deferred[list[PartResult]]) -> None:
        self._stop()

    def _stop(self) -> None:
        """Cancel all parts that have no result yet."""
        self._end()
        left, self._open = self._open, {}
        # From the last to the first: room that one part gives back must not be
        # taken by a later one that is about to go.
        for part in reversed(left.values()):
            part.waiter.cancel()


@define(eq=False)
class Collected:
    """The rows of large calls of which other parts are not answered yet."""

    size: int = field(init=False, default=0)
    """Their bytes."""

    make_room: Callable[[], bool] = field(default=lambda: True, repr=False)
    """Called for what is added; returns whether there is memory for it."""

    _of_calls: "dict[LargeCall, int]" = field(init=False, factory=dict, repr=False)

    def add(self, call: "LargeCall", size: int) -> bool:
        """
        Add rows of *call*; return whether it may go on.

        The one that has most goes on in any case: room is no use to none.
        """
        own = self._of_calls[call] = self._of_calls.get(call, 0) + size
        self.size += size
        return self.make_room() or own >= max(self._of_calls.values())

    def remove(self, call: "LargeCall") -> None:
        """Remove the rows of *call*, which is answered or has failed."""
        self.size -= self._of_calls.pop(call, 0)


@define(eq=False)
class LargeCall(_Joined):
    """A call larger than a batch: its parts are made one after the other."""

    call: Call
    on_stop: Callable[["LargeCall"], None] = field(repr=False)
    """Called when it ends with a rest that has not queued up."""

    left_size: int
    """Bytes of the items that are in no part yet."""

    collected: Collected = field(factory=Collected, repr=False)
    """Where its rows are counted until all are there."""

    _at: int = field(init=False, default=0)
    """The first item that is in no part yet."""

    @property
    def left_items(self) -> int:
        """Return how many items are in no part yet."""
        return len(self.call.items.raw) - self._at

    def next_part(self, caps: Caps, now: float) -> Part:
        """Make the next part, within *caps*, of the rest that there is."""
        items, start = self.call.items, self._at
        self._at = end_of_part(items.raw, start, caps)
        part = _part_of(
            self.call, items.raw, items.lengths, slice(start, self._at), now
        )
        part.may_be_held = not start
        self.left_size -= part.size
        if self.left_items:
            part.rest_of = self
        self.add(part)
        return part

    def _may_keep(self, results: list[PartResult]) -> bool:
        rows = [row for each in results if each.rows for row in each.rows.raw]
        return self.collected.add(self, sum(map(len, rows)))

    def _end(self) -> None:
        self.collected.remove(self)

    def _stop(self) -> None:
        if self.left_items:
            self.on_stop(self)
            self._at, self.left_size = len(self.call.items.raw), 0
        super()._stop()


def whole_part(call: Call, size: int, now: float) -> Part:
    """Make the one part of a *call* whose items have so many bytes."""
    part = Part(
        call=call,
        items=call.items.raw,
        lengths=call.items.lengths,
        size=size,
        arrived_at=now,
    )
    part.waiter = Waiter(part.cancel)
    return part


def _part_of(
    call: Call,
    items: Sequence[bytes],
    lengths: Sequence[int],
    span: slice,
    arrived_at: float,
) -> Part:
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


def split_part(part: Part, caps: Caps) -> list[Part]:
    """Make parts within *caps* that take the place of a *part*, and answer it."""
    joined, pieces, start = _Joined(), list[Part](), 0
    while start < len(part.items):
        end = end_of_part(part.items, start, caps)
        span = slice(start, end)
        piece = _part_of(part.call, part.items, part.lengths, span, part.arrived_at)
        piece.priority = part.priority
        piece.connection_failures = part.connection_failures
        piece.may_be_held = part.may_be_held
        pieces.append(piece)
        joined.add(piece)
        start = end
    joined.done.addBoth(part.fire)
    part.on_cancel = lambda _part: joined.done.cancel()
    return pieces
