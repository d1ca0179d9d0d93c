"""Child processes: their pipes, restarts and end."""

import os
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, ClassVar

from attrs import define, field
from twisted.internet.defer import Deferred, race
from twisted.internet.error import ProcessExitedAlready
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure

__all__ = ["KILL_S", "ChildProcess", "RestartDelays"]

LONG_S = 10.0
"""Restart without a delay after a run of so many seconds."""

FIRST_DELAY_S, LONGEST_DELAY_S = 1.0, 30.0

KILL_S = 15.0
"""How long a process may take to end, in seconds."""


@define(eq=False)
class RestartDelays:
    """The delays between runs, which double while runs are short."""

    _next_s: float = field(init=False, default=FIRST_DELAY_S)

    def after(self, ran_s: float) -> float:
        """Return the delay after a run of so many seconds."""
        if ran_s >= LONG_S:
            self._next_s = FIRST_DELAY_S
            return 0.0
        delay_s = self._next_s
        self._next_s = min(2 * delay_s, LONGEST_DELAY_S)
        return delay_s


@define(eq=False)
class _Pipes(ProcessProtocol):
    """Report each line that a process writes, and how it ended, in words."""

    line_received: Callable[[int, bytes], None]
    ended: Callable[[str], None]
    _rest: dict[int, bytes] = field(init=False, factory=dict)

    def childDataReceived(self, childFD: int, data: bytes) -> None:  # noqa: N803
        *lines, rest = (self._rest.get(childFD, b"") + data).split(b"\n")
        self._rest[childFD] = rest
        for line in lines:
            self.line_received(childFD, line)

    def processEnded(self, reason: Failure) -> None:  # noqa: N802
        end: Any = reason.value
        killed = f"signal {end.signal}" if end.signal else None
        self.ended(killed or f"exit code {end.exitCode}")


@define(kw_only=True, eq=False)
class ChildProcess(ABC):
    """
    A Python process that is started again whenever it ends, until `end`.

    If its first run ends before it is ready, it is not started again: another
    run would end in the same way.
    """

    reactor: Any = field(repr=False)
    kill_after_s: float = KILL_S
    """Seconds that its last run may take to end, before it is killed."""

    started_at: float = field(init=False, default=0.0)
    restarts: int = field(init=False, default=0)
    _is_wanted: bool = field(init=False, default=True)
    _process: Any = field(init=False, default=None, repr=False)
    _restart: IDelayedCall | None = field(init=False, default=None, repr=False)
    _starting: Deferred[str] | None = field(init=False, default=None, repr=False)
    """Fires if the first run ends before it is ready."""

    _stopped: Deferred[None] | None = field(init=False, default=None, repr=False)

    command: ClassVar[tuple[str, ...]]
    """The arguments of Python that name the module to run."""

    async def start(self) -> None:
        """
        Start the process and wait until it is ready.

        Raises:
            Exception: it ended before that; `_not_started` makes the error.
        """
        self._starting = Deferred()
        self._spawn()
        ended_early, how = await race([self._ready(), self._starting])
        self._starting = None
        if ended_early:
            raise self._not_started(how)

    def end(self) -> None:
        """Stop restarting it."""
        self._is_wanted = False
        if self._restart is not None and self._restart.active():
            self._restart.cancel()

    async def stop(self) -> None:
        """Wait until the last run has ended, and kill it if it does not."""
        if self._process is None:
            return
        self._stopped = Deferred()
        kill = self.reactor.callLater(self.kill_after_s, self._signal, "KILL")
        await self._stopped
        if kill.active():
            kill.cancel()

    @abstractmethod
    def _ready(self) -> Deferred[Any]:
        """Return a Deferred that fires when the first run is ready."""

    @abstractmethod
    def _not_started(self, how: str) -> Exception:
        """Return the error for a first run that ended before it was ready."""

    @abstractmethod
    def _arguments(self) -> Sequence[str]:
        """Return the arguments of the command."""

    @abstractmethod
    def _files(self) -> Mapping[int, int | str]:
        """Return what the process inherits, as Twisted's `childFDs`."""

    @abstractmethod
    def _line_received(self, file: int, line: bytes) -> None:
        """Handle a line that the process wrote to *file*."""

    @abstractmethod
    def _restart_delay(self, how: str) -> float:
        """Log that a run has ended, and return how long to wait for the next."""

    def _spawn(self) -> None:
        self.started_at = self.reactor.seconds()
        try:
            self._process = self.reactor.spawnProcess(
                _Pipes(self._line_received, self._ended),
                sys.executable,
                [sys.executable, *self.command, *self._arguments()],
                env=os.environ,
                childFDs=self._files(),
            )
        except OSError as error:
            self._ended(f"an error before it began: {error}")

    def _ended(self, how: str) -> None:
        self._process = None
        if self._stopped is not None:
            self._stopped.callback(None)
        elif not self._is_wanted:
            return
        elif self._starting is not None:
            self._starting.callback(how)
        else:
            self.restarts += 1
            self._restart = self.reactor.callLater(
                self._restart_delay(how), self._spawn
            )

    def _signal(self, name: str) -> None:
        # It may have ended just now, before the reactor has noticed.
        with suppress(ProcessExitedAlready):
            self._process.signalProcess(name)
