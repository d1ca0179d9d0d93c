"""
A worker as its foreman sees it: settings to it, log lines from it.

A worker that ends is replaced, at once if it had run for a while, and after
longer and longer delays if not.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import ClassVar, Protocol

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from abproxy.process import KILL_S, ChildProcess, RestartDelays
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

__all__ = ["WorkerFailed", "WorkerProcess"]

_log = Logger()


class WorkerFailed(Exception):
    """A worker did not start; the message is for the operator."""


class Hears(Protocol):
    """Whoever takes in what a worker says."""

    def logged(self, name: str, line: bytes) -> None:
        """A line for the log, as JSON."""

    def wrote(self, name: str, line: bytes) -> None:
        """A line on standard error."""


@define(kw_only=True, eq=False)
class WorkerProcess(ChildProcess):
    """One worker, running as long as it is wanted."""

    name: str
    folder: Path
    """Where the private sockets are."""

    port: int
    """The file that is the clients' port."""

    settings: Settings = field(repr=False)
    hears: Hears = field(repr=False)
    gone: Callable[[str], None] = field(default=lambda _name: None, repr=False)
    """Called when a run has ended."""

    _delays: RestartDelays = field(init=False, factory=RestartDelays, repr=False)
    _is_ready: Deferred[None] = field(init=False, factory=Deferred, repr=False)
    _last_words: list[str] = field(init=False, factory=list, repr=False)

    command: ClassVar[tuple[str, ...]] = ("-m", "abproxy.workers")

    def send(self, settings: Settings) -> None:
        """Let the worker go by other *settings*, in this run and the next."""
        self.settings = settings
        self._write(write_settings(settings))

    def end(self) -> None:
        """Tell the worker to end, as a signal would; no other run follows."""
        super().end()
        self._write(END)

    async def stop(self, patience_s: float) -> None:
        """Wait for the end of the last run, which is killed if need be."""
        await super().stop(patience_s + KILL_S)

    def _ready(self) -> Deferred[None]:
        return self._is_ready

    def _not_started(self, how: str) -> Exception:
        said = "\n".join(self._last_words)
        why = f"worker {self.name} ended with {how}" + (f": {said}" if said else "")
        return WorkerFailed(why)

    def _arguments(self) -> Sequence[str]:
        return [str(self.folder / self.name)]

    def _files(self) -> Mapping[int, int | str]:
        return {IN: "w", STDOUT: STDOUT, STDERR: "r", OUT: "r", PUBLIC: self.port}

    def _spawn(self) -> None:
        super()._spawn()
        self._write(write_settings(self.settings))

    def _write(self, line: bytes) -> None:
        # It may have ended just before we hear of it, and its pipe with it.
        if self._process is not None:
            with suppress(KeyError):
                self._process.writeToChild(IN, line + b"\n")

    def _line_received(self, file: int, line: bytes) -> None:
        if file == OUT and line == READY:
            if self._starting is not None:
                self._is_ready.callback(None)
        elif file == OUT:
            self.hears.logged(self.name, line)
        elif self._starting is not None:
            self._last_words.append(line.decode(errors="replace"))
        else:
            self.hears.wrote(self.name, line)

    def _ended(self, how: str) -> None:
        self.gone(self.name)
        super()._ended(how)

    def _restart_delay(self, how: str) -> float:
        delay_s = self._delays.after(self.reactor.seconds() - self.started_at)
        _log.error(
            "Worker {worker} ended with {how}; another begins in {pause_s:g} s",
            worker=self.name,
            how=how,
            pause_s=delay_s,
        )
        return delay_s
