"""What a child process says, cut into lines, and how it ended."""

from collections.abc import Callable
from typing import Any

from attrs import define, field
from twisted.internet.protocol import ProcessProtocol
from twisted.python.failure import Failure

__all__ = ["Pipes", "never_began"]


def never_began(error: OSError) -> str:
    """Say in words how a child has ended that could not be started."""
    return f"an error before it began: {error}"


@define(eq=False)
class Pipes(ProcessProtocol):
    """The pipes from one child."""

    said: Callable[[int, bytes], None]
    """Called with each line, and the child's file that it was written to."""

    ended: Callable[[str], None]
    """Called with how the child has ended, in words."""

    _rest: dict[int, bytes] = field(init=False, factory=dict)

    def childDataReceived(self, childFD: int, data: bytes) -> None:  # noqa: N803
        """Cut what has arrived into lines."""
        *lines, rest = (self._rest.get(childFD, b"") + data).split(b"\n")
        self._rest[childFD] = rest
        for line in lines:
            self.said(childFD, line)

    def processEnded(self, reason: Failure) -> None:  # noqa: N802
        """Say how it ended."""
        end: Any = reason.value
        killed = f"signal {end.signal}" if end.signal else None
        self.ended(killed or f"exit code {end.exitCode}")
