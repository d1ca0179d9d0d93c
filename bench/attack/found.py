"""What an attack has found: a line of the table, and the failures in full."""

from collections.abc import Callable, Coroutine
from pathlib import Path
from random import Random
from typing import Any

from attrs import define, field, frozen

from bench.wire.bench import say

__all__ = ["Part", "Plan", "Row"]

SHOWN = 20
"""So many failures of a kind are printed."""


@define(kw_only=True)
class Row:
    """One kind of attack: how often it was tried, and what came of it."""

    what: str
    tried: int = 0
    failures: list[str] = field(factory=list)
    """What should not have happened, one line each."""

    measured: list[str] = field(factory=list)
    """Figures that say how well it went."""

    def fail(self, failure: str) -> None:
        """Note a failure, and print it: what comes after may never end."""
        self.failures.append(failure)
        if len(self.failures) <= SHOWN:
            say(f"FAILED: {self.what}: {failure}")

    def hold(self, holds: object, failure: str) -> None:
        """Note a *failure* unless something *holds*."""
        if not holds:
            self.fail(failure)


@frozen(kw_only=True)
class Plan:
    """What each part is given."""

    seconds: float
    """For how long it may go on, beside what it takes to start and stop."""

    random: Random
    folder: Path


Part = Callable[[Plan], Coroutine[Any, Any, list[Row]]]
"""Attack in one way, and return what was found."""
