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

from attrs import define, field, frozen
from msgspec import Struct
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from abproxy.batching.waiter import Waiter
from abproxy.dialects.call import Call, MayJoin, PartResult
from abproxy.errors import MODEL_CHANGED, MemoryFull, ModelChanged
from abproxy.events import Cause
from abproxy.http.messages import Response

__all__ = [
    "ANY_NUMBER",
    "Caps",
    "Collected",
    "LargeCall",
    "Part",
    "Priority",
    "end_of_part",
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

    is_second: bool = False
    """Whether it is computed again, as its pieces were not of one model."""

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


# From one call to parts, and back


@define(kw_only=True, eq=False)
class _Joined:
    """
    The results of several parts of one call, in order.

    What ends the wait for one part ends it for all, be it a failure, a caller who
    leaves, or a response of the upstream that is no rows.  If they are not of one
    model, all is computed again, once.
    """

    call: Call
    may_join: MayJoin = field(repr=False)
    done: Waiter = field(init=False, repr=False)
    """Fires with the results; a response that is no rows is the only one then."""

    _open: dict[int, Part] = field(init=False, factory=dict)
    """The parts that have no result yet, by their place."""

    _results: list[list[PartResult]] = field(init=False, factory=list)
    _deciding: Deferred[bool] | None = field(init=False, default=None, repr=False)
    """Fires when it is known whether the results may be joined."""

    _is_over: bool = field(init=False, default=False)

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
            self._join([each for one in self._results for each in one])
        elif not self._may_keep(outcome):
            self._stop()
            most = "answers that are being collected take too much memory"
            self.done.fire(Failure(MemoryFull(f"{most}: try again later")))

    def _join(self, results: list[PartResult]) -> None:
        """Answer with *results*, if they are of one model."""
        answer = self.may_join(self.call, results)
        if isinstance(answer, bool):
            self._decide(answer, results)
        else:
            self._deciding = answer
            answer.addBoth(self._decide, results)

    def _decide(self, answer: bool | Failure, results: list[PartResult]) -> None:  # noqa: FBT001
        self._deciding = None
        if self._is_over or (answer is False and self._begin_again()):
            return
        self._end()
        if isinstance(answer, Failure):
            self.done.fire(answer)
        else:
            self.done.fire(results if answer else Failure(ModelChanged(MODEL_CHANGED)))

    def _begin_again(self) -> bool:
        """Return whether all is computed once more, which it has not been before."""
        raise NotImplementedError

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
        self._is_over = True
        self._end()
        if self._deciding is not None:
            self._deciding.cancel()
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


@define(kw_only=True, eq=False)
class LargeCall(_Joined):
    """A call larger than a batch: its parts are made one after the other."""

    on_again: Callable[["LargeCall"], None] = field(repr=False)
    """Called when its parts have to be made once more."""

    on_stop: Callable[["LargeCall"], None] = field(repr=False)
    """Called when it ends with a rest that has not queued up."""

    left_size: int
    """Bytes of the items that are in no part yet."""

    collected: Collected = field(factory=Collected, repr=False)
    """Where its rows are counted until all are there."""

    _at: int = field(init=False, default=0)
    """The first item that is in no part yet."""

    _is_second: bool = field(init=False, default=False)

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

    def _begin_again(self) -> bool:
        if self._is_second:
            return False
        self._end()
        self._is_second = True
        self._results.clear()
        self._at, self.left_size = 0, size_of(self.call.items.raw)
        self.on_again(self)
        return True

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


@define(kw_only=True, eq=False)
class _Pieces(_Joined):
    """The pieces of a part that had to be split after all."""

    part: Part
    on_again: Callable[[Part], None] = field(repr=False)

    def _begin_again(self) -> bool:
        if self.part.is_second:
            return False
        self.part.is_second = True
        self.on_again(self.part)
        return True


def split_part(
    part: Part, caps: Caps, may_join: MayJoin, on_again: Callable[[Part], None]
) -> list[Part]:
    """
    Make parts within *caps* that take the place of a *part*, and answer it.

    Args:
        part: what is split.
        caps: what fits into a piece.
        may_join: says whether rows may be in one answer.
        on_again: called when *part* has to be sent once more.
    """
    joined = _Pieces(call=part.call, part=part, may_join=may_join, on_again=on_again)
    pieces, start = list[Part](), 0
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
