"""
The turn to try another rung of the ladder: one worker at a time has it.

Workers share the inference server, and each has a ladder of its own.  If two of
them tried at once, neither could tell whose trial made calls stay longer.
"""

import mmap
from pathlib import Path

from attrs import define, field
from twisted.internet.interfaces import IReactorTime

from abproxy.batching.ladder import Turn

__all__ = ["SharedTurn"]

SIZE = 16
"""Bytes of two numbers: which worker has the turn, and until when."""

LONGEST_S = 60.0
"""After so long others may take it: its worker may have no more calls, or be gone."""


@define(kw_only=True, eq=False)
class SharedTurn(Turn):
    """
    The turn of the worker with this number, counted from 1.

    It stands in a file that all workers have in memory.  Two that look at the same
    instant may both take it: then one trial tells less than others do.
    """

    clock: IReactorTime = field(repr=False)
    number: int
    _shared: "memoryview[float]" = field(repr=False)

    @classmethod
    def at(cls, file: Path, number: int, clock: IReactorTime) -> "SharedTurn":
        """Share the turn in *file*, which is made if it is not there."""
        with file.open("a+b") as stream:
            stream.truncate(SIZE)
            shared = mmap.mmap(stream.fileno(), SIZE)
        return cls(clock=clock, number=number, shared=memoryview(shared).cast("d"))

    def take(self) -> bool:
        """Take the turn, unless another worker has it."""
        now = self.clock.seconds()
        owner, until = self._shared
        if owner not in (0, self.number) and now < until:
            return False
        self._shared[0], self._shared[1] = self.number, now + LONGEST_S
        return True

    def give_back(self) -> None:
        """Give it back, if this worker has it."""
        if self._shared[0] == self.number:
            self._shared[0] = 0
