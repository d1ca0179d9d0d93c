"""
The one place where work is done, and the line in front of it.

First come, first served, one at a time. Work whose waiter has gone is dropped
when its turn comes, before any of it is done.
"""

from collections import deque
from collections.abc import Callable
from typing import Any

from attrs import define, field, frozen
from twisted.internet.defer import Deferred

__all__ = ("Line",)


@frozen(kw_only=True)
class _Place:
    work: Callable[[], Any]
    size: int
    waiter: Deferred[Any]


@define(kw_only=True, eq=False)
class Line:
    """A line of work for one thread."""

    _run: Callable[[Callable[[], Any]], Deferred[Any]]
    """Does the work somewhere else, typically in a thread."""

    _waiting: deque[_Place] = field(init=False, factory=deque)
    _busy: bool = field(init=False, default=False)

    @property
    def size(self) -> int:
        """How much is waiting, in the units of `submit`."""
        return sum(place.size for place in self._waiting if not place.waiter.called)

    def submit(self, work: Callable[[], Any], *, size: int = 1) -> Deferred[Any]:
        """
        Do *work* when its turn comes; the Deferred fires with its result.

        Cancel the Deferred to leave the line. Work that has begun is finished,
        and its result is thrown away.
        """
        waiter: Deferred[Any] = Deferred()
        self._waiting.append(_Place(work=work, size=size, waiter=waiter))
        self._advance()
        return waiter

    def _advance(self) -> None:
        while self._waiting and not self._busy:
            place = self._waiting.popleft()
            if not place.waiter.called:
                self._begin(place)

    def _begin(self, place: _Place) -> None:
        self._busy = True
        self._run(place.work).addBoth(self._finish, place.waiter)

    def _finish(self, result: Any, waiter: Deferred[Any]) -> None:
        # The next piece of work starts before this one is answered, so that the
        # thread has something to do meanwhile.
        self._busy = False
        self._advance()
        waiter.callback(result)
