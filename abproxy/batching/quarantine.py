"""
Quarantine: parts that are sent alone, as one of them may kill the upstream.

A part that was in two requests whose connection broke waits here, apart from the
lanes, until it can be sent with nothing else in flight: then the next break is
due to this part, and harms no other.
"""

from collections import deque
from collections.abc import Callable, Sequence

from attrs import define, field

from abproxy.batching.admission import Admission
from abproxy.batching.part import Part

__all__ = ["QUARANTINE_AFTER", "Quarantine"]

QUARANTINE_AFTER = 2
"""Broken connections after which a part is sent alone; after one more it fails."""


@define(kw_only=True, eq=False)
class Quarantine:
    """The parts that wait to be sent alone, the oldest first."""

    admission: Admission = field(repr=False)

    on_change: Callable[[], None] = field(repr=False)
    """Called when a caller has left."""

    _parts: deque[Part] = field(init=False, factory=deque, repr=False)

    @property
    def first(self) -> Part | None:
        """Return the part that is next."""
        return self._parts[0] if self._parts else None

    @property
    def oldest_arrived_at(self) -> float | None:
        """Return when the part arrived that has waited longest."""
        return min((part.arrived_at for part in self._parts), default=None)

    def add(self, parts: Sequence[Part]) -> None:
        """Add *parts* that are to be sent alone: one may crash the upstream."""
        for part in parts:
            self.admission.enter(part)
            part.on_cancel = self._drop
            self._parts.append(part)

    def take(self) -> Part:
        """Remove and return the part that is next."""
        part = self._parts.popleft()
        self.admission.leave((part,))
        return part

    def take_if(self, is_taken: Callable[[Part], bool]) -> list[Part]:
        """Remove and return those parts for which *is_taken* is true."""
        taken = [part for part in self._parts if is_taken(part)]
        for part in taken:
            self._parts.remove(part)
        self.admission.leave(taken)
        return taken

    def _drop(self, part: Part) -> None:
        self._parts.remove(part)
        self.admission.leave((part,))
        self.on_change()
