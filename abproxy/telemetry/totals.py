"""
What has happened since the start, in plain numbers, and in the last hour.

Numbers only grow.  What happened lately is the difference to a copy that was
put aside; one is put aside every minute in which something happens, or somebody
looks.
"""

from collections import deque
from collections.abc import Callable

import attrs
from attrs import define, field

__all__ = ["Totals", "Window"]

COPY_EVERY_S = 60.0
"""How old the latest copy is before another is put aside, in seconds."""

ENOUGH_BATCHES = 20
"""Fewer batches of a kind give no figure for it."""

LATELY_S = 3600.0
"""How far the past is remembered, in seconds."""


@define(kw_only=True)
class Totals:
    """Counts and sums of seconds, since the start or over a time."""

    at: float = 0.0
    """When these numbers were true, or over how many seconds they were counted."""

    cpu_s: float = 0.0
    """CPU time of this process."""

    calls: int = 0
    """Batched calls that are over, answered or not."""

    errors: int = 0
    """Those of them that were answered with a status of 400 or more."""

    relayed: int = 0
    refused: int = 0
    refused_for_room: int = 0
    """Those of them for whom there was no room to wait."""

    failed: int = 0
    cancelled: int = 0
    parts: int = 0
    """Calls, or parts of large ones, that left."""

    items: int = 0
    size: int = 0
    """Bytes of these items."""

    batches: int = 0
    full: int = 0
    """Batches that were full when they left."""

    wait_s: float = 0.0
    """How long the parts had waited, added up."""

    requests: int = 0
    """Requests to the upstream, with those that find a bad input or try again."""

    alone_batches: int = 0
    alone_items: int = 0
    alone_s: float = 0.0
    """
    The upstream's time for batches of one part.

    Where several requests were in flight at once, each is charged its share.
    """

    shared_batches: int = 0
    shared_items: int = 0
    shared_s: float = 0.0
    """The same for batches of several parts."""

    kept_by_slot_s: float = 0.0
    """How long a batch was ready, and no slot free."""

    kept_by_budget_s: float = 0.0
    kept_by_upstream_s: float = 0.0

    crowded_out: int = 0
    """Batches of one call that left while others waited who could not share it."""

    crowded_out_by_key: int = 0
    """Those of them that went with the client's own credentials."""

    @property
    def calls_per_request(self) -> float:
        """How many calls, or parts of large ones, a request carried."""
        return self.parts / max(1, self.requests)

    @property
    def cpu_s_per_call(self) -> float:
        """What a call has cost in CPU time, relayed ones among them."""
        return self.cpu_s / max(1, self.calls + self.relayed)

    @property
    def alone_ms_per_item(self) -> float | None:
        """The upstream's time for an input in a request of one call."""
        if self.alone_batches < ENOUGH_BATCHES:
            return None
        return 1000 * self.alone_s / self.alone_items

    @property
    def shared_ms_per_item(self) -> float | None:
        """The upstream's time for an input in a request of several calls."""
        if self.shared_batches < ENOUGH_BATCHES:
            return None
        return 1000 * self.shared_s / self.shared_items

    def share_of_time(self, seconds: float) -> float:
        """Say which share of the whole time *seconds* are."""
        return seconds / self.at if self.at > 0 else 0.0

    def minus(self, earlier: "Totals") -> "Totals":
        """What has happened since *earlier*."""
        names = [each.name for each in attrs.fields(Totals)]
        since = {name: getattr(self, name) - getattr(earlier, name) for name in names}
        return Totals(**since)


@define(kw_only=True, eq=False)
class Window:
    """The copies that were put aside, the oldest first."""

    now: Callable[[], Totals] = field(repr=False)
    """Say what the numbers are now."""

    _next_at: float = field(init=False, default=0.0)
    """Until then there is nothing to note."""

    _copies: deque[Totals] = field(init=False, factory=deque, repr=False)

    def __attrs_post_init__(self) -> None:
        """Begin with what the numbers are."""
        self._copies.append(self.now())

    def note(self, at: float) -> None:
        """Something is going to happen *at* this moment."""
        if at < self._next_at:
            return
        if at - self._copies[-1].at >= COPY_EVERY_S:
            self._copies.append(self.now())
        # What came after so old a copy came within a minute, or after the next.
        too_old = at - LATELY_S - COPY_EVERY_S
        while self._copies[0].at <= too_old:
            self._copies.popleft()
        self._next_at = min(
            self._copies[-1].at + COPY_EVERY_S,
            self._copies[0].at + LATELY_S + COPY_EVERY_S,
        )

    def lately(self) -> Totals:
        """What has happened in the last hour, or since it began if that is less."""
        self.note(self.now().at)
        return self.now().minus(self._copies[0])
