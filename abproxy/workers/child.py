"""
A worker as its foreman sees it: start, listen, stop, and start again.

The first life must begin well, as another would begin no better.  After that a
worker that ends is replaced, at once if it had lived for a while, and after
longer and longer pauses if not.
"""

import os
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar, Protocol

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.error import ProcessExitedAlready
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger

from abproxy.pipes import Pipes, never_began
from abproxy.settings import Settings
from abproxy.workers.orders import (
    END,
    IN,
    OUT,
    PUBLIC,
    READY,
    STDERR,
    STDOUT,
    write_settings,
)

__all__ = ["Pauses", "WorkerChild", "WorkerFailed"]

LONG_S = 10.0
"""How long a life must be for the next to follow at once, in seconds."""

FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 30.0

KILL_S = 15.0
"""How much longer than it may a worker can take to end, in seconds."""

_log = Logger()


class WorkerFailed(Exception):
    """A worker did not start; the message is for the operator."""


@define(eq=False)
class Pauses:
    """How long to wait for the next life."""

    _next_s: float = field(init=False, default=FIRST_PAUSE_S)

    def after(self, lived_s: float) -> float:
        """Say how long to wait after a life of so many seconds."""
        if lived_s >= LONG_S:
            self._next_s = FIRST_PAUSE_S
            return 0.0
        pause_s = self._next_s
        self._next_s = min(2 * pause_s, LONGEST_PAUSE_S)
        return pause_s


class Hears(Protocol):
    """Whoever takes in what a worker says."""

    def logged(self, name: str, line: bytes) -> None:
        """A line for the log, as JSON."""

    def wrote(self, name: str, line: bytes) -> None:
        """A line on standard error."""


@define(kw_only=True, eq=False)
class WorkerChild:
    """One worker, running as long as it is wanted."""

    reactor: Any = field(repr=False)
    name: str
    folder: Path
    """Where the private sockets are."""

    port: int
    """The file that is the clients' port."""

    settings: Settings = field(repr=False)
    hears: Hears = field(repr=False)
    gone: Callable[[str], None] = field(default=lambda _name: None, repr=False)
    """Called when a life is over."""

    restarts: int = field(init=False, default=0)
    started_at: float = field(init=False, default=0.0)
    _is_wanted: bool = field(init=False, default=True)
    _process: Any = field(init=False, default=None, repr=False)
    _pauses: Pauses = field(init=False, factory=Pauses, repr=False)
    _restart: IDelayedCall | None = field(init=False, default=None, repr=False)
    _kill: IDelayedCall | None = field(init=False, default=None, repr=False)
    _starting: Deferred[None] | None = field(init=False, default=None, repr=False)
    _stopped: Deferred[None] | None = field(init=False, default=None, repr=False)
    _last_words: list[str] = field(init=False, factory=list, repr=False)

    command: ClassVar[tuple[str, ...]] = ("-m", "abproxy.workers")

    def start(self) -> Deferred[None]:
        """Start the worker; fires when it lets clients in, or fails."""
        self._starting = Deferred()
        self._spawn()
        return self._starting

    def send(self, settings: Settings) -> None:
        """Let the worker go by other *settings*, in this life and the next."""
        self.settings = settings
        self._write(write_settings(settings))

    def end(self) -> None:
        """Tell the worker to end, as a signal would; no other life follows."""
        self._is_wanted = False
        if self._restart is not None and self._restart.active():
            self._restart.cancel()
        self._write(END)

    def stop(self, patience_s: float) -> Deferred[None]:
        """Fire when the last life is over, which it is by force if need be."""
        stopped: Deferred[None] = Deferred()
        self._stopped = stopped
        if self._process is None:
            stopped.callback(None)
        else:
            self._kill = self.reactor.callLater(patience_s + KILL_S, self._kill_it)
        return stopped

    def _kill_it(self) -> None:
        """End it at once."""
        self._kill = None
        with suppress(ProcessExitedAlready):
            self._process.signalProcess("KILL")

    def _spawn(self) -> None:
        self.started_at = self.reactor.seconds()
        files = {IN: "w", STDOUT: STDOUT, STDERR: "r", OUT: "r", PUBLIC: self.port}
        try:
            self._process = self.reactor.spawnProcess(
                Pipes(self._said, self._ended),
                sys.executable,
                [sys.executable, *self.command, str(self.folder / self.name)],
                env=os.environ,
                childFDs=files,
            )
        except OSError as error:
            self._ended(never_began(error))
        else:
            self._write(write_settings(self.settings))

    def _write(self, line: bytes) -> None:
        # It may have ended just before we hear of it, and its pipe with it.
        if self._process is not None:
            with suppress(KeyError):
                self._process.writeToChild(IN, line + b"\n")

    def _said(self, file: int, line: bytes) -> None:
        if file == OUT and line == READY:
            self._is_ready()
        elif file == OUT:
            self.hears.logged(self.name, line)
        elif self._starting is not None:
            self._last_words.append(line.decode(errors="replace"))
        else:
            self.hears.wrote(self.name, line)

    def _is_ready(self) -> None:
        starting, self._starting = self._starting, None
        if starting is not None:
            starting.callback(None)

    def _ended(self, how: str) -> None:
        self._process = None
        self.gone(self.name)
        if self._kill is not None:
            self._kill.cancel()
        if self._stopped is not None:
            self._stopped.callback(None)
        elif not self._is_wanted:
            return
        elif self._starting is not None:
            self._starting.errback(WorkerFailed(self._why(how)))
        else:
            self._begin_again(how)

    def _why(self, how: str) -> str:
        said = "\n".join(self._last_words)
        return f"worker {self.name} ended with {how}" + (f": {said}" if said else "")

    def _begin_again(self, how: str) -> None:
        pause_s = self._pauses.after(self.reactor.seconds() - self.started_at)
        _log.error(
            "Worker {worker} ended with {how}; another begins in {pause_s:g} s",
            worker=self.name,
            how=how,
            pause_s=pause_s,
        )
        self.restarts += 1
        self._restart = self.reactor.callLater(pause_s, self._spawn)
