"""
Start, drain, stop, in that order.

Nothing that was accepted is lost: the door closes first, then waiting batches
leave, then their answers are written, then the connections are closed, and
only then does the way upstream go.
"""

import os
import signal
from collections.abc import Callable
from typing import Any, ClassVar

from attrs import define, field, frozen
from twisted.internet import defer
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IListeningPort
from twisted.internet.task import LoopingCall
from twisted.logger import Logger
from twisted.protocols.tls import TLSMemoryBIOFactory

from abproxy.batching.collector import BatchCollector
from abproxy.lifetime import Lifetime
from abproxy.upstream.client import Upstream
from abproxy.web.listen import Listener, close_port
from abproxy.web.server import ProxySite

__all__ = ["LAST_S", "Listening", "ProxyService", "shown", "where"]

REPORT_EVERY_S = 3600.0
"""How often the log says whether batching helps, in seconds."""

SAME_WISH_S = 0.1
"""
For how long another signal is the same wish, in seconds.

A supervisor that tells a whole group reaches a process in it twice at once.
"""

LAST_S = 1.0
"""How long operators are answered at least when all clients are, in seconds."""


IDLE_STAY_S = 1.0
"""
How long idle connections of clients stay open after SIGTERM, in seconds.

Who keeps one has read its last answer without `Connection: close`, and may be
writing the next call, which no client sends again if it is a POST.
"""


def where(port: Any) -> str:
    """Write where an open *port* is as one would type it."""
    is_tls = isinstance(getattr(port, "factory", None), TLSMemoryBIOFactory)
    return shown(port.getHost(), "https" if is_tls else "http")


def shown(address: Any, scheme: str = "http") -> str:
    """Write an *address* as one would type it."""
    host = getattr(address, "host", None)
    if host is None:
        return os.fsdecode(getattr(address, "name", None) or str(address))
    host = f"[{host}]" if ":" in host else host
    return f"{scheme}://{host}:{address.port}"


@frozen(kw_only=True, eq=False)
class Listening:
    """A way in."""

    listener: Listener
    site: ProxySite


@define(kw_only=True, eq=False)
class ProxyService(Lifetime):
    """The proxy between SIGTERM and the day it was started."""

    gate: Listening
    """Where clients come in."""

    private_gate: Listening | None
    """Where only operators do, if that is apart."""

    collector: BatchCollector
    upstream: Upstream
    reload: Callable[[], None]
    reopen_logs: Callable[[], None]
    """Write into new files, if the old ones were moved away."""

    stop_telemetry: Callable[[], Deferred[None]]
    """Send the last spans; fires when that is done, or takes too long."""

    report: Callable[[], str]
    """Return whether batching helps; empty if there were no calls."""

    drain_timeout_s: float

    _port: IListeningPort | None = field(init=False, default=None)
    _private_port: IListeningPort | None = field(init=False, default=None)
    _reporting: LoopingCall = field(init=False)
    _told_at: float | None = field(init=False, default=None)
    """When somebody asked for the end."""

    _log: ClassVar[Logger] = Logger()

    def __attrs_post_init__(self) -> None:
        """Be ready to report."""
        self._reporting = LoopingCall(self._report)

    @property
    def site(self) -> ProxySite:
        """The door of the clients."""
        return self.gate.site

    def startService(self) -> None:
        """Start the model if there is one, then open the door."""
        super().startService()
        self._reporting.clock = self.reactor
        self._reporting.start(REPORT_EVERY_S, now=False)

    def _listen_to_signals(self) -> None:
        self.signals.on_hangup(self._reload, self._end)
        for number in (signal.SIGTERM, signal.SIGINT):
            self.signals.on(number, self._told_to_end)

    def _told_to_end(self) -> None:
        """End after a drain; told once more, end at once."""
        now = self.reactor.seconds()
        if self._told_at is None:
            self._told_at = now
            self._end()
        elif now - self._told_at >= SAME_WISH_S:
            self._abort()

    def _reload(self) -> None:
        self.reload()
        self.reopen_logs()

    def _report(self) -> None:
        """Log whether batching helps, if there were calls."""
        try:
            report = self.report()
        except Exception:  # noqa: BLE001  it would be the last report
            self._log.failure("Something could not be noted")
            return
        if report:
            self._log.info("In the last hour: {verdict}", verdict=report)

    async def _start(self) -> None:
        if self.private_gate is not None:
            gate = self.private_gate
            self._private_port = await gate.listener.listen(gate.site)
            address = where(self._private_port)
            self._log.info("Operations are on {address}/-/", address=address)
        await self._start_model()
        self.upstream.discovery.start()
        self._port = await self.gate.listener.listen(self.site)
        self._log.info(
            "abproxy answers on {address}; inference server: {url}",
            address=where(self._port),
            url=self.upstream_url,
        )

    async def _stop(self) -> None:
        if self._reporting.running:
            self._reporting.stop()
        if self._starting is not None:
            self._starting.cancel()
        if self._port is not None:
            await close_port(self.reactor, self._port)
        await self._drain()
        self.upstream.discovery.stop()
        self.collector.stop()
        await self.upstream.close_idle()
        if self.model is not None:
            await self.model.stop()
        await self.stop_telemetry()
        self.signals.restore()

    async def _drain(self) -> None:
        self._log.info("Draining {n} calls", n=len(self.site.requests))
        self.collector.hurry()
        ends_at = self.reactor.seconds() + self.drain_timeout_s
        await self._answer_all(self.site, self.drain_timeout_s, idle_s=IDLE_STAY_S)
        if self.private_gate is not None and self._private_port is not None:
            await close_port(self.reactor, self._private_port)
            left_s = max(LAST_S, ends_at - self.reactor.seconds())
            await self._answer_all(self.private_gate.site, left_s, idle_s=0)

    async def _answer_all(
        self, site: ProxySite, timeout_s: float, *, idle_s: float
    ) -> None:
        drained = site.drain(min(idle_s, timeout_s))
        try:
            await drained.addTimeout(timeout_s, self.reactor)
        except defer.TimeoutError:
            if left := len(site.requests):
                self._log.warn("{left} calls were cut off after the drain", left=left)
            site.abort()

    def _abort(self) -> None:
        self.site.abort()
        if self.private_gate is not None:
            self.private_gate.site.abort()
