"""The start and the end that all processes that twistd runs have in common."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Any, ClassVar

from attrs import define, field, frozen
from twisted.application.service import Service
from twisted.internet.defer import Deferred
from twisted.internet.error import ReactorNotRunning
from twisted.internet.task import LoopingCall
from twisted.logger import ILogObserver, Logger
from twisted.python.components import Componentized
from twisted.python.failure import Failure

from abproxy import __version__
from abproxy.batching.ladder import Turn
from abproxy.service.notify import READY, STOPPING, reloading
from abproxy.service.signals import Signals
from abproxy.web.listen import Listener

if TYPE_CHECKING:
    from abproxy.process import ChildProcess

__all__ = ["DEFAULT_PROCESS", "Lifetime", "ProcessContext"]

LOOK_EVERY_S = 10.0
"""How often files with keys are looked at, in seconds."""


@frozen(kw_only=True, eq=False)
class ProcessContext:
    """The process that a service runs in."""

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
    """The permission to try other numbers of slots."""

    signals: Any = None
    """Has the methods of Signals, if the process has no signals of its own."""

    drained: Sequence[str] = ()
    """Addresses of servers to which the operator wants nothing to be sent."""

    others_listen: Callable[[], bool] = lambda: False
    """Returns whether others go on to accept clients when this process ends."""

    listeners: Sequence[Listener] = ()
    """The ports for clients and operators, if they are open already."""


DEFAULT_PROCESS = ProcessContext()


@define(kw_only=True, eq=False)
class Lifetime(Service):
    """
    Base of the services of all processes that twistd runs.

    It starts asynchronously, logs once why it cannot start, and ends on a signal.
    """

    reactor: Any
    process: ProcessContext = DEFAULT_PROCESS
    signals: Signals
    model: "ChildProcess | None"
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
