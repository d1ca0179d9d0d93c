"""
Which lane goes next: of those that may, the one whose oldest part is oldest.

A lane exists as long as somebody waits in it, so that a million different
option sets leave no memory behind.  Only the one that emptied last is kept: its
next caller often comes soon.
"""

from collections.abc import Callable, Iterator
from functools import partial
from itertools import chain
from operator import attrgetter

from attrs import define, field

from abproxy.batching.lane import Lane
from abproxy.batching.oldest import OldestFirst
from abproxy.batching.part import Caps, Part
from abproxy.dialects.call import LaneKey

__all__ = ["Lanes"]


@define(kw_only=True, eq=False)
class Lanes:
    """All lanes to one upstream, by what their calls have in common."""

    make: Callable[[LaneKey, Callable[[Lane], None]], Lane]
    """Open a lane; it says when it changes."""

    changed: Callable[[], None] = field(repr=False)
    """Called when a batch may have become ready."""

    _open: dict[LaneKey, Lane] = field(init=False, factory=dict, repr=False)
    _emptied: Lane | None = field(init=False, default=None, repr=False)
    _full: OldestFirst = field(factory=partial(OldestFirst, attrgetter("is_full")))
    _due: OldestFirst = field(factory=partial(OldestFirst, attrgetter("is_due")))

    def __len__(self) -> int:
        """In how many lanes somebody waits."""
        return len(self._open)

    def __iter__(self) -> Iterator[Lane]:
        """The lanes in which somebody waits."""
        return iter(self._open.values())

    def of(self, part: Part) -> Lane:
        """Find the lane of *part*, or open it."""
        key = part.call.lane
        lane = self._open.get(key)
        if lane is None:
            lane = self._emptied
            if lane is None or lane.lane != key:
                lane = self.make(key, self._noted)
            self._open[key] = lane
        return lane

    @property
    def has_full(self) -> bool:
        """Whether a full batch waits."""
        return self._full.first() is not None

    @property
    def has_due(self) -> bool:
        """Whether a batch has been held long enough."""
        return self._due.first() is not None

    def next(self, *, also_not_full: bool) -> Lane | None:
        """Find the lane whose batch leaves next."""
        ready = [self._full.first()]
        if also_not_full:
            ready.append(self._due.first())
        return min(filter(None, ready), key=attrgetter("turn"), default=None)

    def go_by(self, caps: Caps, max_wait_s: float) -> None:
        """Go by other limits from now on."""
        self._emptied = None
        lanes = list(self._open.values())
        for lane in lanes:
            lane.go_by(caps, max_wait_s)
        for lane in lanes:
            self._noted(lane)

    def give_up(self, has_waited_too_long: Callable[[Part], bool]) -> list[Part]:
        """Take out the parts that have waited too long."""
        overdue = [
            lane.give_up(has_waited_too_long) for lane in list(self._open.values())
        ]
        return list(chain.from_iterable(overdue))

    def _noted(self, lane: Lane) -> None:
        if lane.is_empty:
            self._forget(lane)
        else:
            self._full.note(lane)
            self._due.note(lane)
        self.changed()

    def _forget(self, lane: Lane) -> None:
        # Its like may be open again: the next part of a large call came in.
        if self._open.get(lane.lane) is lane:
            del self._open[lane.lane]
            self._emptied = lane
