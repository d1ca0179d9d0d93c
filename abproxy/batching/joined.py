"""
The parts of one call: how they are made, and how their rows become one answer.

A call larger than a cap is sent in parts, of which the next is made when the one
before has left; and a part that turns out to be too large is sent in pieces.  Rows
are joined only if they are of one model; otherwise all is computed again, once.
"""

from collections.abc import Callable

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from abproxy.batching.part import (
    Caps,
    Part,
    Waiter,
    end_of_part,
    part_of,
    size_of,
)
from abproxy.dialects.call import Call, MayJoin, PartResult
from abproxy.errors import MODEL_CHANGED, MemoryFull, ModelChanged

__all__ = ["Collected", "LargeCall", "split_part"]


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
        """Release what a subclass has kept: the call has ended."""

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
        part = part_of(self.call, items.raw, items.lengths, slice(start, self._at), now)
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
        piece = part_of(part.call, part.items, part.lengths, span, part.arrived_at)
        piece.priority = part.priority
        piece.connection_failures = part.connection_failures
        piece.may_be_held = part.may_be_held
        pieces.append(piece)
        joined.add(piece)
        start = end
    joined.done.addBoth(part.fire)
    part.on_cancel = lambda _part: joined.done.cancel()
    return pieces
