"""
Start, drain, stop, in that order.

Nothing that was accepted is lost: the door closes first, then waiting batches
leave, then their answers are written, then the connections are closed, and
only then does the way upstream go.
"""

import signal
from collections.abc import Callable
from typing import Any, ClassVar

from attrs import define, field
from twisted.application.service import Service
from twisted.internet import defer
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IListeningPort
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.client import HTTPConnectionPool

from abproxy.batching.departures import Departures
from abproxy.embedded.child import ModelChild
from abproxy.signals import Signals
from abproxy.upstream.discovery import Discovery
from abproxy.web.listening import Listener, close_port
from abproxy.web.site import DoorSite

__all__ = ["ProxyService"]


def _shown(address: Any) -> str:
    """Write where we listen as one would type it."""
    host = getattr(address, "host", None)
    if host is None:
        return str(getattr(address, "name", address))
    host = f"[{host}]" if ":" in host else host
    return f"http://{host}:{address.port}"


@define(kw_only=True, eq=False)
class ProxyService(Service):
    """The proxy between SIGTERM and the day it was started."""

    reactor: Any
    listener: Listener
    site: DoorSite
    departures: Departures
    discovery: Discovery
    pool: HTTPConnectionPool
    signals: Signals
    reload: Callable[[], None]
    model: ModelChild | None
    upstream_url: str
    drain_timeout_s: float

    _port: IListeningPort | None = field(init=False, default=None)
    _starting: Deferred[None] | None = field(init=False, default=None)
    _is_ending: bool = field(init=False, default=False)
    _log: ClassVar[Logger] = Logger()

    def startService(self) -> None:
        """Start the model if there is one, then open the door."""
        super().startService()
        self._starting = Deferred.fromCoroutine(self._start())
        self._starting.addErrback(self._cannot_start)
        # Once it runs: the reactor has handlers of its own, which would let the
        # process end with the signal's number instead of 0.
        self.reactor.callWhenRunning(self._listen_to_signals)

    def stopService(self) -> "Deferred[None]":
        """Drain; fires when every accepted call is answered."""
        super().stopService()
        return Deferred.fromCoroutine(self._stop())

    def _listen_to_signals(self) -> None:
        self.signals.on(signal.SIGHUP, self.reload)
        for number in (signal.SIGTERM, signal.SIGINT):
            self.signals.on(number, self._told_to_end)

    def _told_to_end(self) -> None:
        """End after a drain, or at once if that is under way already."""
        if self._is_ending:
            self.site.abort()
        else:
            self._is_ending = True
            self.reactor.stop()

    async def _start(self) -> None:
        if self.model is not None:
            self._log.info("Waiting for the embedded model {m}", m=self.model.model)
            await self.model.start()
        self.discovery.start()
        self._port = await self.listener.listen(self.site)
        self._log.info(
            "abproxy answers on {address}; inference server: {url}",
            address=_shown(self._port.getHost()),
            url=self.upstream_url,
        )

    def _cannot_start(self, failure: Failure) -> None:
        if failure.check(defer.CancelledError):
            return
        self._log.critical("Cannot start: {reason}", reason=failure.getErrorMessage())
        if self.running:
            self.reactor.stop()

    async def _stop(self) -> None:
        self._is_ending = True
        if self._starting is not None:
            self._starting.cancel()
        if self._port is not None:
            await close_port(self.reactor, self._port)
        await self._drain()
        self.discovery.stop()
        self.departures.stop()
        await self._close_pool()
        if self.model is not None:
            await self.model.stop()
        self.signals.restore()

    async def _close_pool(self) -> None:
        closed: Deferred[None] | None = self.pool.closeCachedConnections()
        if closed is not None:
            await closed

    async def _drain(self) -> None:
        self._log.info("Draining {n} calls", n=len(self.site.requests))
        self.departures.hurry()
        drained = self.site.drain()
        try:
            drained.addTimeout(self.drain_timeout_s, self.reactor)
            await drained
        except defer.TimeoutError:
            left = len(self.site.requests)
            self._log.warn("{left} calls were cut off after the drain", left=left)
            self.site.abort()
