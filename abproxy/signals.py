"""
What signals mean.

SIGTERM and SIGINT ask for an end after all that was accepted is answered; a
second one stops at once.  SIGHUP reads the settings again.
"""

import signal
from collections.abc import Callable
from threading import current_thread, main_thread
from types import FrameType
from typing import Any

from attrs import define, field

__all__ = ["Signals"]


@define(eq=False)
class Signals:
    """The handlers that we have put in the place of others."""

    _reactor: Any = field(repr=False)
    _former: dict[int, Any] = field(init=False, factory=dict, repr=False)

    def on(self, number: int, callback: Callable[[], None]) -> None:
        """
        Call *callback* in the reactor when the signal comes.

        Only the main thread may say what signals mean; elsewhere, as in some
        tests, they keep their meaning.
        """
        if current_thread() is not main_thread():
            return

        def handler(_number: int, _frame: FrameType | None) -> None:
            self._reactor.callFromThread(callback)

        self._former.setdefault(number, signal.signal(number, handler))

    def restore(self) -> None:
        """Give every signal its former meaning."""
        while self._former:
            number, former = self._former.popitem()
            signal.signal(number, former)
