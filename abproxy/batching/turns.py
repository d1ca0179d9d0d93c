"""
Turns: the place of a part among those of other clients.

Time is counted in batches here: it passes by one while each client of which
anything waits sends a batch.  A part has its place at the present, or at the end
of what its client has queued up before, if that is later.  So a client with one
call keeps the order of arrival, and one with forty counts as if it sent them one
after the other.  (The field's word for this is fair queueing.)

As time passes with every batch, whoever sends it, a part never waits for more
than what each other client sends until its turn has come.
"""

from collections.abc import Sequence
from itertools import count

from attrs import define, field

from abproxy.batching.admission import Admission
from abproxy.batching.part import Caps, Part, Priority

__all__ = ["Turns"]


@define(eq=False)
class Turns:
    """Gives parts their places, by what their clients have queued up before."""

    _admission: Admission = field(repr=False)
    _now: list[float] = field(init=False, factory=lambda: [0.0, 0.0])
    """The present, for calls in a hurry and for bulk ones."""

    _serial: "count[int]" = field(init=False, factory=count, repr=False)

    def place(self, part: Part, caps: Caps) -> Priority:
        """Return the place of a *part* that queues up, and is counted in already."""
        is_bulk = part.call.lane_key.is_bulk
        turns = self._admission.of_clients[part.call.client].next_turns
        turn = max(turns[is_bulk], self._now[is_bulk])
        turns[is_bulk] = turn + _batches(part, caps)
        return turn, next(self._serial)

    def place_behind(self, priority: Priority | None, *, is_bulk: bool) -> Priority:
        """Return a place behind the one with *priority*, and not before the present."""
        turn = self._now[is_bulk]
        return max(turn, priority[0]) if priority else turn, next(self._serial)

    def note_left(self, parts: Sequence[Part], caps: Caps, clients: int) -> None:
        """
        Let time pass, as *parts* of one batch have left.

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
