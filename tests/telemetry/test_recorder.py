"""Every event becomes a figure, and none ever costs an answer."""

from collections.abc import Iterator

import msgspec
import pytest

from abproxy.errors import CannotConnect, ConnectionBroken, UpstreamTimeout
from abproxy.events import BlockedBy
from abproxy.telemetry.history import RecentBatch, RecentError
from support.proxy import START, InMemoryProxy, wired, without
from support.upstream import reply


@pytest.fixture
def here() -> Iterator[InMemoryProxy]:
    """Wire a proxy."""
    with wired() as proxy:
        yield proxy


def test_a_call_is_counted_by_route_and_status(here: InMemoryProxy) -> None:
    """With the time from its whole request to the end of its answer."""
    here.call("a")
    here.clock.advance(0.25)
    here.answer_all()

    totals = here.recorder.totals()
    assert (totals.calls, totals.errors) == (1, 0)
    assert here.figure("calls_total", route="/embed", status="200") == 1
    assert here.figure("call_duration_seconds_sum", route="/embed") == 0.25


@pytest.mark.parametrize("status", [400, 422, 500])
def test_a_call_that_is_refused_upstream_is_an_error(
    here: InMemoryProxy, status: int
) -> None:
    """It was answered, and not as its caller had hoped."""
    here.call("a")
    here.upstream.open[0].refuse(status)

    totals = here.recorder.totals()
    assert (totals.calls, totals.errors) == (1, 1)
    assert here.figure("calls_total", route="/embed", status=str(status)) == 1
    assert here.figure("call_duration_seconds_count", route="/embed") == 1


def test_a_client_who_leaves_is_counted_as_499(here: InMemoryProxy) -> None:
    """It is no error, and its time says nothing."""
    here.call("a").leave()

    totals = here.recorder.totals()
    assert (totals.calls, totals.errors, totals.cancelled) == (1, 0, 1)
    assert here.figure("calls_total", route="/embed", status="499") == 1
    assert here.figure("cancellations_total", route="/embed") == 1
    assert here.figure("call_duration_seconds_count", route="/embed") is None


def test_what_is_not_understood_is_counted_as_relayed(here: InMemoryProxy) -> None:
    """By its route if that is a batched one."""
    here.ask("POST", "/embed", b"no JSON")

    assert here.recorder.totals().relayed == 1
    assert here.recorder.totals().calls == 0
    assert here.figure("relayed_requests_total", route="/embed", status="200") == 1


def test_paths_of_clients_are_no_labels(here: InMemoryProxy) -> None:
    """A client that tries a thousand paths makes one line of them."""
    here.ask("GET", "/one")
    here.ask("GET", "/two")

    assert here.figure("relayed_requests_total", route="other", status="200") == 2


def test_our_own_pages_are_no_calls(here: InMemoryProxy) -> None:
    """Looking changes nothing."""
    here.page("/-/status.json")

    totals = here.recorder.totals()
    assert (totals.calls, totals.relayed, totals.refused) == (0, 0, 0)


def test_a_request_without_a_key_is_refused() -> None:
    """It never became a call."""
    with wired(api_keys=("key",)) as here:
        here.call("a", key="another")

        totals = here.recorder.totals()
        assert (totals.refused, totals.refused_for_room, totals.calls) == (1, 0, 0)
        assert here.figure("refusals_total", reason="key") == 1


def test_a_call_without_room_is_refused_for_room() -> None:
    """That is what a second server would help against."""
    with wired(slots=1, max_waiting_inputs=1) as here:
        here.call("leaves")
        here.call("waits")
        here.call("has no room")
        here.answer_all()

        totals = here.recorder.totals()
        assert (totals.refused, totals.refused_for_room) == (1, 1)
        assert here.figure("refusals_total", reason="waiting_room") == 1
        assert here.figure("calls_total", route="/embed", status="429") == 1


def test_a_call_that_fails_is_a_failure(here: InMemoryProxy) -> None:
    """It was taken, and came to nothing."""
    here.call("a")
    here.upstream.open[0].fail(UpstreamTimeout("too slow"))

    totals = here.recorder.totals()
    assert (totals.failed, totals.errors, totals.refused) == (1, 1, 0)
    assert here.figure("failures_total", reason="upstream_timeout") == 1


def test_a_failure_is_kept_with_what_it_said(here: InMemoryProxy) -> None:
    """The status says when, what and why."""
    here.call("a")
    here.clock.advance(1)
    here.upstream.open[0].fail(UpstreamTimeout("too slow"))

    [error] = here.recorder.recent.errors
    assert error == RecentError(
        at=START + 1, reason="upstream_timeout", message="too slow", times=1
    )


def test_a_bug_is_a_failure(here: InMemoryProxy, nothing_leaked: list[object]) -> None:
    """It is ours, and the message points to the log."""
    here.collector.sender.send_request = (
        here.upstream.send
    )  # all that fails there is ours
    here.call("a")
    here.upstream.open[0].fail(ZeroDivisionError("a bug"))

    [error] = here.recorder.recent.errors
    assert error.message == "a bug in abproxy; its log says more"
    assert here.recorder.totals().failed == 1
    assert here.figure("failures_total", reason="bug") == 1
    nothing_leaked.clear()


def test_want_of_room_is_kept_with_what_it_said() -> None:
    """It is about us, and not about the request."""
    with wired(rate_limit=1.0) as here:
        here.call("a", "b")
        here.call("c")
        here.answer_all()

        [error] = here.recorder.recent.errors
        assert error.reason == "rate"
        assert error.message


def test_what_is_wrong_with_a_request_is_not_kept() -> None:
    """Its message may hold a piece of it."""
    with wired(max_body_bytes=10) as here:
        here.call("much too large")

        [error] = here.recorder.recent.errors
        assert (error.reason, error.message) == ("body_size", "")


def test_a_batch_is_counted_by_its_reason(here: InMemoryProxy) -> None:
    """With what was in it, and how long each call had waited."""
    here.call("a", "b")
    here.answer_all()

    totals = here.recorder.totals()
    assert (totals.batches, totals.full, totals.parts, totals.items) == (1, 0, 1, 2)
    assert totals.size == len(b'"a","b",')
    assert here.figure("batches_total", route="/embed", reason="free") == 1
    assert here.figure("items_total", route="/embed") == 2
    assert here.figure("batch_calls_sum") == 1
    assert here.figure("batch_items_sum") == 2
    assert here.figure("batch_fill_ratio_sum") == 2 / 32
    assert here.figure("wait_seconds_count") == 1


def test_waits_are_added_up() -> None:
    """Each call of a batch has its own."""
    with wired(max_batch_calls=2, max_wait_ms=1000.0) as here:
        here.call("a")
        here.clock.advance(0.5)
        here.call("b")
        here.answer_all()

        totals = here.recorder.totals()
        assert (totals.full, totals.parts, totals.wait_s) == (1, 2, 0.5)
        assert here.figure("batch_calls_sum") == 2
        assert here.figure("wait_seconds_sum") == 0.5


def test_a_call_that_leaves_alone_while_others_wait_was_crowded_out() -> None:
    """They could not share its batch."""
    with wired(slots=1) as here:
        here.call("first")
        here.call("alone")
        here.call("another kind", truncate=True)
        here.answer_all()

        totals = here.recorder.totals()
        assert (totals.batches, totals.crowded_out) == (3, 1)
        assert totals.crowded_out_by_key == 0


def test_a_call_that_only_its_key_keeps_apart_is_counted_as_such() -> None:
    """One key for the server would help."""
    with wired(slots=1) as here:
        here.call("first")
        here.call("alone", key="mine")
        here.call("another", key="yours")
        here.answer_all()

        totals = here.recorder.totals()
        assert (totals.crowded_out, totals.crowded_out_by_key) == (1, 1)


def test_who_fills_a_batch_alone_is_not_crowded_out() -> None:
    """No other would have had room."""
    with wired(slots=1, max_batch_inputs=2) as here:
        here.call("first")
        here.call("another kind", truncate=True)
        here.call("full", "by itself")
        here.answer_all()

        assert here.recorder.totals().full == 1
        assert here.recorder.totals().crowded_out == 0


def test_the_servers_time_is_charged_to_a_call_alone(here: InMemoryProxy) -> None:
    """So much for each input in a request of one call."""
    here.call("a", "b")
    here.clock.advance(0.5)
    here.answer_all()

    totals = here.recorder.totals()
    assert (totals.alone_batches, totals.alone_items, totals.alone_s) == (1, 2, 0.5)
    assert totals.shared_batches == 0


@pytest.mark.parametrize(
    ("inputs", "few", "many"),
    [
        (2, (1, 2, 0.5), (0, 0, 0)),
        (5, (0, 0, 0), (0, 0, 0)),
        (6, (0, 0, 0), (1, 6, 0.5)),
    ],
)
def test_the_servers_time_is_kept_for_batches_with_few_and_with_many_inputs(
    inputs: int, few: tuple[int, int, float], many: tuple[int, int, float]
) -> None:
    """To see whether it grows with them."""
    with wired(max_batch_inputs=8) as here:
        here.call(*"abcdefgh"[:inputs])
        here.clock.advance(0.5)
        here.answer_all()

        totals = here.recorder.totals()
        assert (totals.few_batches, totals.few_items, totals.few_s) == few
        assert (totals.many_batches, totals.many_items, totals.many_s) == many


def test_the_servers_time_is_charged_to_calls_that_share_a_batch() -> None:
    """So much for each input in a request of several calls."""
    with wired(max_batch_calls=2, max_wait_ms=1000.0) as here:
        here.call("a", "b")
        here.call("c")
        here.clock.advance(0.5)
        here.answer_all()

        totals = here.recorder.totals()
        shared = (totals.shared_batches, totals.shared_items, totals.shared_s)
        assert shared == (1, 3, 0.5)
        assert totals.alone_batches == 0


def test_requests_at_the_same_time_share_it(here: InMemoryProxy) -> None:
    """The server worked for both in that second."""
    here.call("a")
    here.call("b")
    here.clock.advance(1)
    here.upstream.open[1].answer()

    assert here.recorder.totals().alone_s == 0.5
    here.answer_all()


def test_a_batch_that_is_done_is_among_the_last(here: InMemoryProxy) -> None:
    """The latest ones, with their times in ms."""
    here.call("a", "b")
    here.clock.advance(0.25)
    here.answer_all()

    [batch] = here.recorder.recent.batches()
    assert batch == RecentBatch(
        serial=1,
        at=START + 0.25,
        route="/embed",
        reason="free",
        calls=1,
        items=2,
        wait_ms=0.0,
        upstream_ms=250.0,
    )


def test_a_batch_that_failed_is_kept_without_a_time(here: InMemoryProxy) -> None:
    """And charged to no batch."""
    here.call("a")
    here.upstream.open[0].refuse(500)

    [batch] = here.recorder.recent.batches()
    assert batch.upstream_ms is None
    assert here.recorder.totals().alone_batches == 0


def test_requests_are_counted_by_what_came_of_them(here: InMemoryProxy) -> None:
    """By status, or by what went wrong."""
    here.call("a")
    here.clock.advance(0.5)
    here.answer_all()
    here.call("b")
    here.upstream.open[0].fail(UpstreamTimeout("too slow"))

    assert here.recorder.totals().requests == 2
    assert here.figure("upstream_requests_total", outcome="200") == 1
    assert here.figure("upstream_requests_total", outcome="upstream_timeout") == 1
    assert here.figure("upstream_request_seconds_sum") == 0.5


def test_searching_for_a_bad_input_is_counted() -> None:
    """Each halving is one."""
    with wired(max_batch_calls=2, max_wait_ms=1000.0) as here:
        here.call("a")
        here.call("b")
        here.upstream.open[0].refuse(422)
        here.answer_all()

        assert here.figure("isolations_total") == 1


def test_sending_again_is_counted(here: InMemoryProxy) -> None:
    """After a connection that broke."""
    here.call("a")
    here.upstream.open[0].fail(ConnectionBroken("broken"))
    here.answer_all()

    assert here.figure("resends_total") == 1


def test_rows_of_two_models_are_counted(here: InMemoryProxy) -> None:
    """Such a call is computed again, and nobody else notices."""
    texts = [f"text {n}" for n in range(40)]
    call = here.call(*texts)
    width = iter([2, 3, 3, 3])
    while here.upstream.open:
        sent = here.upstream.open[0]
        inputs = msgspec.json.decode(sent.request.body)["inputs"]
        row = [1] * next(width)
        sent.done.callback(reply(200, msgspec.json.encode([row for _ in inputs])))

    assert here.figure("differing_rows_total") == 1
    [answer] = call.answers()
    assert answer.json == [[1, 1, 1]] * len(texts)


def test_waiting_on_is_counted_by_its_cause(here: InMemoryProxy) -> None:
    """The upstream is full, or is not to be reached."""
    here.call("a")
    here.upstream.open[0].refuse(429, b"Model is overloaded")
    here.clock.advance(0.05)
    here.upstream.open[0].fail(CannotConnect("away"))
    here.clock.advance(0.1)
    here.answer_all()

    assert here.figure("put_backs_total", cause="full") == 1
    assert here.figure("put_backs_total", cause="unreachable") == 1


def test_what_keeps_batches_is_added_up_by_obstacle() -> None:
    """As long as it is there."""
    with wired(slots=1) as here:
        here.call("a")
        here.call("waits")
        here.clock.advance(2)
        here.answer_all()
        here.clock.advance(5)

        totals = here.recorder.totals()
        assert totals.kept_by_slot_s == 2
        assert totals.kept_by_budget_s == totals.kept_by_upstream_s == 0
        assert here.recorder.blocked_time.blocked_by is BlockedBy.NOTHING


def test_cpu_time_is_shared_by_calls_and_what_is_relayed(here: InMemoryProxy) -> None:
    """What this process has used lately, for each of them."""
    used_s = here.recorder.totals().cpu_s
    here.recorder.cpu_s = lambda: used_s + 1.0
    here.call("a")
    here.answer_all()
    here.ask("GET", "/elsewhere")

    assert here.recorder.cpu_s_per_call() == pytest.approx(0.5, abs=0.1)


def test_without_calls_a_call_costs_no_cpu_time(here: InMemoryProxy) -> None:
    """Nothing is divided by nothing."""
    here.recorder.cpu_s = lambda: 5.0

    assert here.recorder.cpu_s_per_call() <= 5


def test_totals_are_a_copy(here: InMemoryProxy) -> None:
    """What happens later does not change what was said."""
    before = here.recorder.totals()

    here.call("a")
    here.answer_all()

    assert (before.calls, before.batches, before.at) == (0, 0, START)
    assert here.recorder.totals().calls == 1


def test_a_mistake_in_watching_costs_no_answer(
    here: InMemoryProxy, nothing_leaked: list[object]
) -> None:
    """It is logged, and all clients are served."""
    here.recorder.metrics = None

    client = here.call("a")
    here.answer_all()

    [answer] = client.answers()
    assert answer.status == 200
    assert here.collector.budget.items_in_flight == 0
    assert nothing_leaked
    nothing_leaked.clear()


@pytest.mark.parametrize(
    ("what", "arguments"),
    [
        ("request_began", [None]),
        ("answered_with", [None]),
        ("batch_sent", [None]),
        ("batch_done", [None, 1.0]),
        ("batch_split", []),
        ("batch_resent", []),
        ("batch_requeued", [None]),
        ("blocked", [None]),
        ("upstream_request_ended", ["200", 0.1]),
    ],
)
def test_whatever_is_noted_an_error_stays_with_the_recorder(
    here: InMemoryProxy,
    nothing_leaked: list[object],
    what: str,
    arguments: list[object],
) -> None:
    """What is observed need not expect one."""
    recorder = here.recorder
    recorder.metrics = recorder.recent = recorder.window = recorder.blocked_time = None

    assert getattr(here.telemetry.observer, what)(*arguments) is None

    nothing_leaked.clear()


@pytest.mark.parametrize("fast_paths", [without(), without("server")])
def test_what_is_neither_wait_nor_the_servers_time_is_our_own(
    fast_paths: frozenset[str],
) -> None:
    """On either path: of a call that waited, and of one that shared a batch."""
    with wired(slots=1, fast_paths=fast_paths) as here:
        here.call("a")
        for text in ("b", "c"):
            here.call(text)
        here.clock.advance(0.5)
        here.upstream.open[0].answer()
        here.clock.advance(0.25)
        here.answer_all()

        assert here.figure("call_duration_seconds_sum", route="/embed") == 2.0
        assert here.figure("overhead_seconds_count") == 3
        assert here.figure("overhead_seconds_sum") == 0


def test_a_call_that_was_split_has_no_time_of_our_own() -> None:
    """Its parts wait and are computed at the same time."""
    with wired(max_batch_inputs=2) as here:
        here.call("a", "b", "c")
        here.clock.advance(0.5)
        here.answer_all()

        assert here.figure("overhead_seconds_count") == 0
