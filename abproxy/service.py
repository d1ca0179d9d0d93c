"""
Start, drain, stop, in that order, and what signals mean.

Nothing that was accepted is lost: the ports are closed first, then waiting
batches are sent, then their answers are written, then the connections of
clients are closed, and only then those to the upstream.

SIGTERM and SIGINT ask for an end after all that was accepted is answered; a
second one stops at once.  SIGHUP reads the settings again, unless it comes of
a terminal that closes: that is an end too.
"""

import os
import signal
from collections.abc import Callable
from contextlib import suppress
from threading import current_thread, main_thread
from types import FrameType
from typing import Any, ClassVar

from attrs import define, field, frozen
from twisted.application.service import Service
from twisted.internet import defer
from twisted.internet.defer import Deferred
from twisted.internet.error import ReactorNotRunning
from twisted.internet.interfaces import IListeningPort
from twisted.internet.task import LoopingCall
from twisted.logger import ILogObserver, Logger
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.python.components import Componentized
from twisted.python.failure import Failure

from abproxy.batching.collector import BatchCollector
from abproxy.upstream.client import Upstream
from abproxy.upstream.embedded import ModelChild
from abproxy.web.listen import Listener, close_port
from abproxy.web.server import ProxySite

__all__ = ["LAST_S", "Listening", "ProxyService", "shown", "where"]

STDIN = 0

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

Its client has read the last answer without `Connection: close`, and may be
writing the next call, which is lost if it is a POST: no client sends it again.
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


@define(eq=False)
class Signals:
    """The signal handlers that this process has set."""

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
        Call *asked* or *gone* on SIGHUP, by where it comes from.

        Args:
            asked: called if it is an operator.
            gone: called if the terminal has closed that we were started in.  It
                could not stop us any more, and the port would stay taken.
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


@define(kw_only=True, eq=False)
class Lifetime(Service):
    """
    What every process of ours that twistd runs has in common.

    It starts in its own time, logs once why it cannot, and ends when a signal says
    so.  Log and exit code are twistd's, unless the operator wants them otherwise.
    """

    reactor: Any
    signals: Signals
    model: ModelChild | None
    upstream_url: str

    end_with: Callable[[int], None] = field(init=False, default=lambda _code: None)
    """Set the exit code of the process."""

    tune: Callable[[], None] = field(init=False, default=lambda: None)
    """Prepare the process for serving; called once the reactor runs."""

    log_observer: ILogObserver | None = field(init=False, default=None)
    """What writes the log instead of twistd's own observer."""

    _starting: Deferred[None] | None = field(init=False, default=None)
    _log: ClassVar[Logger]

    def setServiceParent(self, parent: Any) -> None:  # noqa: N802
        """Hand the log observer to twistd, whose application *parent* is."""
        if self.log_observer is not None and isinstance(parent, Componentized):
            parent.setComponent(ILogObserver, self.log_observer)
        super().setServiceParent(parent)

    def startService(self) -> None:
        """Start the model if there is one, then the work."""
        super().startService()
        self._starting = Deferred.fromCoroutine(self._start())
        self._starting.addErrback(self._cannot_start)
        # Once it runs: the reactor has handlers of its own, which would let the
        # process end with the signal's number instead of 0.
        self.reactor.callWhenRunning(self._listen_to_signals)
        self.reactor.callWhenRunning(self.tune)

    def stopService(self) -> "Deferred[None]":
        """Drain and end; fires when all is answered and nothing is left."""
        super().stopService()
        return Deferred.fromCoroutine(self._stop())

    def _listen_to_signals(self) -> None:
        raise NotImplementedError

    async def _start(self) -> None:
        raise NotImplementedError

    async def _stop(self) -> None:
        raise NotImplementedError

    async def _start_model(self) -> None:
        if self.model is not None:
            self._log.info("Waiting for the embedded model {m}", m=self.model.model)
            await self.model.start()

    def _cannot_start(self, failure: Failure) -> None:
        if not self.running:
            return  # a signal came first
        self._log.critical("Cannot start: {reason}", reason=failure.getErrorMessage())
        self.end_with(1)
        # One that does not run yet cannot be stopped, and would then run for ever.
        self.reactor.callWhenRunning(self._end)

    def _end(self) -> None:
        with suppress(ReactorNotRunning):
            self.reactor.stop()


@frozen(kw_only=True, eq=False)
class Listening:
    """A port and the site that answers on it."""

    listener: Listener
    site: ProxySite


@define(kw_only=True, eq=False)
class ProxyService(Lifetime):
    """The proxy from its start to the end of its drain."""

    public: Listening
    """Where clients connect."""

    private: Listening | None
    """Where operators connect, if they have a port of their own."""

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
    """When a signal first asked for the end."""

    _log: ClassVar[Logger] = Logger()

    def __attrs_post_init__(self) -> None:
        """Make the timer of the hourly report."""
        self._reporting = LoopingCall(self._report)

    @property
    def site(self) -> ProxySite:
        """The site of the clients."""
        return self.public.site

    def startService(self) -> None:
        """Start the model if there is one, then listen."""
        super().startService()
        self._reporting.clock = self.reactor
        self._reporting.start(REPORT_EVERY_S, now=False)

    def _listen_to_signals(self) -> None:
        self.signals.on_hangup(self._reload, self._end)
        for number in (signal.SIGTERM, signal.SIGINT):
            self.signals.on(number, self._told_to_end)

    def _told_to_end(self) -> None:
        """End after a drain; at a second signal, at once."""
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
        if self.private is not None:
            private = self.private
            self._private_port = await private.listener.listen(private.site)
            address = where(self._private_port)
            self._log.info("Operations are on {address}/-/", address=address)
        await self._start_model()
        self.upstream.discovery.start()
        self._port = await self.public.listener.listen(self.site)
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
        self.collector.flush()
        ends_at = self.reactor.seconds() + self.drain_timeout_s
        await self._answer_all(self.site, self.drain_timeout_s, idle_s=IDLE_STAY_S)
        if self.private is not None and self._private_port is not None:
            await close_port(self.reactor, self._private_port)
            left_s = max(LAST_S, ends_at - self.reactor.seconds())
            await self._answer_all(self.private.site, left_s, idle_s=0)

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
        if self.private is not None:
            self.private.site.abort()
