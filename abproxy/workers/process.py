"""
The workers as their supervisor sees them: settings to them, log lines from them.

A worker that ends is replaced, at once if it had run for a while, and after
longer and longer delays if not.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, ClassVar

import msgspec
from attrs import define, field, frozen
from twisted.internet.defer import Deferred, DeferredList, FirstError
from twisted.logger import Logger, LogLevel

from abproxy.process import KILL_S, ChildProcess, RestartDelays
from abproxy.settings.settings import Settings
from abproxy.workers.control import (
    CONTROL_IN,
    CONTROL_OUT,
    END,
    PORT,
    READY,
    STDERR,
    STDOUT,
    write_settings,
)

__all__ = ["WorkerFailed", "WorkerPool", "WorkerProcess"]

_OWN_MEMBERS = frozenset({"level", "logger", "message", "time", "traceback"})
"""Members of a log line that are no fields of the event."""

_log = Logger()


class WorkerFailed(Exception):
    """A worker did not start; the message is for the operator."""


@define(kw_only=True, eq=False)
class WorkerProcess(ChildProcess):
    """One worker, running as long as it is wanted."""

    name: str
    folder: Path
    """Where the private sockets are."""

    port_fd: int
    """The file descriptor of the clients' port."""

    settings: Settings = field(repr=False)
    drained: set[str] = field(factory=set)
    """Addresses of servers to which the operator wants nothing to be sent."""

    on_end: Callable[[str], None] = field(default=lambda _name: None, repr=False)
    """Called with the name of the worker when a run has ended."""

    _delays: RestartDelays = field(init=False, factory=RestartDelays, repr=False)
    _is_ready: Deferred[None] = field(init=False, factory=Deferred, repr=False)
    _errors: list[str] = field(init=False, factory=list, repr=False)
    """What the first run wrote to standard error before it was ready."""

    command: ClassVar[tuple[str, ...]] = ("-m", "abproxy.workers")

    def __attrs_post_init__(self) -> None:
        """Leave it time to drain."""
        self.kill_after_s = self.settings.drain_timeout_s + KILL_S

    def send(self, settings: Settings) -> None:
        """Change the settings of this run and the next ones."""
        self.settings = settings
        self.kill_after_s = settings.drain_timeout_s + KILL_S
        self._write(write_settings(settings))

    def end(self, word: bytes = END) -> None:
        """Ask the worker to end, as a signal would; no other run follows."""
        super().end()
        self._write(word)

    def _ready(self) -> Deferred[None]:
        return self._is_ready

    def _not_started(self, how: str) -> Exception:
        said = "\n".join(self._errors)
        why = f"worker {self.name} ended with {how}" + (f": {said}" if said else "")
        return WorkerFailed(why)

    def _arguments(self) -> Sequence[str]:
        return [str(self.folder / self.name), *sorted(self.drained)]

    def _files(self) -> Mapping[int, int | str]:
        return {
            CONTROL_IN: "w",
            STDOUT: STDOUT,
            STDERR: "r",
            CONTROL_OUT: "r",
            PORT: self.port_fd,
        }

    def _spawn(self) -> None:
        super()._spawn()
        self._write(write_settings(self.settings))

    def _write(self, line: bytes) -> None:
        # It may have ended just before we hear of it, and its pipe with it.
        if self._process is not None:
            with suppress(KeyError):
                self._process.writeToChild(CONTROL_IN, line + b"\n")

    def _line_received(self, file: int, line: bytes) -> None:
        if file == CONTROL_OUT and line == READY:
            if self._starting is not None:
                self._is_ready.callback(None)
        elif file == CONTROL_OUT:
            self._log_again(line)
        elif self._starting is not None:
            self._errors.append(line.decode(errors="replace"))
        else:
            self._log_error(line)

    def _log_again(self, line: bytes) -> None:
        """Log what the worker has logged, with its name."""
        said = msgspec.json.decode(line)
        more = {key: said[key] for key in said.keys() - _OWN_MEMBERS}
        text = "\n".join(filter(None, (said["message"], said.get("traceback"))))
        level = LogLevel.lookupByName(said["level"])
        event = {**more, "worker": self.name, "said": text}
        Logger(namespace=said["logger"]).emit(level, "worker {worker}: {said}", **event)

    def _log_error(self, line: bytes) -> None:
        """Log what Python, or a library, wrote to the worker's standard error."""
        said = line.decode(errors="replace")
        _log.warn("worker {worker}: {said}", worker=self.name, said=said)

    def _ended(self, how: str) -> None:
        self.on_end(self.name)
        super()._ended(how)

    def _restart_delay(self, how: str) -> float:
        delay_s = self._delays.after(self.reactor.seconds() - self.started_at)
        _log.error(
            "Worker {worker} ended with {how}; it is started again in {pause_s:g} s",
            worker=self.name,
            how=how,
            pause_s=delay_s,
        )
        return delay_s


@frozen(eq=False)
class WorkerPool:
    """All workers: they start together, get the same settings, and end together."""

    workers: Sequence[WorkerProcess]

    def __iter__(self) -> Iterator[WorkerProcess]:
        return iter(self.workers)

    async def start(self) -> None:
        """
        Start all workers and wait until all accept clients.

        Raises:
            WorkerFailed: one of them did not start.
        """
        starting = [Deferred.fromCoroutine(each.start()) for each in self.workers]
        try:
            await DeferredList(starting, fireOnOneErrback=True, consumeErrors=True)
        except FirstError as error:
            error.subFailure.raiseException()

    def send(self, settings: Settings) -> None:
        """Change the settings of all workers."""
        for worker in self.workers:
            worker.send(settings)

    def drain(self, address: str, *, is_drained: bool) -> None:
        """Let the next runs of all workers send nothing to *address*, or again."""
        for worker in self.workers:
            (worker.drained.add if is_drained else worker.drained.discard)(address)

    def end(self, word: bytes = END) -> None:
        """Ask all workers to end."""
        for worker in self.workers:
            worker.end(word)

    def stop(self) -> Deferred[Any]:
        """Fire when all workers have ended."""
        return DeferredList(
            Deferred.fromCoroutine(each.stop()) for each in self.workers
        )
