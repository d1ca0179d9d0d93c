"""A timer that is set or not, and calls one function."""

from collections.abc import Callable

from attrs import define, field
from twisted.internet.interfaces import IDelayedCall, IReactorTime

__all__ = ["Timer"]


@define(eq=False)
class Timer:
    """Calls a function once, some time after it was set; it is never set twice."""

    clock: IReactorTime = field(repr=False)
    call: Callable[[], None] = field(repr=False)
    pending: IDelayedCall | None = field(init=False, default=None)
    """None while it is not set."""

    def set(self, delay_s: float) -> None:
        """Set it, unless it is set already."""
        if self.pending is None:
            self.pending = self.clock.callLater(delay_s, self._is_over)

    def cancel(self) -> None:
        """Cancel it, if it is set."""
        pending, self.pending = self.pending, None
        if pending is not None:
            pending.cancel()

    def _is_over(self) -> None:
        self.pending = None
        self.call()
