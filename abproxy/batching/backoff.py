"""
When the upstream takes no work: wait, try one batch, wait longer.

One attempt at a time, so that a refusal is never multiplied; the first pause
is short, each further one twice as long up to a bound.  What the upstream
asks for with `Retry-After` counts if it is longer.  An attempt that takes long
is no refusal: while it is not answered, one more may go each second.
"""

from collections.abc import Callable

from attrs import define, field
from twisted.internet.interfaces import IDelayedCall, IReactorTime

__all__ = ["Backoff"]

FIRST_PAUSE_S = 0.05
LONGEST_PAUSE_S = 1.0

LONG_S = 1.0
"""After so many seconds without an answer an attempt takes long."""


@define(kw_only=True, eq=False)
class Backoff:
    """The state of an upstream that refuses, or cannot be reached."""

    clock: IReactorTime = field(repr=False)

    resume: Callable[[], None] = field(repr=False)
    """Called when the next attempt may be made."""

    began_at: float | None = field(default=None, init=False)
    """Since when nothing has got through; None if all is well."""

    _pause_s: float = field(default=0.0, init=False)
    _tried_at: float = field(default=0.0, init=False)
    _timer: IDelayedCall | None = field(default=None, init=False, repr=False)

    @property
    def pauses(self) -> bool:
        """Whether nothing may be sent right now."""
        return self._timer is not None

    @property
    def takes_long(self) -> bool:
        """Whether the latest attempt should have been answered by now."""
        return self.clock.seconds() - self._tried_at >= LONG_S

    def tried(self) -> None:
        """Note an attempt."""
        self._tried_at = self.clock.seconds()

    def strike(self, retry_after_s: float = 0.0) -> None:
        """
        Note one more failure, and pause.

        Failures of one wave, which were in flight together, count as one.
        """
        if self._timer is not None:
            return
        if self.began_at is None:
            self.began_at = self.clock.seconds()
        longer = min(self._pause_s * 2, LONGEST_PAUSE_S) or FIRST_PAUSE_S
        self._pause_s = longer
        pause_s = max(longer, retry_after_s)
        self._timer = self.clock.callLater(pause_s, self._resume)

    def is_over(self) -> None:
        """Something got through."""
        self.began_at = None
        self._pause_s = 0.0
        self.stop()

    def stop(self) -> None:
        """Leave no timer behind."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def has_lasted(self, arrived_at: float, patience_s: float) -> bool:
        """Whether it has tried the patience of who came at *arrived_at*."""
        since = max(arrived_at, self.began_at or arrived_at)
        return self.clock.seconds() - since >= patience_s

    def _resume(self) -> None:
        self._timer = None
        self.resume()
