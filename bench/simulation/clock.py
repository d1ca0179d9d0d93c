"""Time that passes only from one event to the next, as fast as Python can."""

from collections.abc import Callable, Sequence
from heapq import heappop, heappush
from itertools import count
from typing import Any

from attrs import define, field
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from zope.interface import implementer

__all__ = ["VirtualClock"]


@implementer(IDelayedCall)
@define(eq=False)
class Alarm:
    """One call in the future."""

    at: float
    call: Callable[[], Any] | None

    def getTime(self) -> float:  # noqa: N802
        """Say when it rings."""
        return self.at

    def cancel(self) -> None:
        """Never ring."""
        self.call = None

    def active(self) -> bool:
        """Whether it is going to ring."""
        return self.call is not None


@implementer(IReactorTime)
@define(eq=False)
class VirtualClock:
    """A heap of alarms; those at the same time ring in the order they were set."""

    _now: float = field(default=0.0, init=False)
    _heap: list[tuple[float, int, Alarm]] = field(factory=list, init=False)
    _serial: "count[int]" = field(factory=count, init=False)

    def seconds(self) -> float:
        """Say what time it is."""
        return self._now

    def callLater(  # noqa: N802
        self, delay: float, call: Callable[..., Any], *args: Any, **kw: Any
    ) -> Alarm:
        """Call later."""
        bound = (lambda: call(*args, **kw)) if args or kw else call
        alarm = Alarm(self._now + delay, bound)
        heappush(self._heap, (alarm.at, next(self._serial), alarm))
        return alarm

    def getDelayedCalls(self) -> Sequence[Alarm]:  # noqa: N802
        """List the alarms that are set."""
        return [alarm for _, _, alarm in self._heap if alarm.active()]

    def run(self, until: float) -> None:
        """Let everything happen that happens before *until*."""
        while self._heap and self._heap[0][0] <= until:
            self._now, _, alarm = heappop(self._heap)
            call, alarm.call = alarm.call, None
            if call is not None:
                call()
        self._now = until
