"""
Equal items that wait or are in flight are computed once.

Calls share an item if it is equal byte for byte and they are in one lane, so that
they would have been sent in the same request anyway.  The first one that asks for
it computes it; a call that asks for it meanwhile follows, whatever else it asks for.
A caller that leaves takes nothing from the others; the last one cancels the work.

A failure is not shared.  Calls that followed are sent as their clients wrote them:
first one that asked for exactly the same.  If it gets the same answer byte for byte,
the answer is that of all that asked for the same; all others are sent by themselves.
"""

from collections.abc import Callable, Sequence

from attrs import define, field
from msgspec.structs import replace
from twisted.internet.defer import (
    CancelledError,
    Deferred,
    DeferredSemaphore,
    maybeDeferred,
    succeed,
)
from twisted.python.failure import Failure

from abproxy.batching.part import Waiter
from abproxy.dialects.call import (
    BadAnswer,
    Call,
    LaneKey,
    MayJoin,
    PartResult,
    may_join_all,
)
from abproxy.dialects.reply import lines_of_all
from abproxy.events import Observer
from abproxy.http.messages import Response
from abproxy.reuse.repeats import NOT_SAMPLED, Repeats
from abproxy.reuse.rows import Submit, has_rows, joined, only, rows_of, span

__all__ = ["InFlight"]

Outcome = list[PartResult] | Failure

MAX_HELD_BYTES = 16 << 20
"""
The bodies of all calls that follow others, together.

They wait without a place in the queue, so no other limit counts them; a call for
which there is no room is computed as if nothing were in flight.
"""

AT_ONCE = 4
"""So many of those whose shared work has failed are sent at the same time."""


def _followable(results: Deferred[list[PartResult]]) -> Waiter:
    """Return what others may follow, whatever else is done with *results*."""
    waiter = Waiter(lambda _waiter: results.cancel())
    results.addBoth(waiter.fire)
    return waiter


def _ignore(_size: int) -> None:
    """Do nothing."""


@define(eq=False, slots=True)
class _Follower:
    """A call that waits for work of others, and perhaps for work of its own."""

    call: Call
    rows: dict[bytes, PartResult]
    works: list[Waiter]
    """What it still waits for."""

    pieces: int = 0
    """From how many works it has rows."""

    waiter: Deferred[list[PartResult]] = field(init=False)
    on_end: Callable[[int], None] = _ignore
    """Called with the size of its body when its caller has left, or is answered."""

    alone: Deferred[list[PartResult]] | None = None
    """Its own results, once it goes on by itself."""

    @waiter.default
    def _make_waiter(self) -> Deferred[list[PartResult]]:
        waiter: Deferred[list[PartResult]] = Deferred(self._cancel)
        return waiter.addBoth(self._end)

    def _end(self, outcome: Outcome) -> Outcome:
        self.on_end(len(self.call.alone.body))
        return outcome

    def _cancel(self, _waiter: Deferred[list[PartResult]]) -> None:
        self.abandon()
        if self.alone is not None:
            self.alone.cancel()

    def abandon(self) -> None:
        """Stop waiting for other calls' work."""
        works, self.works = self.works, []
        for work in works:
            if not work.followers or self not in work.followers:
                continue
            work.followers.remove(self)
            if work.called and not work.followers:
                work.give_up()

    def take(self, work: Waiter, rows: dict[bytes, PartResult]) -> None:
        """Add the *rows* of a *work* that is done."""
        self.works.remove(work)
        self.pieces += 1
        for item in self.call.items.raw:
            if item in rows and item not in self.rows:
                self.rows[item] = rows[item]

    def go_on(
        self, alone: Deferred[list[PartResult]]
    ) -> Deferred[list[PartResult] | None]:
        """Answer with what *alone* fires with; fires with that, or None if it fails."""

        def ended(outcome: Outcome) -> list[PartResult] | None:
            self.finish(outcome)
            return None if isinstance(outcome, Failure) else outcome

        self.alone = alone
        return alone.addBoth(ended)

    def finish(self, outcome: Outcome) -> None:
        """Answer with what the call got by itself, or what was found to be the same."""
        if not self.waiter.called:
            self.waiter.callback(outcome)

    @property
    def is_over(self) -> bool:
        """Return whether its caller has left, or is answered."""
        return bool(self.waiter.called)


@define(kw_only=True, eq=False)
class InFlight:
    """The items that wait or are in flight, by lane."""

    compute: Submit = field(repr=False)
    repeats: Repeats = field(factory=Repeats, repr=False)
    observer: Observer = field(factory=Observer, repr=False)
    is_of_collector: bool = False
    """Whether *compute* returns waiters of the collector, which others may follow."""

    may_join: MayJoin = field(default=may_join_all, repr=False)

    held_bytes: int = field(init=False, default=0)
    """The bodies of the calls that follow others."""

    _works: dict[tuple[LaneKey, bytes], Waiter] = field(
        init=False, factory=dict, repr=False
    )

    @property
    def items(self) -> int:
        """Return how many items are being computed that others may share."""
        return len(self._works)

    def forget(self) -> None:
        """Stop later calls from following what is in flight: the model has changed."""
        self._works.clear()

    def submit(self, call: Call) -> Deferred[list[PartResult]]:
        """
        Compute what is not being computed of *call*; fires with its results.

        Raises:
            Overloaded: there is no room for it.
        """
        lane, items = call.lane_key, call.items.raw
        if lane.serial or not call.may_be_known:
            return self.compute(call)
        if len(items) > 1:
            return self._submit_several(call)
        key = lane, items[0]
        if not hash(key) & NOT_SAMPLED:
            self._sample(hash(key))
        work = self._works.get(key)
        if work is not None and work.on_end is not None:
            return self._follow(call, {work}, ())
        results = self.compute(call)
        if results.called:
            return results
        if self.is_of_collector and isinstance(results, Waiter):
            started = results
        else:
            started = _followable(results)
        started.call, started.on_end = call, self._done
        self._works[key] = started
        return started

    def _sample(self, item: int) -> None:
        self.observer.sampled(is_repeated=self.repeats.note(item))

    def _submit_several(self, call: Call) -> Deferred[list[PartResult]]:
        lane, works = call.lane_key, self._works
        places: dict[bytes, int] = {}
        shared: set[Waiter] = set()
        for place, item in enumerate(call.items.raw):
            key = lane, item
            if not hash(key) & NOT_SAMPLED:
                self._sample(hash(key))
            work = works.get(key)
            if work is not None and work.on_end is not None:
                shared.add(work)
            else:
                places.setdefault(item, place)
        if len(places) < len(call.items.raw):
            return self._follow(call, shared, tuple(places.values()))
        results = self.compute(call)
        return results if results.called else self._begin(call, results)

    def _follow(
        self, call: Call, shared: set[Waiter], places: Sequence[int]
    ) -> Deferred[list[PartResult]]:
        """Compute what is at *places* of *call*; the rest comes from *shared* work."""
        size = len(call.alone.body)
        if self.held_bytes + size > MAX_HELD_BYTES:
            return self.compute(call)
        own = [Waiter()] if places else []
        follower = _Follower(call, {}, [*shared, *own], on_end=self._release)
        self.held_bytes += size
        for work in shared:
            work.followers = [*(work.followers or ()), follower]
        if places:
            self._compute_rest(only(call, places), follower, own[0])
        others = [work.call.trace for work in shared]
        known = len(call.items.raw) - len(places)
        self.observer.reused("in_flight", known, call.trace, others)
        return follower.waiter

    def _release(self, size: int) -> None:
        self.held_bytes -= size

    def _compute_rest(self, rest: Call, follower: _Follower, place: Waiter) -> None:
        """Compute what no other work has of the call of *follower*, in its *place*."""
        # It may fill a batch, and so end the work of others before it returns.
        try:
            results = self.compute(rest)
        except Exception:
            follower.abandon()
            self._release(len(follower.call.alone.body))
            raise
        if place not in follower.works:
            results.addErrback(lambda failure: failure.trap(CancelledError))
            results.cancel()
            return
        work = Waiter(lambda _work: results.cancel())
        work.followers = [follower]
        work.addErrback(lambda failure: failure.trap(CancelledError))
        work.cancel()  # it is the call of no client
        follower.works[follower.works.index(place)] = work
        self._register(rest, work)
        results.addBoth(work.fire)

    def _begin(self, call: Call, results: Deferred[list[PartResult]]) -> Waiter:
        """Compute *call*, which others can follow from now on."""
        if self.is_of_collector and isinstance(results, Waiter):
            work = results
        else:
            work = _followable(results)
        self._register(call, work)
        return work

    def _register(self, call: Call, work: Waiter) -> None:
        work.call, work.on_end = call, self._done
        lane, works = call.lane_key, self._works
        for item in call.items.raw:
            works[lane, item] = work

    def _done(self, work: Waiter, outcome: Outcome) -> None:
        call, works = work.call, self._works
        lane = call.lane_key
        for item in call.items.raw:
            if works.get((lane, item)) is work:
                del works[lane, item]
        followers, work.followers = work.followers, None
        if followers:
            self._tell(followers, work, outcome)

    def _tell(
        self,
        followers: list[_Follower],
        work: Waiter,
        outcome: Outcome,
    ) -> None:
        try:
            if not isinstance(outcome, Failure) and has_rows(outcome):
                own = rows_of(work.call, outcome)
                rows = dict(zip(work.call.items.raw, own, strict=True))
                self._hand_out(followers, work, rows)
                return
        except BadAnswer:
            pass  # as any other answer that is of no use for them
        waiting = [each for each in followers if not each.is_over]
        for follower in waiting:
            follower.works.remove(work)
            follower.abandon()
        _Undone(compute=self.compute).send(waiting, work.call, outcome)

    def _hand_out(
        self, followers: list[_Follower], work: Waiter, rows: dict[bytes, PartResult]
    ) -> None:
        for follower in followers:
            if follower.is_over:
                continue
            follower.take(work, rows)
            if follower.works:
                continue
            results = span(follower.call, follower.rows)
            if follower.pieces == 1:
                follower.finish(results)
            else:
                follower.go_on(
                    joined(follower.call, results, self.may_join, self._compute)
                )

    def _compute(self, call: Call) -> Deferred[list[PartResult]]:
        return maybeDeferred(self.compute, call)


@define(kw_only=True, eq=False)
class _Undone:
    """The followers of work that has failed, until each has an outcome of its own."""

    compute: Submit = field(repr=False)
    _room: DeferredSemaphore = field(
        init=False, factory=lambda: DeferredSemaphore(AT_ONCE), repr=False
    )

    def send(self, followers: list[_Follower], call: Call, outcome: Outcome) -> None:
        """Send the *followers* by themselves, after the *outcome* of *call*."""
        if isinstance(outcome, Failure):
            # It says nothing about any item, so they may as well share a batch.
            for follower in followers:
                self._send(follower)
            return
        same = [each for each in followers if _asks_the_same(each.call, call)]
        for follower in followers:
            if follower not in same:
                self._send_in_turn(follower)
        if same:
            self._probe(same, outcome[0].response)

    def _probe(self, same: list[_Follower], answer: Response) -> None:
        """Send the first of the *same*; all get what it gets if that is *answer*."""
        probe, *others = same

        def answered(results: list[PartResult] | None) -> None:
            if results is None or not _is_answer(results, answer):
                for each in others:
                    self._send_in_turn(each)
                return
            response = results[0].response
            for_all = replace(response, headers=lines_of_all(response))
            for each in others:
                each.finish([PartResult(response=for_all)])

        self._send(probe).addCallback(answered)

    def _send_in_turn(self, follower: _Follower) -> None:
        self._room.run(self._send, follower)

    def _send(self, follower: _Follower) -> Deferred[list[PartResult] | None]:
        """Send one by itself; fires with its results, or None if there are none."""
        if follower.is_over:
            return succeed(None)

        return follower.go_on(maybeDeferred(self.compute, follower.call))


def _asks_the_same(one: Call, other: Call) -> bool:
    """Return whether two calls of one lane are the same question."""
    a, b = one.items, other.items
    return a.raw == b.raw and a.is_list == b.is_list


def _is_answer(results: Sequence[PartResult], answer: Response) -> bool:
    """Return whether *results* are the refusal *answer*, byte for byte."""
    found = results[0].response
    return (
        not has_rows(results)
        and found.status == answer.status
        and found.body == answer.body
    )
