"""
What was counted stays counted, whatever becomes of who counted it.

Of a worker that is silent, or dead, the last word counts: a total that shrinks
would be taken for a new beginning, and all of it be counted again.
"""

from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

from attrs import define, field

__all__ = ["CumulativeTotals"]

T = TypeVar("T")


@define(eq=False)
class CumulativeTotals(Generic[T]):
    """The last word of every worker, and the sum of those who are gone."""

    add: Callable[[Iterable[T]], T]
    _known: dict[str, T] = field(init=False, factory=dict)
    _gone: list[T] = field(init=False, factory=list)

    def learn(self, name: str, said: T) -> None:
        """Take the word of a worker."""
        self._known[name] = said

    def gone(self, name: str) -> None:
        """Keep what a worker has said; the next of this name begins at 0."""
        if name in self._known:
            self._gone = [self.add([*self._gone, self._known.pop(name)])]

    def total(self) -> T:
        """Add up everything."""
        return self.add([*self._gone, *self._known.values()])
