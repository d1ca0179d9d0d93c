"""The signals that a process listens to."""

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
    """The signal handlers that this process has set."""

    _reactor: Any = field(repr=False)
    _former: dict[int, Any] = field(init=False, factory=dict, repr=False)

    def on(self, number: int, callback: Callable[[], None]) -> None:
        """
        Call *callback* in the reactor when the signal comes.

        Only the main thread can set signal handlers; in others, as in some tests,
        this does nothing.
        """
        if current_thread() is not main_thread():
            return

        def handler(_number: int, _frame: FrameType | None) -> None:
            self._reactor.callFromThread(callback)

        self._former.setdefault(number, signal.signal(number, handler))

    def on_hangup(self, asked: Callable[[], None], gone: Callable[[], None]) -> None:
        """
        Call *asked* or *gone* on SIGHUP, depending on its cause.

        Args:
            asked: called if an operator or a program sent it.
            gone: called if the terminal that we were started in has closed.
                Ctrl-C could not stop us any more, and the port would stay in use.
        """
        had_terminal = os.isatty(STDIN)

        def received() -> None:
            is_gone = had_terminal and not os.isatty(STDIN)
            (gone if is_gone else asked)()

        self.on(signal.SIGHUP, received)

    def restore(self) -> None:
        """Restore the former handlers."""
        while self._former:
            number, former = self._former.popitem()
            signal.signal(number, former)
