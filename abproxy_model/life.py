"""
What ends the process, other than a mistake.

SIGTERM, and for a child process the end of its standard input: both drain, and
the exit code is 0. A child ignores SIGINT and SIGHUP, which a terminal sends to
the whole group: its parent decides.
"""

import os
import signal
from collections.abc import Callable
from typing import Any

from attrs import define, field
from twisted.application.service import Service
from twisted.internet.interfaces import IReadDescriptor
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

__all__ = ("Life",)

_log = Logger()
_STDIN = 0


@implementer(IReadDescriptor)
@define(kw_only=True, eq=False)
class _StandardInput:
    """Reads standard input, keeps nothing, and tells when it is closed."""

    closed: Callable[[], None]

    def fileno(self) -> int:
        return _STDIN

    def doRead(self) -> None:  # noqa: N802
        if not os.read(_STDIN, 4096):
            self.closed()

    def connectionLost(self, reason: Failure) -> None:
        """Some reactors see the end of a pipe without reading it."""
        del reason
        self.closed()

    def logPrefix(self) -> str:  # noqa: N802
        return "stdin"


@define(kw_only=True, eq=False, slots=False)
class Life(Service):
    """Ends the process once, and well."""

    reactor: Any
    with_stdin: bool
    _ending: bool = field(init=False, default=False)

    def startService(self) -> None:
        """Take over from the reactor, which would exit with the signal's number."""
        super().startService()
        self.reactor.callWhenRunning(self._watch)

    def stopService(self) -> None:
        """Know that the end has come, whoever brought it."""
        super().stopService()
        self._ending = True

    def _watch(self) -> None:
        signal.signal(signal.SIGTERM, self._terminated)
        if self.with_stdin:
            for number in (signal.SIGINT, signal.SIGHUP):
                signal.signal(number, signal.SIG_IGN)
            self._input = _StandardInput(closed=self._input_closed)
            self.reactor.addReader(self._input)

    def _terminated(self, *_: object) -> None:
        self.reactor.callFromThread(self._end, "SIGTERM")

    def _input_closed(self) -> None:
        self.reactor.removeReader(self._input)
        self._end("the end of standard input")

    def _end(self, why: str) -> None:
        if not self._ending:
            self._ending = True
            _log.info("draining after {why}", why=why)
            self.reactor.stop()
