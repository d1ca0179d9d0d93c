"""
The service that twistd runs: start, drain, stop, and the signals for it.

No accepted call is lost: the ports are closed first, then waiting batches are
sent, then their answers are written, then the connections of clients are
closed, and only then those to the upstream.

SIGTERM and SIGINT stop the process after all accepted calls are answered; a
second one stops it at once.  After SIGTERM the port stays open for a moment, in
which load balancers see that this proxy is not ready any more.  SIGHUP reads the
settings again, unless it is sent because the terminal has closed: then it stops
the process, too.
"""

import os
import signal
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from threading import current_thread, main_thread
from types import FrameType
from typing import Any, ClassVar

from attrs import define, field, frozen
from twisted.application.service import Service
from twisted.internet import defer
from twisted.internet.defer import Deferred
from twisted.internet.error import ReactorNotRunning
from twisted.internet.interfaces import IListeningPort
from twisted.internet.task import LoopingCall, deferLater
from twisted.logger import ILogObserver, Logger
from twisted.python.components import Componentized
from twisted.python.failure import Failure

from abproxy import __version__
from abproxy.batching.collector import BatchCollector
from abproxy.batching.ladder import Turn
from abproxy.notify import READY, STOPPING, reloading
from abproxy.process import ChildProcess
from abproxy.web.listen import Listener, close_port, where
from abproxy.web.server import ProxySite
from abproxy.web.tls import Certificate

__all__ = [
    "DEFAULT_PROCESS",
    "LAST_S",
    "Lifetime",
    "Listening",
    "ProcessContext",
    "ProxyService",
    "Signals",
]

STDIN = 0

LOOK_EVERY_S = 10.0
"""How often files with keys are looked at, in seconds."""

REPORT_EVERY_S = 3600.0
"""How often the log says whether batching helps, in seconds."""

SAME_SIGNAL_S = 0.1
"""
Within how many seconds a second signal counts as the same one.

A supervisor that signals a whole process group reaches each process in it twice.
"""

LAST_S = 1.0
"""How long operators are answered at least once all clients are, in seconds."""

IDLE_STAY_S = 1.0
"""
How long idle connections of clients stay open after SIGTERM, in seconds.

A client that has read its last answer without `Connection: close` may be
writing the next call, which would be lost: no client repeats a POST by itself.
"""


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

        def heard() -> None:
            is_gone = had_terminal and not os.isatty(STDIN)
            (gone if is_gone else asked)()

        self.on(signal.SIGHUP, heard)

    def restore(self) -> None:
        """Restore the former handlers."""
        while self._former:
            number, former = self._former.popitem()
            signal.signal(number, former)


@frozen(kw_only=True, eq=False)
class ProcessContext:
    """What a service has of the process that it runs in."""

    end_with: Callable[[int], None] = lambda _code: None
    """Sets the exit code."""

    notify: Callable[[str], None] = lambda _message: None
    """Sends a message to the service manager."""

    tune: Callable[[], None] = lambda: None
    """Prepares the process for serving; called once the reactor runs."""

    log_observer: ILogObserver | None = None
    """The log observer to use instead of twistd's own."""

    owner: tuple[int, int] = (-1, -1)
    """User and group that it changes to; -1 for none."""

    set_log_level: Callable[[str], None] = lambda _level: None
    """Changes the least important level that it writes."""

    turn: Turn = field(factory=Turn)
    """Says when other numbers of slots may be tried."""

    signals: Any = None
    """Has the methods of Signals, if the process has no signals of its own."""

    listeners: Sequence[Listener] = ()
    """The ports for clients and operators, if they are open already."""


DEFAULT_PROCESS = ProcessContext()


@define(kw_only=True, eq=False)
class Lifetime(Service):
    """
    What all of our processes that twistd runs have in common.

    It starts asynchronously, logs once why it cannot start, and ends on a signal.
    """

    reactor: Any
    process: ProcessContext = DEFAULT_PROCESS
    signals: Signals
    model: ChildProcess | None
    """The embedded model, if it is the upstream."""

    upstream_url: str
    look_at_keys: Callable[[], None] = lambda: None
    """Looks whether the files with keys have changed."""

    _looking: LoopingCall | None = field(init=False, default=None)
    _starting: Deferred[None] | None = field(init=False, default=None)
    _log: ClassVar[Logger]

    def setServiceParent(self, parent: Any) -> None:  # noqa: N802
        """Set the log observer of twistd, whose application is *parent*."""
        observer = self.process.log_observer
        if observer is not None and isinstance(parent, Componentized):
            parent.setComponent(ILogObserver, observer)
        super().setServiceParent(parent)

    def startService(self) -> None:
        """Start the model if there is one, then listen."""
        super().startService()
        # Once it runs: the reactor sets handlers of its own, with which the process
        # would end with the signal's number instead of 0.
        self.reactor.callWhenRunning(self._listen_to_signals)
        self.reactor.callWhenRunning(self.process.tune)
        self._log.info("abproxy {version}", version=__version__)
        self._starting = Deferred.fromCoroutine(self._start())
        self._starting.addCallbacks(self._started, self._cannot_start)

    def stopService(self) -> "Deferred[None]":
        """Drain and end; fires when all is answered and closed."""
        super().stopService()
        if self._looking is not None and self._looking.running:
            self._looking.stop()
        self.process.notify(STOPPING)
        return Deferred.fromCoroutine(self._stop())

    def _listen_to_signals(self) -> None:
        raise NotImplementedError

    def _reload(self) -> None:
        raise NotImplementedError

    async def _start(self) -> None:
        raise NotImplementedError

    async def _stop(self) -> None:
        raise NotImplementedError

    def _started(self, _: None) -> None:
        self._looking = LoopingCall(self.look_at_keys)
        self._looking.clock = self.reactor
        self._looking.start(LOOK_EVERY_S, now=False)
        # Once signals are listened to: the manager may send one at once.
        self.reactor.callWhenRunning(lambda: self.process.notify(READY))

    def _reload_and_notify(self) -> None:
        """Reload, and let the service manager wait for it."""
        self.process.notify(reloading())
        try:
            self._reload()
        finally:
            if self._starting is not None and self._starting.called:
                self.process.notify(READY)

    def _cannot_start(self, failure: Failure) -> None:
        if not self.running:
            return  # a signal came first
        self._log.critical("Cannot start: {reason}", reason=failure.getErrorMessage())
        self.process.end_with(1)
        # A reactor that does not run yet cannot be stopped, and would run forever.
        self.reactor.callWhenRunning(self._end)

    def _end(self) -> None:
        with suppress(ReactorNotRunning):
            self.reactor.stop()


@frozen(kw_only=True, eq=False)
class Listening:
    """A port and the site that answers on it."""

    listener: Listener
    site: ProxySite


@frozen(kw_only=True)
class DrainTimes:
    """How long the end may take, in seconds."""

    whole_s: float
    """From the signal to the last answer."""

    delay_s: float
    """How long of that the port stays open, if the signal is SIGTERM."""


@define(kw_only=True, eq=False)
class ProxyService(Lifetime):
    """The running proxy, from its start to the end of its drain."""

    public: Listening
    """The port for clients."""

    private: Listening | None
    """The port for operators, if there is a separate one."""

    collector: BatchCollector
    start_upstream: Callable[[], None]
    """Begins to ask the upstream for its limits."""

    stop_upstream: Callable[[], Deferred[Any]]
    stop_cache: Callable[[], Deferred[Any]]
    """Ends that; fires when the connections to the upstream are closed."""

    reload: Callable[[], None]
    certificate: Certificate | None
    """That of the port for clients, if it has TLS."""

    reopen_logs: Callable[[], None]
    """Reopens log files, in case the old ones were moved away."""

    stop_telemetry: Callable[[], Deferred[None]]
    """Sends the last spans; fires when that is done, or takes too long."""

    report: Callable[[], str]
    """Returns the diagnosis for the log; empty if there were no calls."""

    drain_times: Callable[[], DrainTimes]
    """Return how long the end may take."""

    _port: IListeningPort | None = field(init=False, default=None)
    _private_port: IListeningPort | None = field(init=False, default=None)
    _reporting: LoopingCall = field(init=False)
    _signalled_at: float | None = field(init=False, default=None)
    _stays_open: bool = field(init=False, default=False)
    """When the first signal to stop came, and whether it was SIGTERM."""

    _delay: Deferred[None] | None = field(init=False, default=None)
    """Fires when the port is to be closed."""

    _log: ClassVar[Logger] = Logger()

    def __attrs_post_init__(self) -> None:
        """Create the timer of the hourly report."""
        self._reporting = LoopingCall(self._report)

    @property
    def site(self) -> ProxySite:
        """The site for clients."""
        return self.public.site

    def startService(self) -> None:
        """Start the model if there is one, then listen."""
        super().startService()
        self._reporting.clock = self.reactor
        self._reporting.start(REPORT_EVERY_S, now=False)

    def _listen_to_signals(self) -> None:
        self.signals.on_hangup(self._reload_and_notify, self._end)
        for number in (signal.SIGTERM, signal.SIGINT):
            self.signals.on(number, partial(self._stop_on_signal, number))

    def _stop_on_signal(self, number: int) -> None:
        """Stop after a drain; on a second signal, at once."""
        now = self.reactor.seconds()
        if self._signalled_at is None:
            self._signalled_at = now
            # Nothing routes by the readiness of a proxy that a terminal stops.
            self._stays_open = number == signal.SIGTERM
            self._end()
        elif now - self._signalled_at >= SAME_SIGNAL_S:
            self._abort()

    def _reload(self) -> None:
        self.reload()
        self.reopen_logs()
        if self.certificate is not None:
            self.certificate.look()

    def _report(self) -> None:
        """Log the diagnosis, if there were calls."""
        try:
            report = self.report()
        except Exception:  # noqa: BLE001  the timer would stop
            self._log.failure("The hourly report failed")
            return
        if report:
            self._log.info("In the last hour: {verdict}", verdict=report)

    async def _start(self) -> None:
        if self.private is not None:
            private = self.private
            self._private_port = await private.listener.listen(private.site)
            address = where(self._private_port)
            self._log.info("Operations are on {address}/-/", address=address)
        if self.model is not None:
            await self.model.start()
        self.start_upstream()
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
        times = self.drain_times()
        ends_at = self.reactor.seconds() + times.whole_s
        if self._port is not None:
            await self._stay_open(times)
            await close_port(self.reactor, self._port)
        await self._drain(ends_at)
        self.collector.stop()
        await self.stop_upstream()
        await self.stop_cache()
        if self.model is not None:
            await self.model.stop()
        await self.stop_telemetry()
        self.signals.restore()

    async def _stay_open(self, times: DrainTimes) -> None:
        """Accept calls while load balancers notice that no more should come."""
        # Of the whole time something has to be left for the calls that are accepted.
        delay_s = min(times.delay_s, times.whole_s / 2)
        if not self._stays_open or not delay_s:
            return
        self.site.announce_end()
        self._log.info("Not ready any more; closing the port in {s:g} s", s=delay_s)
        self._delay = deferLater(self.reactor, delay_s)
        with suppress(defer.CancelledError):
            await self._delay

    async def _drain(self, ends_at: float) -> None:
        self._log.info("Draining {n} calls", n=len(self.site.requests))
        self.collector.flush()
        left_s = max(0.0, ends_at - self.reactor.seconds())
        await self._answer_all(self.site, left_s, idle_s=IDLE_STAY_S)
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
        if self._delay is not None:
            self._delay.cancel()
        self.site.abort()
        if self.private is not None:
            self.private.site.abort()
