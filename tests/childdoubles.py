"""Child processes that do what a test says, and a reactor that starts them."""

from typing import Any

from twisted.internet.error import ProcessDone, ProcessExitedAlready
from twisted.internet.task import Clock
from twisted.python.failure import Failure

__all__ = ["FakeProcess", "SpawningClock"]


class FakeProcess:
    """A child process that does what the test says."""

    def __init__(self, protocol: Any, arguments: list[str], files: Any) -> None:
        self.protocol = protocol
        self.arguments = arguments
        self.files = files
        self.received: list[bytes] = []
        self.signals: list[str] = []
        self.has_ended = False

    def writeToChild(self, file: int, data: bytes) -> None:  # noqa: N802
        """Receive lines, as long as the pipe is open."""
        if self.has_ended:
            raise KeyError(file)
        self.received += data.splitlines()

    def signalProcess(self, name: str) -> None:  # noqa: N802
        """Receive a signal."""
        if self.has_ended:
            raise ProcessExitedAlready
        self.signals.append(name)

    def writes(self, data: bytes, file: int) -> None:
        """Write to one of the pipes."""
        self.protocol.childDataReceived(file, data)

    def ends(self, how: Exception | None = None) -> None:
        """End."""
        self.has_ended = True
        self.protocol.processEnded(Failure(how or ProcessDone(0)))


class SpawningClock(Clock):
    """A reactor that starts such child processes."""

    def __init__(self) -> None:
        super().__init__()
        self.started: list[FakeProcess] = []
        self.error: OSError | None = None

    def spawnProcess(  # noqa: N802
        self, protocol: Any, _path: str, arguments: list[str], **how: Any
    ) -> FakeProcess:
        """Start one, unless that is an error."""
        if self.error is not None:
            raise self.error
        self.started.append(FakeProcess(protocol, arguments, how["childFDs"]))
        return self.started[-1]
