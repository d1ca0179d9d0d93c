"""
What every service of twistd's has in common that is a whole process of ours.

It starts in its own time, says once why it cannot, and ends when a signal says
so.  The log and the exit code are twistd's, unless the operator wants them in
another way.
"""

from collections.abc import Callable
from contextlib import suppress
from typing import Any, ClassVar

from attrs import define, field
from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.error import ReactorNotRunning
from twisted.logger import ILogObserver, Logger
from twisted.python.components import Componentized
from twisted.python.failure import Failure

from abproxy.model_child import ModelChild
from abproxy.signals import Signals

__all__ = ["Lifetime"]


@define(kw_only=True, eq=False)
class Lifetime(Service):
    """A process between SIGTERM and the day it was started."""

    reactor: Any
    signals: Signals
    model: ModelChild | None
    upstream_url: str

    end_with: Callable[[int], None] = field(init=False, default=lambda _code: None)
    """Let the process end with an exit code, when it ends."""

    tune: Callable[[], None] = field(init=False, default=lambda: None)
    """Prepare the process for serving; called once the reactor runs."""

    log_observer: ILogObserver | None = field(init=False, default=None)
    """Who writes the log, if twistd is not to do it in its own way."""

    _starting: Deferred[None] | None = field(init=False, default=None)
    _log: ClassVar[Logger]

    def setServiceParent(self, parent: Any) -> None:  # noqa: N802
        """Tell twistd, whose application *parent* is, who writes the log."""
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
        """End; fires when everybody is answered and nothing is left."""
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
