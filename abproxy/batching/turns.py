"""
Fair queueing: the order in which the parts of all clients leave.

Virtual time is counted in batches: it passes by one while each client of which
anything waits sends a batch.  A part gets its place at the virtual time of its
arrival, or at the end of what its client has queued up before, if that is later.
So a client with one call keeps the order of arrival, and one with forty counts as
if it sent them one after the other.

As virtual time passes with every batch, of any client, a part never waits for more
than what each other client sends until its turn has come.

Of the lanes with a batch that may leave, the one whose oldest part has the
earliest place is next.
"""

from collections.abc import Callable, Sequence
from heapq import heapify, heappop, heappush
from itertools import count
from operator import attrgetter

from attrs import define, field

from abproxy.batching.admission import Admission
from abproxy.batching.lane import Lane
from abproxy.batching.part import Caps, Part, Priority

__all__ = ["ReadyLanes", "Turns"]

TIDY_OVER = 100
"""Entries of a heap that are not worth looking through."""

_Entry = tuple[Priority, int, Lane]


@define(eq=False)
class Turns:
    """Gives parts their places, by what their clients have queued up before."""

    _admission: Admission = field(repr=False)
    _now: list[float] = field(init=False, factory=lambda: [0.0, 0.0])
    """The virtual time, of ordinary calls and of bulk ones."""

    _serial: "count[int]" = field(init=False, factory=count, repr=False)

    def place(self, part: Part, caps: Caps) -> Priority:
        """Return the place of a *part* that queues up, and is counted in already."""
        is_bulk = part.call.lane_key.is_bulk
        turns = self._admission.of_clients[part.call.client].next_turns
        turn = max(turns[is_bulk], self._now[is_bulk])
        turns[is_bulk] = turn + _batches(part, caps)
        return turn, next(self._serial)

    def place_behind(self, priority: Priority | None, *, is_bulk: bool) -> Priority:
        """Return a place behind *priority*, and not before the virtual time."""
        turn = self._now[is_bulk]
        return max(turn, priority[0]) if priority else turn, next(self._serial)

    def note_left(self, parts: Sequence[Part], caps: Caps, clients: int) -> None:
        """
        Advance the virtual time, as *parts* of one batch have left.

        Those that came back unsent, and leave again, have had their turn.

        Args:
            parts: all of one lane.
            caps: what fits into a batch.
            clients: of how many clients anything waited, with these parts.
        """
        new = [part for part in parts if not part.sends]
        if not new:
            return
        is_bulk = new[0].call.lane_key.is_bulk
        turn = min([part.priority[0] for part in new])
        passed = sum([_batches(part, caps) for part in new]) / clients
        self._now[is_bulk] = max(self._now[is_bulk], turn) + passed


def _batches(part: Part, caps: Caps) -> float:
    return caps.fill(1, len(part.items), part.size)


@define(eq=False)
class _OldestFirst:
    """
    The lanes that fulfil a condition, the one with the oldest part first.

    It is a heap that tolerates change: an entry is left in it when its lane
    changes, and thrown away when it comes up and is no longer true, or when
    there are many of its kind.
    """

    _holds: Callable[[Lane], bool]
    _heap: list[_Entry] = field(init=False, factory=list)
    _listed: dict[Priority, Lane] = field(init=False, factory=dict)
    _serial: "count[int]" = field(init=False, factory=count)
    _tidy_over: int = field(init=False, default=TIDY_OVER)

    def note(self, lane: Lane) -> None:
        """Add a *lane* that fulfils the condition, if it is not there already."""
        priority = lane.priority
        if priority is None or self._listed.get(priority) is lane:
            return
        self._listed[priority] = lane
        heappush(self._heap, (priority, next(self._serial), lane))
        if len(self._heap) > self._tidy_over:
            self._tidy()

    def first(self) -> Lane | None:
        """Return the lane whose oldest part is the oldest."""
        while self._heap:
            priority, _, lane = entry = self._heap[0]
            if self._is_true(entry):
                return lane
            heappop(self._heap)
            if self._listed.get(priority) is lane:
                del self._listed[priority]
        return None

    def _is_true(self, entry: _Entry) -> bool:
        priority, _, lane = entry
        return lane.priority == priority and self._holds(lane)

    def _tidy(self) -> None:
        """Remove outdated entries before most of them are outdated."""
        self._heap = list(filter(self._is_true, self._heap))
        heapify(self._heap)
        self._listed = {priority: lane for priority, _, lane in self._heap}
        self._tidy_over = max(TIDY_OVER, 2 * len(self._heap))


@define(eq=False)
class ReadyLanes:
    """The lanes with a batch that is full, or has waited long enough."""

    _full: _OldestFirst = field(init=False, repr=False)
    _due: _OldestFirst = field(init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        self._full = _OldestFirst(attrgetter("is_full"))
        self._due = _OldestFirst(attrgetter("is_due"))

    def note(self, lane: Lane) -> None:
        """Add a *lane* that has changed, if its batch may leave."""
        if lane.is_full:
            self._full.note(lane)
        if lane.is_due:
            self._due.note(lane)

    @property
    def has_full(self) -> bool:
        """Return whether there is a full batch."""
        return self._full.first() is not None

    @property
    def has_due(self) -> bool:
        """Return whether there is a batch that has waited long enough."""
        return self._due.first() is not None

    def first(self, *, also_not_full: bool) -> Lane | None:
        """Return the lane whose batch leaves next."""
        ready = [self._full.first()]
        if also_not_full:
            ready.append(self._due.first())
        return min(filter(None, ready), key=attrgetter("priority"), default=None)
