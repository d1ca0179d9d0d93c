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

import signal
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar

from attrs import define, field, frozen
from twisted.internet import defer
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IListeningPort
from twisted.internet.task import LoopingCall, deferLater
from twisted.logger import Logger

from abproxy.service.lifetime import Lifetime
from abproxy.web.closing import close_port
from abproxy.web.listen import Listener, where
from abproxy.web.server import ProxySite

if TYPE_CHECKING:
    from abproxy.web.tls import Certificate

__all__ = ["LAST_S", "DrainTimes", "Listening", "ProxyService"]

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
    """How long the port should stay open, if the signal is SIGTERM."""

    @property
    def open_s(self) -> float:
        """How long it stays open: half is left for the calls that are accepted."""
        return min(self.delay_s, self.whole_s / 2)


@define(kw_only=True, eq=False)
class ProxyService(Lifetime):
    """The running proxy, from its start to the end of its drain."""

    public: Listening
    """The port for clients."""

    private: Listening | None
    """The port for operators, if there is a separate one."""

    start_models: Callable[[], None]
    """Begins to ask upstreams for their limits."""

    flush: Callable[[], None]
    """Sends batches without waiting from now on."""

    stop_models: Callable[[], Awaitable[Any]]
    """Ends that; done when the connections to upstreams are closed."""

    stop_cache: Callable[[], Deferred[Any]]

    reload: Callable[[], None]
    certificate: "Certificate | None"
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
        self.start_models()
        self._port = await self.public.listener.listen(self.site)
        self._log.info(
            "abproxy answers on {address}; inference server: {url}",
            address=where(self._port),
            url=self.upstream_url,
        )
        times = self.drain_times()
        if times.open_s < times.delay_s:
            self._log.warn(
                "DRAIN_DELAY is {delay:g} s, more than half of DRAIN_TIMEOUT: "
                "the port will stay open for {open:g} s",
                delay=times.delay_s,
                open=times.open_s,
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
            self.site.announce_end()
            self.flush()
            refuses = not self.process.others_listen()
            await close_port(self.reactor, self._port, refuses=refuses)
        await self._drain(ends_at)
        await self.stop_models()
        await self.stop_cache()
        if self.model is not None:
            await self.model.stop()
        await self.stop_telemetry()
        self.signals.restore()

    async def _stay_open(self, times: DrainTimes) -> None:
        """Accept calls while load balancers notice that no more should come."""
        delay_s = times.open_s
        if not self._stays_open or not delay_s:
            return
        self.site.announce_end()
        self._log.info("Not ready any more; closing the port in {s:g} s", s=delay_s)
        self._delay = deferLater(self.reactor, delay_s)
        with suppress(defer.CancelledError):
            await self._delay

    async def _drain(self, ends_at: float) -> None:
        self._log.info("Draining {n} calls", n=len(self.site.requests))
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
