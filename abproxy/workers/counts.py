"""
How many connections each worker has, where all can see it.

A few numbers in a file that all of them have in memory: to write one's own and
to read the others costs nothing.
"""

import mmap
from pathlib import Path

from attrs import define, field

__all__ = ["Counts"]

SIZE = 8
"""Bytes of a number."""

NOBODY = (1 << 63) - 1
"""What stands where there is no worker: more than any may have."""


@define(eq=False)
class Counts:
    """The numbers of all workers."""

    _numbers: memoryview = field(repr=False)

    @classmethod
    def at(cls, file: Path, workers: int) -> "Counts":
        """Share the numbers in *file*, which is made if it is not there."""
        with file.open("a+b") as stream:
            stream.truncate(workers * SIZE)
            shared = mmap.mmap(stream.fileno(), workers * SIZE)
        return cls(memoryview(shared).cast("q"))

    def set(self, name: str, connections: int) -> None:
        """Say how many connections a worker has."""
        self._numbers[int(name) - 1] = connections

    def forget(self, name: str) -> None:
        """Expect nothing of a worker that is not there."""
        self.set(name, NOBODY)

    def fewer(self, than: int) -> list[int]:
        """Say how many those have who have fewer *than* that."""
        return [number for number in self._numbers if number < than]
