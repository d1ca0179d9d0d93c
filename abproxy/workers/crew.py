"""All workers: they start together, hear the same, and end together."""

from collections.abc import Callable, Iterator
from typing import Any, ClassVar

import msgspec
from attrs import define, field
from twisted.internet.defer import Deferred, DeferredList, FirstError
from twisted.logger import Logger, LogLevel

from abproxy.settings import Settings
from abproxy.workers.child import WorkerProcess

__all__ = ["Log", "WorkerPool"]

_log = Logger()


class Log:
    """Whatever workers say goes into the foreman's log, with their names."""

    _OWN: ClassVar = frozenset({"level", "logger", "message", "time", "traceback"})

    def logged(self, name: str, line: bytes) -> None:
        """Log again what a worker has logged."""
        said = msgspec.json.decode(line)
        more = {key: said[key] for key in said.keys() - self._OWN}
        text = "\n".join(filter(None, (said["message"], said.get("traceback"))))
        level = LogLevel.lookupByName(said["level"])
        event = {**more, "worker": name, "said": text}
        Logger(namespace=said["logger"]).emit(level, "worker {worker}: {said}", **event)

    def wrote(self, name: str, line: bytes) -> None:
        """Log what Python, or a library, says."""
        said = line.decode(errors="replace")
        _log.warn("worker {worker}: {said}", worker=name, said=said)


@define(eq=False)
class WorkerPool:
    """All workers, by name."""

    workers: list[WorkerProcess]

    gone: list[Callable[[str], None]] = field(factory=list)
    """Called with the name of a worker whose life is over."""

    def __attrs_post_init__(self) -> None:
        """Hear of every end."""
        for worker in self.workers:
            worker.gone = self._over

    def __iter__(self) -> Iterator[WorkerProcess]:
        return iter(self.workers)

    def _over(self, name: str) -> None:
        for tell in self.gone:
            tell(name)

    async def start(self) -> None:
        """
        Start all; returns when all let clients in.

        Raises:
            WorkerFailed: one of them did not start.
        """
        starting = [Deferred.fromCoroutine(each.start()) for each in self.workers]
        try:
            await DeferredList(starting, fireOnOneErrback=True, consumeErrors=True)
        except FirstError as error:
            error.subFailure.raiseException()

    def send(self, settings: Settings) -> None:
        """Let all go by other *settings*."""
        for worker in self.workers:
            worker.send(settings)

    def end(self) -> None:
        """Pass on that somebody wants the end."""
        for worker in self.workers:
            worker.end()

    def stop(self, patience_s: float) -> Deferred[Any]:
        """Fire when all have ended."""
        return DeferredList(
            [Deferred.fromCoroutine(each.stop(patience_s)) for each in self.workers]
        )
