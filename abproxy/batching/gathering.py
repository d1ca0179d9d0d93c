"""
Waiting for all parts of one call, or all pieces of one part, at once.

What ends the wait for one part ends it for all: a failure, a caller who
leaves, or a reply of the upstream that is no rows.
"""

from typing import cast

from attrs import frozen
from twisted.internet.defer import Deferred, FirstError, gatherResults

from abproxy.batching.part import Caps, Part, cut_up
from abproxy.dialects.call import PartResult

__all__ = ["gather", "in_pieces"]


class _PassedOn(Exception):
    """A part of a large call got a reply instead of rows."""


def _rows_or_stop(results: list[PartResult]) -> list[PartResult]:
    if results[0].rows is None:
        raise _PassedOn(results[0])
    return results


async def _all_rows(parts: list[Part]) -> list[PartResult]:
    # From the last to the first, also when they are cancelled: room that one
    # part gives back must not be taken by a later one that is about to go.
    waiters = [part.waiter.addCallback(_rows_or_stop) for part in reversed(parts)]
    try:
        found = await gatherResults(waiters, consumeErrors=True)
        return [result for results in reversed(found) for result in results]
    except FirstError as first:
        for waiter in waiters:
            waiter.cancel()
        if isinstance(first.subFailure.value, _PassedOn):
            return list(first.subFailure.value.args)
        raise cast("BaseException", first.subFailure.value) from first


def gather(parts: list[Part]) -> Deferred[list[PartResult]]:
    """
    Wait for all *parts* of one call; fires with their results in order.

    A reply that is no rows is the only result then.
    """
    if len(parts) == 1:
        return parts[0].waiter
    return Deferred.fromCoroutine(_all_rows(parts))


@frozen(eq=False)
class _Pieces:
    """Holds a part whose pieces travel in its stead."""

    _joined: Deferred[None]

    def drop(self, _part: Part) -> None:
        """Take the pieces along with their caller."""
        self._joined.cancel()


def in_pieces(part: Part, caps: Caps) -> list[Part]:
    """Let pieces of a *part* that waits travel in its stead, each within *caps*."""
    pieces = cut_up(part, caps)
    for piece in pieces:
        piece.turn, piece.breaks = part.turn, part.breaks
    part.holder = _Pieces(gather(pieces).addBoth(part.fire))
    return pieces
