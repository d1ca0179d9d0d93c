"""Lanes that fulfil a condition, the one with the oldest part first."""

from collections.abc import Callable
from heapq import heapify, heappop, heappush
from itertools import count

from attrs import define, field

from abproxy.batching.lane import Lane
from abproxy.batching.part import Turn

__all__ = ["OldestFirst"]

TIDY_OVER = 100
"""Entries that are not worth looking through."""

_Entry = tuple[Turn, int, Lane]


@define(eq=False)
class OldestFirst:
    """
    A heap that tolerates change.

    An entry is left in it when its lane changes, and thrown away when it
    comes up and is no longer true, or when there are many of its kind.
    """

    _holds: Callable[[Lane], bool]
    _heap: list[_Entry] = field(init=False, factory=list)
    _listed: dict[Turn, Lane] = field(init=False, factory=dict)
    _serial: "count[int]" = field(init=False, factory=count)
    _tidy_over: int = field(init=False, default=TIDY_OVER)

    def note(self, lane: Lane) -> None:
        """Look at a *lane* that may have begun to fulfil the condition."""
        turn = lane.turn
        if turn is None or self._listed.get(turn) is lane or not self._holds(lane):
            return
        self._listed[turn] = lane
        heappush(self._heap, (turn, next(self._serial), lane))
        if len(self._heap) > self._tidy_over:
            self._tidy()

    def first(self) -> Lane | None:
        """Find the lane whose oldest part is the oldest."""
        while self._heap:
            turn, _, lane = entry = self._heap[0]
            if self._is_true(entry):
                return lane
            heappop(self._heap)
            if self._listed.get(turn) is lane:
                del self._listed[turn]
        return None

    def _is_true(self, entry: _Entry) -> bool:
        turn, _, lane = entry
        return lane.turn == turn and self._holds(lane)

    def _tidy(self) -> None:
        """Throw away what is no longer true, before most of it is."""
        self._heap = list(filter(self._is_true, self._heap))
        heapify(self._heap)
        self._listed = {turn: lane for turn, _, lane in self._heap}
        self._tidy_over = max(TIDY_OVER, 2 * len(self._heap))
