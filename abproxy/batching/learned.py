"""
Lessons of failed requests: how much fits into one, and who sends bad calls.

All of it is kept for a while only, and forgotten when the upstream is another.
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from math import inf

from attrs import define, evolve, field, frozen
from twisted.internet.interfaces import IReactorTime

from abproxy.batching.part import ANY_NUMBER, Caps, Part
from abproxy.dialects.call import Call, LaneKey

__all__ = ["KEPT_S", "LearnedCaps", "Offenders"]

KEPT_S = 600.0
"""How long what was learned counts, or until it is put to the test again."""

MOST_OFFENDERS, MOST_LANES, MOST_ROUTES = 1000, 1000, 100
"""Senders or items, lanes, and routes with their queries, that are kept in mind."""

OFTEN = 2
"""Bad calls within `KEPT_S` after which a sender's calls are sent alone."""

TOLERATED, CLEAN = 2, 16
"""
Requests with a bad call after which fewer share one, and then:

Requests without a bad call after which twice as many calls share one.

If one of n calls is bad, about n / 23 share a request then, and searches cost few
requests; if every second one is bad, each goes alone, as it would without us.
"""

GOOD_AGAIN = 8
"""
Good calls in a row after which they are not: they had been sent alone for nothing.

What is one sender to us may be many clients, of whom one sends a bad call now and
then: behind a proxy that keeps its connections, or with a key for all of them.
"""

SEEN_LATELY_S, SIMILAR = 10.0, 1.5
"""
For how long a request that passed speaks against a limit on what it had.

And by what factor the bytes of the one that failed may be more.
"""


@define(eq=False)
class _RouteLimit:
    """The number of items that a request on one route may have."""

    items: int
    too_many: int
    """The fewest items that were refused."""

    passed: int
    """The most that were not, before the last step up."""

    kept_s: float
    """For how long it counts until more is tried."""

    next_step_at: float


@define(eq=False)
class _Sharing:
    """The number of calls of one lane that share a request, as some of them fail."""

    until: float
    calls: float = field(init=False, default=inf)
    bad: int = field(init=False, default=0)
    """How many requests had a bad call."""

    clean: int = field(init=False, default=0)
    """How many in a row had none since."""


@define(eq=False)
class _Passed:
    """A large shared request that succeeded."""

    items: int
    size: int
    at: float


@frozen
class _Refused:
    """A request that was refused, perhaps for its size."""

    items: int
    size: int

    @property
    def half(self) -> int:
        """Return how many items the next one may have."""
        return max(self.items // 2, 1)


@define(eq=False)
class LearnedCaps:
    """The caps on each route of one upstream that are below those it states."""

    clock: IReactorTime = field(repr=False)

    on_change: Callable[[], None] = field(repr=False)
    """Called when other caps apply than before."""

    on_lane_change: Callable[[LaneKey], None] = field(repr=False)
    """Called when they do for one lane only."""

    is_any: bool = field(init=False, default=False)
    """Whether anything was learned: without that there is nothing to apply."""

    _limits: dict[bytes, _RouteLimit] = field(init=False, factory=dict)
    _alone_until: dict[bytes, float] = field(init=False, factory=dict)
    _less: dict[bytes, _Refused] = field(init=False, factory=dict)
    """The last refusal that may be due to size: half as much is tried next."""

    _doubted: set[bytes] = field(init=False, factory=set)
    """Routes of which the last request was refused, though as much passed lately."""

    _sharing: "OrderedDict[int, _Sharing]" = field(init=False, factory=OrderedDict)
    """By the hash of a lane's key, as a key is as long as its client likes."""

    _largest: "OrderedDict[bytes, _Passed]" = field(init=False, factory=OrderedDict)
    _next_change_at: float = field(init=False, default=inf)

    def apply(self, key: LaneKey, caps: Caps) -> Caps:
        """Return what fits into a batch of the lane with *key*."""
        if self.is_alone(key.path):
            return Caps(calls=1, items=ANY_NUMBER, size=ANY_NUMBER)
        if key.one_by_one:
            return evolve(caps, calls=1)
        sharing = self._sharing.get(hash(key)) if self._sharing else None
        if sharing is not None:
            caps = evolve(caps, calls=int(min(caps.calls, sharing.calls)))
        if key.path in self._less:
            caps = evolve(caps, items=min(caps.items, self._less[key.path].half))
        limit = self._limits.get(key.path)
        if limit is None:
            return caps
        return evolve(caps, items=min(caps.items, limit.items))

    def refresh(self, caps: Caps) -> None:
        """Raise what was learned long ago and is less than *caps*, to test it again."""
        now = self.clock.seconds()
        if now < self._next_change_at:
            return
        for path, until in list(self._alone_until.items()):
            if now >= until:
                del self._alone_until[path]
        for path, limit in list(self._limits.items()):
            if now >= limit.next_step_at:
                self._step_up(path, limit, caps)
        for lane, sharing in list(self._sharing.items()):
            if now >= sharing.until:
                del self._sharing[lane]
        self._apply()

    def passed(self, parts: Sequence[Part], caps: Caps) -> None:
        """Note that a request with *parts* passed, where at most *caps* may."""
        key = parts[0].call.lane_key
        items = sum([len(part.items) for part in parts])
        self._passed(key.path, items, sum([part.size for part in parts]))
        self._had_none(key, len(parts), caps.calls)

    def _passed(self, path: bytes, items: int, size: int) -> None:
        now, largest = self.clock.seconds(), self._largest.get(path)
        if (
            largest is None
            or now - largest.at >= SEEN_LATELY_S
            or (items >= largest.items and size >= largest.size)
        ):
            self._largest[path] = _Passed(items, size, now)
            if len(self._largest) > MOST_ROUTES:
                self._largest.popitem(last=False)
        self._doubted.discard(path)
        limit = self._limits.get(path)
        is_wrong = limit is not None and items >= limit.too_many
        if is_wrong:
            del self._limits[path]
        if is_wrong:
            self._apply()
        less = self._less.get(path)
        if less is not None and 2 * items > less.half:
            del self._less[path]
            self._apply()
            if items <= less.half:
                self.too_many_items(path, less.items, less.size, items, SEEN_LATELY_S)

    def had_bad(self, key: LaneKey, most: int) -> None:
        """Note that a request of one lane had bad calls; of *most* few would have."""
        until = self.clock.seconds() + KEPT_S
        known = self._sharing.pop(hash(key), None) or _Sharing(until)
        self._sharing[hash(key)] = known
        if len(self._sharing) > MOST_LANES:
            self._sharing.popitem(last=False)
        self._next_change_at = min(self._next_change_at, until)
        self.is_any = True
        known.bad += 1
        known.clean = 0
        if known.bad > TOLERATED:
            known.calls, known.until = min(known.calls, max(most, 1)), until
            self.on_lane_change(key)

    def had_bad_alone(self, key: LaneKey) -> None:
        """Note that a call was bad that was sent alone."""
        known = self._sharing.get(hash(key))
        if known is not None:
            known.clean = 0

    def _had_none(self, key: LaneKey, calls: int, most: int) -> None:
        known = self._sharing.get(hash(key))
        is_small = known is not None and known.calls < inf and 2 * calls < known.calls
        if known is None or is_small:
            return
        known.clean += 1
        if known.clean < CLEAN:
            return
        known.calls, known.clean = 2 * known.calls, 0
        if known.calls >= most:
            del self._sharing[hash(key)]
        self.on_lane_change(key)

    def too_many_items(
        self,
        path: bytes,
        refused: int,
        size: int,
        passed: int,
        kept_s: float = KEPT_S,
    ) -> None:
        """
        Note that *refused* items were too many for one request, and *passed* not.

        One step up is tried every `KEPT_S`: halfway to what was refused.  What is
        less certain is *kept_s* at first, and then put to the test as a whole.  Where
        as many passed lately, as large as these, the failure had another cause.
        """
        if self._passes(path, refused, size):
            return
        now, known = self.clock.seconds(), self._limits.get(path)
        if known is not None:
            passed = max(n for n in (passed, known.passed, known.items) if n < refused)
            kept_s = max(kept_s, known.kept_s)
        self._limits[path] = _RouteLimit(
            items=max(passed, 1),
            too_many=refused,
            passed=max(passed, 1),
            kept_s=kept_s,
            next_step_at=now + kept_s,
        )
        if len(self._limits) > MOST_ROUTES:
            del self._limits[next(iter(self._limits))]
        self._apply()

    def _passes(self, path: bytes, items: int, size: int) -> bool:
        """Return whether as many *items* passed lately, about as large."""
        largest = self._largest.get(path)
        return (
            largest is not None
            and self.clock.seconds() - largest.at < SEEN_LATELY_S
            and largest.items >= items
            and largest.size * SIMILAR >= size
        )

    def try_less(self, path: bytes, items: int, size: int) -> None:
        """
        Halve the next requests, compared with one of so many *items*.

        If one about so large passes, the size was the cause, and is learned.  Where
        as many passed lately, that is tried after a second refusal only: less in each
        makes more requests, of which there may be too many already.
        """
        if self._passes(path, items, size) and path not in self._doubted:
            self._doubted.add(path)
            return
        self._less[path] = _Refused(items, size)
        if len(self._less) > MOST_ROUTES:
            del self._less[next(iter(self._less))]
        self._apply()

    def cannot_be_split(self, path: bytes) -> None:
        """Note that answers on a route cannot be split, whatever the items are."""
        self._alone_until[path] = self.clock.seconds() + KEPT_S
        if len(self._alone_until) > MOST_ROUTES:
            del self._alone_until[next(iter(self._alone_until))]
        self._apply()

    def forget(self) -> None:
        """Forget all: the upstream, or its model, is another."""
        self._limits.clear()
        self._alone_until.clear()
        self._less.clear()
        self._doubted.clear()
        self._largest.clear()
        self._sharing.clear()
        self.is_any = False

    def _apply(self) -> None:
        changes = [limit.next_step_at for limit in self._limits.values()]
        changes += self._alone_until.values()
        changes += [sharing.until for sharing in self._sharing.values()]
        self._next_change_at = min(changes, default=inf)
        self.is_any = bool(changes or self._less)
        self.on_change()

    def is_alone(self, path: bytes) -> bool:
        """Return whether calls on a route go alone, as answers cannot be split."""
        return self.clock.seconds() < self._alone_until.get(path, 0.0)

    def _step_up(self, path: bytes, limit: _RouteLimit, caps: Caps) -> None:
        limit.passed = limit.items
        if limit.kept_s < KEPT_S:
            limit.items = max(limit.too_many, limit.items)
            limit.kept_s = min(2 * limit.kept_s, KEPT_S)
            limit.next_step_at = self.clock.seconds() + limit.kept_s
            return
        limit.items = max((limit.items + limit.too_many) // 2, limit.items)
        if limit.items + 1 >= limit.too_many:
            limit.too_many = 2 * limit.too_many  # it may have grown since
        limit.next_step_at = self.clock.seconds() + KEPT_S
        if limit.items >= caps.items:
            del self._limits[path]


@define(eq=False)
class _Sender:
    """A sender of calls that failed."""

    count: int
    until: float
    good: int = field(init=False, default=0)
    """How many good calls followed in a row, each sent alone."""


@define(eq=False)
class Offenders:
    """Senders of bad calls, and bad items, of the last ten minutes."""

    clock: IReactorTime = field(repr=False)
    is_any: bool = field(init=False, default=False)
    """Whether there were any: without that no call is suspected."""

    _senders: "OrderedDict[int, _Sender]" = field(
        init=False, factory=OrderedDict, repr=False
    )
    """By hash, as for items: keys may be long, and are not to be kept."""

    _items: "OrderedDict[int, float]" = field(
        init=False, factory=OrderedDict, repr=False
    )

    def note(self, part: Part) -> None:
        """Note that *part* failed alone, where others on its lane did not."""
        self.is_any = True
        now, sender = self.clock.seconds(), part.call.sender
        if sender is not None:
            known = self._senders.pop(hash(sender), None)
            count = known.count if known is not None and known.until > now else 0
            self._senders[hash(sender)] = _Sender(count + 1, now + KEPT_S)
        if len(part.items) == 1:
            self._items[hash(part.items[0])] = now + KEPT_S
        for kept in (self._senders, self._items):
            if len(kept) > MOST_OFFENDERS:
                kept.popitem(last=False)

    def note_good(self, part: Part) -> None:
        """Note that *part*, which was sent alone because of these, is a good one."""
        for item in part.items:
            self._items.pop(hash(item), None)
        known = self._senders.get(hash(part.call.sender))
        if known is not None:
            known.good += 1
            if known.good >= GOOD_AGAIN:
                del self._senders[hash(part.call.sender)]

    def suspects(self, call: Call) -> bool:
        """Return whether *call* should be sent alone, so that no other pays for it."""
        now = self.clock.seconds()
        known = self._senders.get(hash(call.sender))
        if known is not None and known.count >= OFTEN and now < known.until:
            return True
        if not self._items:
            return False
        return any(self._items.get(hash(item), 0.0) > now for item in call.items.raw)

    def forget(self) -> None:
        """Forget all: for another model other calls are bad."""
        self._senders.clear()
        self._items.clear()
        self.is_any = False
