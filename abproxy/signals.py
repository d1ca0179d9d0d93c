"""
What signals mean.

SIGTERM and SIGINT ask for an end after all that was accepted is answered; a
second one stops at once.  SIGHUP reads the settings again, unless it comes of
a terminal that closes: that is an end too.
"""

import os
import signal
from collections.abc import Callable
from threading import current_thread, main_thread
from types import FrameType
from typing import Any

from attrs import define, field

__all__ = ["Signals"]

STDIN = 0


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

    def on_hangup(self, asked: Callable[[], None], gone: Callable[[], None]) -> None:
        """
        Tell apart who sends SIGHUP.

        Args:
            asked: called if it is an operator.
            gone: called if it is the terminal that we were started in.  Nobody
                could stop us there any more, and the port would stay taken.
        """
        had_terminal = os.isatty(STDIN)

        def heard() -> None:
            is_gone = had_terminal and not os.isatty(STDIN)
            (gone if is_gone else asked)()

        self.on(signal.SIGHUP, heard)

    def restore(self) -> None:
        """Give every signal its former meaning."""
        while self._former:
            number, former = self._former.popitem()
            signal.signal(number, former)
