"""
Lessons of failed requests: how much fits into one, and who sends bad calls.

All of it is kept for a while only, and forgotten when the upstream is another.
How many requests more may be sent to find that out is counted here as well.
"""

import sys
from collections import OrderedDict
from collections.abc import Callable, Hashable

from attrs import define, evolve, field
from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import deferLater

from abproxy.batching.part import Caps, Part
from abproxy.dialects.call import Call, LaneKey

__all__ = ["KEPT_S", "ExtraRequests", "LearnedCaps", "Offenders"]

KEPT_S = 600.0
"""How long what was learned counts, or until it is put to the test again."""

MOST_OFFENDERS = 1000
"""Senders and items that are kept in mind."""

OFTEN = 2
"""Bad calls within `KEPT_S` after which a sender's calls are sent alone."""


@define(eq=False)
class _RouteLimit:
    """The number of items that a request on one route may have."""

    items: int
    too_many: int
    """The fewest items that were refused."""

    next_step_at: float


@define(eq=False)
class LearnedCaps:
    """What fits into a request on each route of one upstream, where less than said."""

    clock: IReactorTime = field(repr=False)

    on_change: Callable[[], None] = field(repr=False)
    """Called when other caps apply than before."""

    is_any: bool = field(init=False, default=False)
    """Whether anything was learned: without that there is nothing to apply."""

    _limits: dict[bytes, _RouteLimit] = field(init=False, factory=dict)
    _alone_until: dict[bytes, float] = field(init=False, factory=dict)
    _less: dict[bytes, int] = field(init=False, factory=dict)
    """How many items are tried next, after a refusal that may be due to size."""

    def apply(self, key: LaneKey, caps: Caps) -> Caps:
        """Return what fits into a batch of the lane with *key*."""
        if self.is_alone(key.path):
            return Caps(calls=1, items=sys.maxsize, size=sys.maxsize)
        if key.one_by_one:
            return evolve(caps, calls=1)
        if key.path in self._less:
            caps = evolve(caps, items=min(caps.items, self._less[key.path]))
        limit = self._limits.get(key.path)
        if limit is None:
            return caps
        if self.clock.seconds() >= limit.next_step_at:
            self._step_up(key.path, limit, caps)
        return evolve(caps, items=min(caps.items, limit.items))

    def too_many_items(self, path: bytes, refused: int, passed: int) -> None:
        """
        Note that *refused* items were too many for one request, and *passed* not.

        One step up is tried every `KEPT_S`: halfway to what was refused.
        """
        known = self._limits.get(path)
        if known is not None and known.items < refused:
            passed = max(passed, min(known.items, refused - 1))
        self._limits[path] = _RouteLimit(
            items=max(passed, 1),
            too_many=refused,
            next_step_at=self.clock.seconds() + KEPT_S,
        )
        self.is_any = True
        self.on_change()

    def try_less(self, path: bytes, items: int) -> None:
        """Let the next requests have so many *items* at most, until one passes."""
        self._less[path] = max(items, 1)
        self.is_any = True
        self.on_change()

    def passed(self, path: bytes) -> None:
        """Note that a request has passed: it need not be less any more."""
        if self._less.pop(path, None) is not None:
            self.on_change()

    def cannot_be_split(self, path: bytes) -> None:
        """Note that answers on a route cannot be split, whatever the items are."""
        self._alone_until[path] = self.clock.seconds() + KEPT_S
        self.is_any = True
        self.on_change()

    def forget(self) -> None:
        """Forget all: the upstream, or its model, is another."""
        self._limits.clear()
        self._alone_until.clear()
        self._less.clear()
        self.is_any = False

    def describe(self) -> list[dict[str, object]]:
        """Return what applies now, for the status page."""
        limits: list[dict[str, object]] = [
            {"route": path.decode(), "max_items": limit.items, "is_alone": False}
            for path, limit in self._limits.items()
        ]
        alone: list[dict[str, object]] = [
            {"route": path.decode(), "max_items": None, "is_alone": True}
            for path in list(self._alone_until)
            if self.is_alone(path)
        ]
        return [*limits, *alone]

    def is_alone(self, path: bytes) -> bool:
        """Return whether calls on a route are sent alone, and whole."""
        until = self._alone_until.get(path)
        if until is None:
            return False
        if self.clock.seconds() < until:
            return True
        del self._alone_until[path]
        self.on_change()
        return False

    def _step_up(self, path: bytes, limit: _RouteLimit, caps: Caps) -> None:
        limit.items = max((limit.items + limit.too_many) // 2, limit.items)
        if limit.items + 1 >= limit.too_many:
            limit.too_many = 2 * limit.too_many  # it may have grown since
        limit.next_step_at = self.clock.seconds() + KEPT_S
        if limit.items >= caps.items:
            del self._limits[path]
        self.on_change()


@define(eq=False)
class Offenders:
    """Senders of bad calls, and bad items, of the last ten minutes."""

    clock: IReactorTime = field(repr=False)
    is_any: bool = field(init=False, default=False)
    """Whether there were any: without that no call is suspected."""

    _senders: "OrderedDict[Hashable, tuple[int, float]]" = field(
        init=False, factory=OrderedDict, repr=False
    )
    _items: "OrderedDict[int, float]" = field(
        init=False, factory=OrderedDict, repr=False
    )

    def note(self, part: Part) -> None:
        """Note that *part* failed alone, where others on its lane did not."""
        self.is_any = True
        now = self.clock.seconds()
        count, _ = self._senders.pop(part.call.sender, (0, 0.0))
        if part.call.sender is not None:
            self._senders[part.call.sender] = (count + 1, now + KEPT_S)
        if len(part.items) == 1:
            self._items[hash(part.items[0])] = now + KEPT_S
        for known in (self._senders, self._items):
            if len(known) > MOST_OFFENDERS:
                known.popitem(last=False)

    def suspects(self, call: Call) -> bool:
        """Return whether *call* should be sent alone, so that no other pays for it."""
        now = self.clock.seconds()
        count, until = self._senders.get(call.sender, (0, 0.0))
        if count >= OFTEN and now < until:
            return True
        return any(self._items.get(hash(item), 0.0) > now for item in call.items.raw)

    def forget(self) -> None:
        """Forget all: for another model other calls are bad."""
        self._senders.clear()
        self._items.clear()
        self.is_any = False


WINDOW_S = 10.0
ALWAYS_FREE = 10
SHARE = 0.2
"""Of the requests of the last ten seconds, these may be extra without a pause."""

PAUSE_S, LONGEST_PAUSE_S = 0.1, 1.0
"""How far apart extra requests are beyond that, and how long one waits at most."""


@define(eq=False)
class ExtraRequests:
    """Paces requests that look for the cause of a failure."""

    clock: IReactorTime = field(repr=False)

    requests: int = field(init=False, default=0)
    """How many were sent that are no extra ones; their sender counts them."""

    _seen: list[tuple[float, int]] = field(init=False, factory=list)
    """How many there had been when extra ones were sent."""

    _next_at: float = field(init=False, default=0.0)

    async def wait_for_turn(self) -> None:
        """Return when one more extra request may be sent."""
        now = self.clock.seconds()
        self._seen = [(at, n) for at, n in self._seen if at > now - WINDOW_S]
        lately = self.requests - self._seen[0][1] if self._seen else 0
        is_free = len(self._seen) < max(ALWAYS_FREE, SHARE * lately)
        self._seen.append((now, self.requests))
        if is_free:
            return
        after = max(self._next_at, now) + PAUSE_S
        self._next_at = min(after, now + LONGEST_PAUSE_S)
        await deferLater(self.clock, self._next_at - now)
