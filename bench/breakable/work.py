"""
Permits and time: who is let in, who waits for a worker, and for how long.

As with TEI an input needs a permit at once or its whole request is refused,
and a client that hangs up gives its permits and its place back.
"""

from collections import deque
from collections.abc import Callable

from attrs import define, field
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from bench.breakable.traits import Traits

__all__ = ["Task", "Work"]


@define(kw_only=True, eq=False)
class Task:
    """One request that was let in."""

    inputs: int
    done: Callable[[], None]
    timer: IDelayedCall | None = None


@define(kw_only=True, eq=False)
class Work:
    """Everything that is waited for or computed."""

    clock: IReactorTime
    traits: Traits

    inputs: int = field(init=False, default=0)
    """Permits taken."""

    most_inputs: int = field(init=False, default=0)
    """The most permits that were ever taken."""

    spent_s: float = field(init=False, default=0.0)
    """How long workers have worked on what they finished, all together."""

    _busy: set[Task] = field(init=False, factory=set)
    _queue: deque[Task] = field(init=False, factory=deque)

    def admits(self, inputs: int) -> bool:
        """Whether there are permits for so many *inputs*."""
        return self.inputs + inputs <= self.traits.permits

    def begin(self, task: Task) -> None:
        """Take the permits of *task*, and start on it when a worker is free."""
        self.inputs += task.inputs
        self.most_inputs = max(self.most_inputs, self.inputs)
        self._queue.append(task)
        self.plan()

    def cancel(self, task: Task) -> None:
        """Forget *task*: its client has gone."""
        if task in self._busy:
            self._busy.discard(task)
            if task.timer is not None:
                task.timer.cancel()
        else:
            self._queue.remove(task)
        self.inputs -= task.inputs
        self.plan()

    def plan(self) -> None:
        """Start on what waits, as far as workers are free."""
        while self._queue and len(self._busy) < self.traits.workers:
            task = self._queue.popleft()
            self._busy.add(task)
            seconds = self.traits.seconds_for(task.inputs)
            task.timer = self.clock.callLater(seconds, self._finish, task)

    def _finish(self, task: Task) -> None:
        self._busy.discard(task)
        self.inputs -= task.inputs
        self.spent_s += self.traits.seconds_for(task.inputs)
        task.done()
        self.plan()
