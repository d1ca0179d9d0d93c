"""A bug of ours, anywhere on the road, is a 500 for few and the end for nobody."""

import gc
from typing import Any

import pytest
from pytest_twisted import ensureDeferred

from abproxy.batching.concurrency import FixedLimit
from abproxy.dialects.tei import JSONRoute
from abproxy.errors import InternalError
from support.batching import Harness, harness
from support.client import together
from support.proxy import started_proxy


def _explode(*_arguments: Any, **_named: Any) -> Any:
    raise ZeroDivisionError("a bug")


@pytest.mark.parametrize("verb", ["read", "batch_body", "split", "write"])
@ensureDeferred
async def test_a_bug_in_a_dialect_is_a_500_and_the_proxy_goes_on(
    verb: str, monkeypatch: pytest.MonkeyPatch, nothing_leaked: list[object]
) -> None:
    """The callers are told in JSON, the log has the traceback, the slot returns."""
    async with started_proxy(max_wait_ms=60_000, max_batch_calls=2) as here:
        one, two = await here.crowd(2)

        with monkeypatch.context() as bug:
            bug.setattr(JSONRoute, verb, _explode)
            hit = await together([one.embed("a"), two.embed("b")])
        after = await together([one.embed("a"), two.embed("b")])

        assert [answer.status for answer in hit] == [500, 500]
        assert [set(answer.json) for answer in hit] == [{"error", "error_type"}] * 2
        assert after[0].is_for(["a"])
        assert after[1].is_for(["b"])
        assert nothing_leaked
        nothing_leaked.clear()
        await here.comes_to_rest()


def _outlives(proxy: Harness) -> bool:
    later = proxy.submit("later")
    proxy.upstream.open[0].answer()
    return later.is_right and proxy.is_at_rest


def test_a_send_that_raises_is_a_500_and_the_slot_returns(
    monkeypatch: pytest.MonkeyPatch, nothing_leaked: list[object]
) -> None:
    """It need not even get as far as a Deferred."""
    proxy = harness(slots=1)

    with monkeypatch.context() as bug:
        bug.setattr(proxy.collector.sender, "send_request", _explode)
        call = proxy.submit("a")

    assert isinstance(call.error, InternalError)
    assert _outlives(proxy)
    nothing_leaked.clear()


def test_a_send_that_fails_in_an_unknown_way_is_a_500(
    nothing_leaked: list[object],
) -> None:
    """An error that nobody has translated is a bug, and no reason to stop."""
    proxy = harness(slots=1)
    call = proxy.submit("a")

    proxy.upstream.sent[0].fail(ZeroDivisionError("a bug"))

    assert isinstance(call.error, InternalError)
    assert _outlives(proxy)
    nothing_leaked.clear()


def test_a_count_that_raises_is_a_500_and_the_slot_returns(
    monkeypatch: pytest.MonkeyPatch, nothing_leaked: list[object]
) -> None:
    """Who counts tokens may be another server, with troubles of its own."""
    proxy = harness(calls=2, max_wait_s=1, slots=1)
    monkeypatch.setattr(proxy.collector.sender, "count", _explode)
    monkeypatch.setattr(JSONRoute, "has_usage", True)
    calls = [proxy.submit("a"), proxy.submit("b")]

    proxy.upstream.sent[0].answer()

    assert [type(call.error) for call in calls] == [InternalError] * 2
    assert not proxy.collector.budget.slots_taken
    nothing_leaked.clear()


def test_a_limit_that_cannot_learn_stops_no_call(
    monkeypatch: pytest.MonkeyPatch, nothing_leaked: list[object]
) -> None:
    """What was waiting leaves all the same."""
    proxy = harness(slots=1)
    calls = [proxy.submit("a"), proxy.submit("b")]

    with monkeypatch.context() as bug:
        bug.setattr(FixedLimit, "answered", _explode)
        proxy.upstream.sent[0].answer()
    proxy.upstream.open[0].answer()

    assert [call.is_right for call in calls] == [True, True]
    assert proxy.is_at_rest
    proxy.upstream.sent.clear()
    gc.collect()  # only then is an unhandled error logged
    nothing_leaked.clear()
