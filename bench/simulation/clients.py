"""
Those who call: crowds whose members are alike, and what they experience.

A crowd is closed if each client sends its next call when the last one was
answered, and open if calls come at a rate, whatever became of others.
"""

from collections.abc import Callable
from random import Random

from attrs import define, field, frozen
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from abproxy.dialects.call import Call, PartResult
from abproxy.errors import Overloaded
from bench.simulation.clock import VirtualClock
from bench.simulation.servers import DEADLY
from bench.simulation.ways import Way, call_of, rows_of

__all__ = ["MIXED", "SHORT", "Crowd", "Seen", "let_loose"]

TURNAROUND_S = 0.0002
"""From an answer to the next call of the same client, on average."""

BACK_OFF_S = 0.05
"""How long a client that was refused stays away."""

SHORT = (10,)
MIXED = (10, 10, 10, 10, 10, 10, 10, 200)
"""How long texts may be: seven short ones to one long."""


@frozen(kw_only=True)
class Crowd:
    """Clients that are alike."""

    name: str = ""
    clients: int = 1

    rate: float | None = None
    """Calls a second of an open load; closed if None."""

    items: int = 1
    """Items in a call."""

    think_s: float = 0.0
    """From an answer to the client's next call, on average; at once if 0."""

    beat_s: float = 0.0
    """All clients call together, so often; whenever they like if 0."""

    lengths: tuple[int, ...] = SHORT
    is_bulk: bool = False
    begins_s: float = 0.0

    deadly: bool = False
    """One client sends one deadly text, once."""


@define(eq=False)
class Seen:
    """What a crowd experienced since the warm-up was over."""

    latencies_s: list[float] = field(factory=list)
    items: int = 0
    refused: int = 0
    failed: int = 0


@define(kw_only=True, eq=False)
class _Loose:
    """A crowd at large."""

    crowd: Crowd
    way: Way
    clock: VirtualClock
    calls: Random
    """When calls come and what they hold: the same by every way, if open."""

    pauses: Random
    warm_s: float
    seen: Seen = field(factory=Seen)

    def start(self) -> None:
        """Begin, not all at the same instant."""
        begin = self.crowd.begins_s
        if self.crowd.deadly:
            self.clock.callLater(begin, self._call, [DEADLY], None)
        elif self.crowd.rate is not None:
            self.clock.callLater(begin, self._arrive)
        else:
            for _ in range(self.crowd.clients):
                self.clock.callLater(begin + self._pause(TURNAROUND_S), self._next)

    def _pause(self, mean_s: float) -> float:
        return mean_s * self.pauses.uniform(0.5, 1.5)

    def _think(self) -> float:
        pause_s = self._pause(TURNAROUND_S)
        if self.crowd.think_s:
            pause_s = self.pauses.expovariate(1 / self.crowd.think_s)
        if beat_s := self.crowd.beat_s:
            pause_s += beat_s - (self.clock.seconds() + pause_s) % beat_s
        return pause_s

    def _arrive(self) -> None:
        assert self.crowd.rate is not None  # noqa: S101
        self.clock.callLater(self.calls.expovariate(self.crowd.rate), self._arrive)
        self._call(self._texts(), None)

    def _next(self) -> None:
        self._call(self._texts(), self._next)

    def _texts(self) -> list[bytes]:
        lengths = self.calls.choices(self.crowd.lengths, k=self.crowd.items)
        return [b"%0*d" % (size, self.calls.randrange(10**9)) for size in lengths]

    def _call(self, texts: list[bytes], then: Callable[[], None] | None) -> None:
        call = call_of(texts, is_bulk=self.crowd.is_bulk)
        began_at = self.clock.seconds()
        try:
            done = self.way.submit(call)
        except Overloaded:
            done = Deferred()
            done.errback(Failure())
        done.addBoth(self._ended, call, began_at)
        if then is not None:
            done.addCallback(lambda pause_s: self.clock.callLater(pause_s, then))

    def _ended(
        self, outcome: list[PartResult] | Failure, call: Call, began_at: float
    ) -> float:
        """Note what became of a call, and say how long to pause."""
        if isinstance(outcome, Failure):
            is_refusal = outcome.check(Overloaded) is not None
            return self._turned_away(is_refusal=is_refusal)
        answer = rows_of(outcome)
        if answer is None:
            return self._turned_away(is_refusal=True)
        if answer != call.alone.body:
            raise AssertionError("a caller got rows that are not its own")
        if self.clock.seconds() >= self.warm_s:
            self.seen.latencies_s.append(self.clock.seconds() - began_at)
            self.seen.items += len(call.items.raw)
        return self._think()

    def _turned_away(self, *, is_refusal: bool) -> float:
        if self.clock.seconds() >= self.warm_s:
            self.seen.refused += is_refusal
            self.seen.failed += not is_refusal
        return self._pause(BACK_OFF_S)


def let_loose(
    crowd: Crowd, way: Way, clock: VirtualClock, seed: str, warm_s: float
) -> Seen:
    """Start *crowd*; what it sees after *warm_s* is noted as time passes."""
    loose = _Loose(
        crowd=crowd,
        way=way,
        clock=clock,
        calls=Random(f"calls {seed}"),  # noqa: S311  a game
        pauses=Random(f"pauses {seed}"),  # noqa: S311
        warm_s=warm_s,
    )
    loose.start()
    return loose.seen
