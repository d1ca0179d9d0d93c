"""The figures are the truth: a day that is known gives exactly these numbers."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from prometheus_client.parser import text_string_to_metric_families
from pytest_twisted import ensureDeferred

from support.client import together, until
from support.proxy import StartedProxy, started_proxy

GOOD = [["a"], ["b", "c"], ["d"], ["e"]]
ONE_BAD = [["a"], ["b", "c"], ["BAD"], ["e"]]

Figures = dict[tuple[str, ...], float]


async def _four_at_once(
    here: StartedProxy, calls: Sequence[Sequence[str]]
) -> list[int]:
    """Fill a batch with four calls; the statuses that they get."""
    callers = await here.crowd(4)
    answers = await together(
        caller.embed(*texts) for caller, texts in zip(callers, calls, strict=True)
    )
    return [answer.status for answer in answers]


async def _four_who_hang_up(here: StartedProxy) -> None:
    """Fill a batch with four calls that are never answered."""
    here.upstream.break_("stall")
    before = len(here.upstream.seen.batches)
    callers = await here.crowd(4)
    waiting = [caller.embed("x") for caller in callers]
    await until(lambda: len(here.upstream.seen.batches) > before)
    for answer in waiting:
        answer.addErrback(lambda _: None).cancel()
    await here.comes_to_rest()


async def _one_large(here: StartedProxy) -> int:
    """Ask for more than a batch may have; what is left of it fills no batch."""
    answer = await (await here.caller()).embed(*(str(n) for n in range(40)))
    return answer.status


async def _four_alone(here: StartedProxy) -> list[int]:
    """Ask what is not batched, is not understood, is too large, or is ours."""
    caller = await here.caller()
    odd = await caller.post("/embed", b'{"inputs":["a"],"inputs":["a"]}')
    elsewhere = await caller.post("/nowhere", b"")
    ours = await caller.get("/-/ready")
    large = await caller.post("/embed", b" " * 2001)
    return [answer.status for answer in (odd, elsewhere, ours, large)]


@asynccontextmanager
async def _a_day() -> AsyncIterator[StartedProxy]:
    async with started_proxy(
        max_wait_ms=60_000, max_batch_calls=4, max_body_bytes=2000
    ) as here:
        assert await _four_at_once(here, GOOD) == [200] * 4
        assert await _four_at_once(here, ONE_BAD) == [200, 200, 422, 200]
        here.upstream.break_("cut")
        assert await _four_at_once(here, GOOD) == [200] * 4
        here.upstream.break_("refuse")
        assert await _four_at_once(here, GOOD) == [200] * 4
        here.upstream.break_("too-few")
        assert await _four_at_once(here, GOOD) == [200] * 4
        here.upstream.break_("too-few")
        assert await _one_large(here) == 502
        await _four_who_hang_up(here)
        assert await _four_alone(here) == [200, 404, 200, 413]
        yield here


async def _figures(here: StartedProxy) -> Figures:
    """Scrape what was counted, as Prometheus does."""
    answer = await (await here.caller()).get("/metrics")
    families = text_string_to_metric_families(answer.body.decode())
    return {
        (sample.name.removeprefix("abproxy_"), *sample.labels.values()): sample.value
        for family in families
        for sample in family.samples
        if family.name.startswith("abproxy_") and family.type != "gauge"
        if not sample.name.endswith(("_bucket", "_sum", "kept_seconds_total"))
        if sample.value
    }


@ensureDeferred
async def test_a_known_day_gives_exactly_the_expected_figures() -> None:
    """Good calls, a bad one, a break, a refusal, wrong answers, and four who left."""
    async with _a_day() as here:
        assert await _figures(here) == {
            ("calls_total", "/embed", "200"): 4 + 3 + 4 + 4 + 4,
            ("calls_total", "/embed", "422"): 1,
            ("calls_total", "/embed", "502"): 1,
            ("calls_total", "/embed", "499"): 4,
            ("call_duration_seconds_count", "/embed"): 21,
            ("overhead_seconds_count",): 19,
            ("cancellations_total", "/embed"): 4,
            ("relayed_requests_total", "/embed", "200"): 1,
            ("relayed_requests_total", "other", "404"): 1,
            ("refusals_total", "body_size"): 1,
            ("failures_total", "upstream_answer"): 1,
            # What had no room the first time left twice.
            ("batches_total", "full", "/embed"): 8,
            ("items_total", "/embed"): 6 * 5 + 4 + 32,
            ("batch_calls_count",): 8,
            ("batch_items_count",): 8,
            ("batch_fill_ratio_count",): 8,
            ("wait_seconds_count",): 7 * 4 + 1,
            # The bad call was the first probe; another was good, and so were the two
            # that were left.  What broke came back as halves.  After the wrong answer
            # a probe was good, and so were the halves of the three that were left.
            ("upstream_requests_total", "200"): 1 + 2 + 2 + 1 + 4 + 1,
            ("upstream_requests_total", "422"): 2,
            ("extra_requests_total", "probe"): 2 + 1,
            ("extra_requests_total", "piece"): 1 + 2,
            ("extra_requests_total", "resend"): 2,
            ("upstream_requests_total", "429"): 1,
            ("upstream_requests_total", "upstream_connection"): 1,
            ("upstream_requests_total", "cancelled"): 1,
            ("upstream_request_seconds_count",): 16,
            ("isolations_total",): 1,
            ("resends_total",): 1,
            ("put_backs_total", "full"): 1,
        }


@ensureDeferred
async def test_the_status_says_the_same() -> None:
    """Page and metrics are two views of one truth."""
    async with _a_day() as here:
        answer = await (await here.caller()).get("/-/status.json")

        totals = answer.json["totals"]
        assert totals["calls"] == 25
        assert totals["errors"] == 1 + 1
        assert totals["cancelled"] == 4
        assert totals["relayed"] == 2
        assert totals["refused"] == 1
        assert totals["failed"] == 1
        assert totals["batches"] == totals["full"] == 8
        assert totals["requests"] == 16
        assert len(answer.json["batches"]) == 8


@ensureDeferred
async def test_at_rest_nothing_is_in_flight_and_nobody_waits() -> None:
    """Gauges are read when they are asked for, and come back to 0."""
    async with _a_day() as here:
        answer = await (await here.caller()).get("/-/status.json")

        flow = answer.json["flow"]
        names = ("batches_in_flight", "items_in_flight", "slots_taken", "waiting_items")
        assert [flow[name] for name in names] == [0] * 4
        assert flow["oldest_wait_seconds"] == 0
        assert flow["lanes"] == 0
