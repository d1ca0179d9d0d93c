"""
Servers that take their time for a request elsewhere than in one queue.

A server in front of a GPU has an event loop that reads requests and writes
answers while the GPU computes; a hosted API has as many machines as there are
requests.
"""

from collections import deque
from collections.abc import Callable, Sequence
from itertools import pairwise
from random import Random

from attrs import define, field

from bench.simulation.servers import Model, Work

__all__ = ["BASE", "GPU", "LARGE", "Hosted"]

Steps = Sequence[tuple[int, float]]
"""How long a step takes by the number of texts, in seconds; linear in between."""

BASE: Steps = ((1, 0.005), (32, 0.0043), (128, 0.0054), (512, 0.0089))
LARGE: Steps = ((1, 0.010), (32, 0.015), (128, 0.0165), (512, 0.0227))

MOST_TEXTS = 512
"""Texts in one step."""

REQUEST_S, TEXT_S = 0.0001, 0.00002
"""What the event loop needs for a request and for each of its texts."""


@define(kw_only=True, eq=False)
class GPU(Model):
    """Computes all that waits in one step; its event loop works meanwhile."""

    steps: Steps = BASE

    _reading: deque[tuple[Work, Callable[[Work], None]]] = field(
        factory=deque, init=False
    )
    _reads: bool = field(default=False, init=False)
    _waiting: deque[Work] = field(factory=deque, init=False)
    _computes: bool = field(default=False, init=False)

    def take(self, work: Work) -> None:
        """Read it, and let it wait for the next step."""
        self._in_loop(work, self._ready)

    def _in_loop(self, work: Work, then: Callable[[Work], None]) -> None:
        self._reading.append((work, then))
        if not self._reads:
            self._read()

    def _read(self) -> None:
        self._reads = bool(self._reading)
        if self._reads:
            work, then = self._reading.popleft()
            took_s = (REQUEST_S + TEXT_S * len(work.items)) / 2
            self.clock.callLater(took_s, self._was_read, work, then)

    def _was_read(self, work: Work, then: Callable[[Work], None]) -> None:
        self._read()
        then(work)

    def _ready(self, work: Work) -> None:
        self._waiting.append(work)
        if not self._computes:
            self._compute()

    def _compute(self) -> None:
        works, texts = list[Work](), 0
        while self._waiting and texts + len(self._waiting[0].items) <= MOST_TEXTS:
            works.append(self._waiting.popleft())
            texts += len(works[-1].items)
        self._computes = bool(works)
        if works:
            self.clock.callLater(self._step_s(texts), self._computed, works)

    def _computed(self, works: Sequence[Work]) -> None:
        self._compute()
        for work in works:
            self._in_loop(work, lambda work: self.finish([work]))

    def _step_s(self, texts: int) -> float:
        for (few, less_s), (many, more_s) in pairwise(self.steps):
            if texts <= many:
                return less_s + (more_s - less_s) * (texts - few) / (many - few)
        raise ValueError(f"no step has {texts} texts")

    def forget(self) -> None:
        """Go on: such a server is not mortal."""


@define(kw_only=True, eq=False)
class Hosted(Model):
    """Answers after 200 to 400 ms, at random, whatever is in a request."""

    _chance: Random = field(factory=lambda: Random(1), init=False)  # noqa: S311

    def take(self, work: Work) -> None:
        """Compute it on a machine of its own."""
        took_s = self._chance.uniform(0.2, 0.4)
        self.clock.callLater(took_s, self.finish, [work])

    def forget(self) -> None:
        """Go on: such a server is not mortal."""
