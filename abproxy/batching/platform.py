"""
Those who wait, wherever they stand: in a lane, or apart as suspects.

Each has a place in one queue over all lanes, and keeps it when the upstream
takes no work.  Whoever is given up hears why.
"""

import itertools
from collections.abc import Callable, Sequence

from attrs import define, field
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from abproxy.batching.admission import Admission
from abproxy.batching.batch import SUSPECT
from abproxy.batching.lanes import Lanes
from abproxy.batching.part import Part
from abproxy.batching.quarantine import Quarantine
from abproxy.dialects.call import PartResult
from abproxy.errors import ProxyError
from abproxy.events import Cause
from abproxy.http.messages import Response

__all__ = ["Platform", "tell"]

BULK_HANDICAP_S = 10.0
"""How much older another call counts than a bulk one that came with it."""


@define(kw_only=True, eq=False)
class Platform:
    """Everybody who waits for one upstream."""

    clock: IReactorTime = field(repr=False)
    room: Admission
    lanes: Lanes
    suspects: Quarantine
    _turns: "itertools.count[int]" = field(
        init=False, factory=itertools.count, repr=False
    )

    @property
    def oldest_arrived_at(self) -> float | None:
        """When the one came who has waited longest."""
        places = (self.suspects, *self.lanes)
        arrivals = (place.oldest_arrived_at for place in places)
        return min((at for at in arrivals if at is not None), default=None)

    def enqueue(self, part: Part) -> bool:
        """
        Let *part* take its place at the end of the queue.

        Returns:
            whether it makes a batch full.
        """
        handicap_s = BULK_HANDICAP_S if part.call.lane.is_bulk else 0.0
        part.turn = (self.clock.seconds() + handicap_s, next(self._turns))
        return self.lanes.of(part).submit(part)

    def set_apart(self, parts: Sequence[Part]) -> None:
        """Let each of *parts* travel alone: it may be what breaks the upstream."""
        for part in parts:
            self.room.enter(part)
            self.suspects.put(part)

    def take_in_again(self, parts: Sequence[Part]) -> None:
        """Give *parts* of one lane, which came back unsent, their places again."""
        self.set_apart([part for part in parts if part.breaks >= SUSPECT])
        unsuspected = [part for part in parts if part.breaks < SUSPECT]
        for part in unsuspected:
            self.room.enter(part)
        if unsuspected:
            self.lanes.of(unsuspected[0]).put_back(unsuspected)

    def give_up(
        self, waits_too_long: Callable[[Part], bool], error: ProxyError
    ) -> None:
        """
        Send away those who have waited too long, and tell them why.

        They wait here, so no reply of the upstream can be an answer to them.
        """
        tell(self.suspects.give_up(waits_too_long), error)
        tell(self.lanes.give_up(waits_too_long), error)


def tell(parts: Sequence[Part], cause: Cause) -> None:
    """Let each of *parts* hear why nothing came of it."""
    for part in parts:
        if isinstance(cause, Response):
            part.fire([PartResult(response=cause)])
        else:
            part.fire(Failure(cause.copy()))
