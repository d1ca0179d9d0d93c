"""What fires with the results of a call or of a part, for its caller and for others."""

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure

from abproxy.dialects.call import Call, PartResult

__all__ = ["Outcome", "Waiter"]

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
