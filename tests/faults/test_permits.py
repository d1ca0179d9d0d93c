"""The upstream is never asked for more than it has room for, nor more often."""

from random import Random
from typing import Any

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.task import Clock

from abproxy.batching.concurrency import AdaptiveLimit
from abproxy.batching.slots import Load
from bench.breakable import Traits
from support.batching import Harness, harness, texts
from support.client import Answer, Caller, sleep, together, until
from support.proxy import StartedProxy, started_proxy


async def _asks_on(caller: Caller, name: str, times: int) -> list[bool]:
    answered = []
    for turn in range(times):
        own = [f"{name} {turn} {at}" for at in range(1 + turn % 3)]
        answered.append((await caller.embed(*own)).is_for(own))
    return answered


async def _all_ask_on(callers: list[Caller], times: int) -> bool:
    stories = [_asks_on(each, f"{at}", times) for at, each in enumerate(callers)]
    return all(all(answered) for answered in await together(stories))


@ensureDeferred
async def test_inputs_in_flight_are_never_above_the_permits() -> None:
    """No refusal is of our own making, however many callers there are."""
    traits = Traits(permits=64, ms=2, ms_per_input=0.05, workers=8)
    async with started_proxy(traits) as here:
        callers = await here.crowd(200)

        all_right = await _all_ask_on(callers, 10)

        assert all_right
        assert here.upstream.seen.refused == 0
        assert here.upstream.work.most_inputs <= 64
        await here.comes_to_rest()


async def _is_answered(caller: Caller, at: int) -> bool:
    answer: Answer = await caller.embed(f"{at}", f"{at}, too")
    return answer.is_for([f"{at}", f"{at}, too"])


@ensureDeferred
async def test_a_thousand_calls_at_once_are_all_answered() -> None:
    """Asked directly, a server with 512 permits turns most of them away."""
    async with started_proxy(Traits(ms=20, ms_per_input=0.2, workers=0)) as here:
        direct = await here.crowd(1000, here.upstream.port)
        through = await here.crowd(1000)

        asked = [_is_answered(caller, at) for at, caller in enumerate(direct)]
        directly = together(asked)
        await until(lambda: len(here.upstream.seen.batches) == 1000)
        here.upstream.change(workers=16)
        answered_directly = sum(await directly)
        refused_directly = here.upstream.seen.refused
        asked = [_is_answered(caller, at) for at, caller in enumerate(through)]
        answered_through = sum(await together(asked))

        assert (answered_directly, refused_directly) == (512 / 2, 1000 - 512 / 2)
        assert answered_through == 1000
        assert here.upstream.seen.refused == refused_directly


async def _count_answers(
    here: StartedProxy, callers: list[Caller], work_s: float
) -> int:
    """Let callers ask on and on until the upstream has done so much work."""
    work = here.upstream.work
    ends_at = work.spent_s + work_s
    answered = 0

    async def asks(caller: Caller, at: int) -> None:
        nonlocal answered
        while work.spent_s < ends_at:
            if await _is_answered(caller, at):
                answered += work.spent_s < ends_at
            else:
                await sleep(0.05)

    await together(asks(caller, at) for at, caller in enumerate(callers))
    return answered


@ensureDeferred
async def test_a_thousand_callers_get_at_least_what_they_get_directly() -> None:
    """For the same work of the upstream: more wait for their turn, none is refused."""
    async with started_proxy(Traits(ms=20, ms_per_input=0.2, workers=0)) as here:
        direct = await here.crowd(1000, here.upstream.port)
        counted = together([_count_answers(here, direct, 2)])
        await until(lambda: here.upstream.seen.refused)
        here.upstream.change(workers=8)
        [answered_directly] = await counted
        refused_directly = here.upstream.seen.refused
        through = await here.crowd(1000)
        answered_through = await _count_answers(here, through, 2)

        assert here.upstream.seen.refused == refused_directly > 0
        assert answered_through >= answered_directly > 0


@pytest.mark.parametrize("status", [429, 503])
@ensureDeferred
async def test_refusals_are_not_multiplied(status: int) -> None:
    """Requests stay within 1.1 times the batches, and no caller hears of it."""
    async with started_proxy(Traits(ms=2, workers=2)) as here:
        callers = await here.crowd(100)
        for _ in range(3):
            here.upstream.break_("refuse", status, 2)

            assert await _all_ask_on(callers, 5)

        requests = len(here.upstream.seen.batches)
        assert requests <= 1.1 * (requests - 6)
        await here.comes_to_rest()


def _answer_all(proxy: Harness) -> int:
    answered = 0
    while proxy.upstream.open:
        proxy.upstream.open[0].answer()
        answered += 1
    return answered


@pytest.mark.parametrize("status", [429, 503])
def test_a_long_run_with_outages_costs_a_tenth_more_requests_at_most(
    status: int,
) -> None:
    """Five outages of two seconds each, in the time of two thousand batches."""
    proxy = harness(items=8, budget=64)
    random = Random(2)  # noqa: S311  a test must repeat itself
    calls: list[Any] = []
    batches = 0

    for second in range(100):
        calls += [proxy.submit(*texts(random.randint(4, 8))) for _ in range(20)]
        for _ in range(10):
            if second % 20 in {5, 6}:
                while proxy.upstream.open:
                    proxy.upstream.open[0].refuse(status, b"full")
            else:
                batches += _answer_all(proxy)
            proxy.clock.advance(0.1)
    batches += _answer_all(proxy)

    assert all(call.is_right for call in calls)
    assert len(proxy.upstream.sent) <= 1.1 * batches
    assert proxy.is_at_rest


@pytest.mark.parametrize("permits", [96, 48, 16])
@ensureDeferred
async def test_an_upstream_that_others_use_as_well_is_shared_with_patience(
    permits: int,
) -> None:
    """It has fewer permits than it says; callers are answered and few are refused."""
    traits = Traits(ms=5, ms_per_input=0.2, workers=4)
    async with started_proxy(traits) as here:
        here.upstream.change(permits=permits)
        callers = await here.crowd(200)

        all_right = await _all_ask_on(callers, 10)

        seen = here.upstream.seen
        assert all_right
        assert len(seen.batches) <= 1.1 * (len(seen.batches) - seen.refused)
        await here.comes_to_rest()


def test_a_refusal_is_remembered_and_in_time_forgotten() -> None:
    """The limit stays below where it was refused, and tries again later."""
    clock = Clock()
    limit = AdaptiveLimit(clock=clock, ceiling=512, batch=32)
    full = Load(items=32, slot=False)

    def answer_ten() -> None:
        for _ in range(10):
            limit.answered(full, 0.01, full_wait=True)

    answer_ten()
    grown = limit.items
    limit.refused()
    halved = limit.items
    answer_ten()
    remembered = limit.items
    clock.advance(10)
    answer_ten()

    assert (grown, halved, remembered) == (384, 192, 352)
    assert limit.items > grown


def test_what_is_refused_together_halves_the_budget_once() -> None:
    """One moment without room is one piece of news."""
    proxy = harness(items=2, budget=16)
    for _ in range(4):
        proxy.submit("a", "b")

    for sent in list(proxy.upstream.sent):
        sent.refuse(429, b'{"error_type":"Overloaded"}')

    assert proxy.collector.budget.limit.items == 8
    proxy.collector.stop()


def test_an_attempt_that_takes_long_does_not_keep_the_others_waiting() -> None:
    """A model that loads answers late; one more goes each second until it does."""
    proxy = harness(items=1)
    proxy.submit("a")
    proxy.upstream.sent[0].refuse(429)
    others = [proxy.submit(text) for text in ("b", "c", "d")]
    proxy.clock.advance(0.05)

    in_flight = []
    for _ in range(4):
        in_flight.append(len(proxy.upstream.open))
        proxy.clock.pump([0.1] * 10)
    while proxy.upstream.open:
        proxy.upstream.open[0].answer()

    assert in_flight == [1, 1, 2, 3]
    assert all(call.is_right for call in others)
    assert proxy.is_at_rest
