"""
Start, drain, stop, in that order.

The port is open and the model is loaded before this begins. No accepted
request is lost: what has been sent on an open connection is still answered,
within the drain timeout.
"""

from typing import Any

from attrs import define
from twisted.application.service import Service
from twisted.internet import defer
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.interfaces import IListeningPort
from twisted.logger import Logger
from twisted.python.threadpool import ThreadPool

from abproxy_model.site import ModelSite

__all__ = ("ModelService",)

_log = Logger()
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
        """Let the threads begin."""
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
