"""How many batches that are not full may be in flight, as the stay of calls says."""

from heapq import heappop, heappush
from itertools import count
from math import exp

import pytest
from attrs import define, field

from abproxy.batching.hold import Hold
from abproxy.batching.ladder import FIRST, LEAST_CALLS, RUNGS, TOP, Ladder
from abproxy.batching.slots import FixedSlots, LearnedSlots, Load, make_slots
from support.batching import Harness, Outcome, call_of, harness, texts


@define(eq=False)
class Looks(Ladder):
    """A ladder that only notes what it is told."""

    stays: list[float] = field(factory=list)
    tell: list[tuple[bool, bool]] = field(factory=list)

    def look(self, stay: float, *, binds: bool, may_leap: bool) -> None:
        """Note a look."""
        self.stays.append(exp(stay))
        self.tell.append((binds, may_leap))


ONE = Load(items=1, slot=True, lane="lane", callers=1)


def one_by_one(
    slots: LearnedSlots, calls: int, *, took_s: float, every_s: float, begins: float = 0
) -> None:
    """Let calls come at a rate, and each be answered by itself."""
    events = [(begins + at * every_s, True) for at in range(calls)]
    events += [(at + took_s, False) for at, _ in events]
    here = 0
    for now, comes in sorted(events):
        here += 1 if comes else -1
        if comes:
            slots.arrived(now, here, "lane")
        else:
            slots.answered(now, here, here, ONE, took_s)


def test_the_mean_stay_of_calls_is_measured() -> None:
    """That of those that overlap as well."""
    ladder = Looks()

    one_by_one(LearnedSlots(ladder=ladder), 1000, took_s=0.35, every_s=0.1)

    assert len(ladder.stays) > 10
    assert all(abs(stay - 0.35) < 0.02 for stay in ladder.stays[1:])


def test_nothing_stays_while_nothing_is_here() -> None:
    """A load with long pauses has short stays."""
    ladder = Looks()

    one_by_one(LearnedSlots(ladder=ladder), 100, took_s=0.01, every_s=5.0)

    assert all(abs(stay - 0.01) < 0.001 for stay in ladder.stays)


@pytest.mark.parametrize(("here", "answers"), [(100, 200), (400, 800), (4000, 1024)])
def test_a_look_takes_all_who_are_here_twice(here: int, answers: int) -> None:
    """What a change does to a crowd shows when all have been answered."""
    ladder = Looks()
    slots = LearnedSlots(ladder=ladder)
    slots.arrived(0.0, here, "lane")
    answered = 0

    while not ladder.stays:
        answered += 1
        slots.answered(0.1 * answered, here, 8, ONE, 1.0)

    assert answered == answers


def test_a_look_knows_whether_a_batch_had_to_wait_for_a_slot() -> None:
    """If none had, a higher rung would change nothing."""
    ladder = Looks()
    slots = LearnedSlots(ladder=ladder)

    one_by_one(slots, 20, took_s=0.01, every_s=1.0)
    slots.ran_out()
    one_by_one(slots, 20, took_s=0.01, every_s=1.0)

    assert [binds for binds, _ in ladder.tell] == [False, True]


def test_far_rungs_may_be_tried_when_callers_come_back_at_once() -> None:
    """Their number bounds what a mistake can cost."""
    returning, others = Looks(), Looks()

    one_by_one(LearnedSlots(ladder=returning), 50, took_s=0.99, every_s=1.0)
    one_by_one(LearnedSlots(ladder=others), 50, took_s=0.5, every_s=1.0)

    assert returning.tell[-1][1]
    assert not others.tell[-1][1]


def served(slots: LearnedSlots, answers: int, *, at_once: int, clients: int) -> None:
    """Let a server work on some requests at a time, 1 s each, for closed clients."""
    now, waiting, flying = 0.0, 0, list[tuple[float, int, Load]]()
    free, serial = [0.0] * at_once, count()

    def leave() -> None:
        nonlocal waiting
        if len(flying) >= slots.beside(0):
            slots.ran_out()
        elif waiting:
            load = Load(items=1, slot=True, lane="", calls=waiting, callers=waiting)
            at = max(heappop(free), now) + 1.0
            heappush(free, at)
            heappush(flying, (at, next(serial), load))
            waiting = 0

    def come(calls: int) -> None:
        nonlocal waiting
        for _ in range(calls):
            waiting += 1
            here = waiting + sum(load.calls for _, _, load in flying)
            slots.arrived(now, here, "")
            if slots.held_until(now, "") is None:
                leave()

    come(clients)
    for _ in range(answers):
        now, _, load = heappop(flying)
        here = waiting + sum(other.calls for _, _, other in flying)
        slots.answered(now, here, here - waiting, load, 1.0)
        leave()
        come(load.calls)


def test_one_request_at_a_time_ends_on_the_lowest_rung() -> None:
    """Small batches only stand in each other's way."""
    slots = LearnedSlots()

    served(slots, 2000, at_once=1, clients=16)

    assert slots.ladder.rung == 0


def test_a_server_that_works_on_many_ends_where_they_are_used() -> None:
    """Most of its workers would have nothing to do otherwise."""
    slots = LearnedSlots()

    served(slots, 5000, at_once=64, clients=64)

    assert slots.count >= 32


def test_a_trial_is_broken_off_while_calls_pile_up() -> None:
    """Not only when they are answered at last."""
    slots = LearnedSlots()
    one_by_one(slots, LEAST_CALLS, took_s=0.99, every_s=1.0)
    tried, was_tried = slots.ladder.on, slots.ladder.is_trying
    slots.note(20.0, 1000)

    slots.answered(21.0, 1000, 8, ONE, 1.0)

    assert was_tried
    assert not slots.ladder.is_trying
    assert slots.count == RUNGS[FIRST].slots != RUNGS[tried].slots


def test_many_full_batches_make_room_for_those_that_are_left_over() -> None:
    """One request more in five costs little; waiting for a whole round costs more."""
    slots = LearnedSlots(ladder=Ladder(rung=1))

    assert [slots.beside(full) for full in (0, 3, 4, 8, 16)] == [2, 2, 3, 4, 6]


def test_a_fixed_number_of_slots_stays() -> None:
    """The operator's word counts."""
    slots = make_slots(5)

    for second in range(100):
        slots.arrived(second, 9, "lane")
        slots.answered(second, 8, 8, Load(items=1, slot=True), 0.01)

    assert slots.count == slots.beside(16) == 5


def test_without_a_number_it_is_learnt() -> None:
    """From the middle of the ladder on."""
    slots = make_slots(None)

    assert isinstance(slots, LearnedSlots)
    assert slots.count == RUNGS[FIRST].slots


# Held batches, in a collector


def holding(items: int = 32) -> Harness:
    """Make a collector on the lowest rung, with three callers about to return."""
    proxy = harness(calls=100, items=items)
    hold = Hold(trust=1.0)
    hold.answered(0.0, call_of("any").lane_key, 3, 0.8)
    proxy.collector.budget.slots = LearnedSlots(ladder=Ladder(rung=0), hold=hold)
    return proxy


def submit(proxy: Harness, *names: str) -> list[Outcome]:
    """Submit a call each."""
    return [proxy.submit(name) for name in names]


def test_those_who_return_share_the_next_batch() -> None:
    """The first of them waits for the others."""
    proxy = holding()

    submit(proxy, "a", "b")
    before = proxy.upstream.batches
    submit(proxy, "c")

    assert before == []
    assert proxy.upstream.batches == [["a", "b", "c"]]


def test_a_batch_is_held_for_a_moment_only() -> None:
    """Who was answered may have no more to ask."""
    proxy = holding()

    submit(proxy, "a")
    proxy.clock.advance(0.5)

    assert proxy.upstream.batches == [["a"]]


def test_a_held_batch_is_reported() -> None:
    """The page can say what it waits for."""
    proxy = holding()

    submit(proxy, "a")

    assert proxy.collector._blocked_by == "callers"


def test_a_batch_that_gets_full_is_held_no_longer() -> None:
    """Nobody else could share it."""
    proxy = holding(items=2)

    proxy.submit("a", "b")

    assert proxy.upstream.batches == [["a", "b"]]


def test_another_lane_is_not_held() -> None:
    """Its callers are not those who return."""
    proxy = holding()

    proxy.submit("a", lane="other")

    assert proxy.upstream.batches == [["a"]]


def test_nothing_is_held_while_the_proxy_stops() -> None:
    """What waits is sent now."""
    proxy = holding()
    submit(proxy, "a")

    proxy.collector.flush()

    assert proxy.upstream.batches == [["a"]]


def test_a_hold_that_is_over_leaves_no_timer() -> None:
    """Whatever ended it."""
    proxy = holding()

    submit(proxy, "a", "b", "c")
    proxy.upstream.open[0].answer()

    assert proxy.is_at_rest


def test_a_caller_who_leaves_ends_the_hold() -> None:
    """No batch is left to hold."""
    proxy = holding()
    [call] = submit(proxy, "a")

    call.done.addErrback(lambda _: None)
    call.done.cancel()

    assert proxy.is_at_rest


def test_it_can_be_told_whether_callers_are_waited_for() -> None:
    """On the lowest rung, if those who were answered have called again soon so far."""
    trusted, unsure = Hold(trust=1.0), Hold()

    lowest = LearnedSlots(ladder=Ladder(rung=0), hold=trusted)
    higher = LearnedSlots(ladder=Ladder(rung=1), hold=trusted)
    unknown = LearnedSlots(ladder=Ladder(rung=0), hold=unsure)

    assert [each.holds for each in (lowest, higher, unknown)] == [True, False, False]


def test_a_lone_client_is_never_held() -> None:
    """Nobody else was answered just now, so nobody is expected."""
    proxy = harness()
    proxy.collector.budget.slots = LearnedSlots(ladder=Ladder(rung=0))

    for _ in range(50):
        proxy.submit("a")
        assert len(proxy.upstream.open) == 1
        proxy.clock.advance(0.8)
        proxy.upstream.open[0].answer()
        assert not proxy.clock.getDelayedCalls()


def test_what_is_here_is_counted_through_failures() -> None:
    """Refused batches, large calls and callers who leave do not leak."""
    proxy = harness(items=2)
    proxy.collector.budget.slots = LearnedSlots()
    large = proxy.submit(*texts(9))
    gone = proxy.submit("gone", lane="other")
    gone.done.addErrback(lambda _: None)
    gone.done.cancel()
    proxy.upstream.open[0].refuse(503)
    proxy.clock.advance(1)

    while proxy.upstream.open:
        proxy.upstream.open[0].answer()
        proxy.clock.advance(1)

    assert large.is_right
    assert proxy.collector.admission.queued == 0
    assert proxy.collector.budget.calls_in_flight == 0


def test_the_top_rung_lets_all_leave() -> None:
    """As without a proxy."""
    assert LearnedSlots(ladder=Ladder(rung=TOP)).count > 500
    assert FixedSlots(1).count == 1
