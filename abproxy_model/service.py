"""
Start, drain, stop, and what makes the process stop.

The port is open and the model is loaded before this begins. No accepted
request is lost: what has been sent on an open connection is still answered,
within the drain timeout.
"""

import os
import signal
from collections.abc import Callable
from typing import Any

from attrs import define, field
from twisted.application.service import Service
from twisted.internet import defer
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IListeningPort, IReadDescriptor
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.python.threadpool import ThreadPool
from zope.interface import implementer

from abproxy_model.server import ModelSite

__all__ = ("ModelService", "Shutdown")

_log = Logger()
_STDIN = 0
_LINGER_S = 0.25
"""A connection idle for so long while draining has no request on its way."""


@define(kw_only=True, eq=False, slots=False)
class ModelService(Service):
    """The running server."""

    reactor: Any
    port: IListeningPort
    site: ModelSite
    threads: ThreadPool
    drain_timeout_s: float
    ready: str
    """What the log says of the model when the server begins."""

    def startService(self) -> None:
        """Start the threads."""
        super().startService()
        self.threads.start()
        _log.info(
            "serving {what} on {where}", what=self.ready, where=self.port.getHost()
        )

    def stopService(self) -> Deferred[None]:
        """Answer what was accepted, then end."""
        super().stopService()
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        await maybeDeferred(self.port.stopListening)
        try:
            await self._drain()
        finally:
            self.threads.stop()

    async def _drain(self) -> None:
        self.site.drain()
        try:
            await self._emptied(min(_LINGER_S, self.drain_timeout_s))
        except defer.TimeoutError:
            self.site.close_idle()
        try:
            await self._emptied(self.drain_timeout_s)
        except defer.TimeoutError:
            _log.warn(
                "not everything was answered within {timeout} s",
                timeout=self.drain_timeout_s,
            )
            self.site.abort()

    def _emptied(self, timeout_s: float) -> Deferred[None]:
        return self.site.when_empty().addTimeout(timeout_s, self.reactor)


@implementer(IReadDescriptor)
@define(kw_only=True, eq=False)
class _StandardInput:
    """Reads standard input, keeps nothing, and calls *closed* at its end."""

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
class Shutdown(Service):
    """
    Stops the reactor on SIGTERM: everything drains, and the exit code is 0.

    A child process also stops at the end of its standard input. It ignores
    SIGINT and SIGHUP, which a terminal sends to the whole group: its parent
    decides.
    """

    reactor: Any
    with_stdin: bool
    _is_ending: bool = field(init=False, default=False)

    def startService(self) -> None:
        """Replace the reactor's handlers, which exit with the signal's number."""
        super().startService()
        self.reactor.callWhenRunning(self._watch)

    def stopService(self) -> None:
        """Note that the process is ending already."""
        super().stopService()
        self._is_ending = True

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
        if not self._is_ending:
            self._is_ending = True
            _log.info("draining after {why}", why=why)
            self.reactor.stop()
