"""
Suspects: parts that were in two requests whose connection broke.

One of them may be what kills the upstream.  Each travels alone, with nobody
else in flight, so that the next break convicts one and harms no other.
"""

from collections import deque
from collections.abc import Callable

from attrs import define, field

from abproxy.batching.admission import Admission
from abproxy.batching.part import Part

__all__ = ["Quarantine"]


@define(kw_only=True, eq=False)
class Quarantine:
    """The suspects that wait, in the order in which they came."""

    room: Admission = field(repr=False)
    changed: Callable[[], None] = field(repr=False)
    _waiting: deque[Part] = field(init=False, factory=deque)

    def __bool__(self) -> bool:
        """Whether anybody is suspected."""
        return bool(self._waiting)

    @property
    def oldest_arrived_at(self) -> float | None:
        """When the one who is next came."""
        return self._waiting[0].arrived_at if self._waiting else None

    def put(self, part: Part) -> None:
        """Suspect *part*, which is accounted for as waiting already."""
        part.holder = self
        self._waiting.append(part)

    def take(self) -> Part:
        """Give up the one that travels next."""
        part = self._waiting.popleft()
        self.room.leave((part,))
        return part

    def drop(self, part: Part) -> None:
        """Forget *part*, whose caller has left."""
        self._waiting.remove(part)
        self.room.leave((part,))
        self.changed()

    def give_up(self, has_waited_too_long: Callable[[Part], bool]) -> list[Part]:
        """Take out the parts that have waited too long."""
        overdue = [part for part in self._waiting if has_waited_too_long(part)]
        for part in overdue:
            self._waiting.remove(part)
            self.room.leave((part,))
        return overdue
