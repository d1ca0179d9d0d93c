"""What an observer is told of batches that leave and are answered."""

from collections.abc import Sequence
from typing import Any

import pytest
from attrs import define, field

from abproxy.errors import CannotConnect, ConnectionBroken, UpstreamTimeout
from abproxy.events import BatchSent, BlockedBy, Cause, FlushReason, Observer
from support.batching import Harness, harness, texts
from support.upstream import reply

FULL = b"Model is overloaded"


@define(eq=False)
class Notes(Observer):
    """An observer that keeps all it is told."""

    sent: list[BatchSent] = field(factory=list)
    done: list[tuple[BatchSent, float | None]] = field(factory=list)
    words: list[str] = field(factory=list)
    causes: list[Cause] = field(factory=list)
    blocked_by: list[BlockedBy] = field(factory=list)

    def batch_sent(self, batch: BatchSent) -> None:
        self.sent.append(batch)

    def batch_done(self, batch: BatchSent, took_s: float | None) -> None:
        self.done.append((batch, took_s))

    def batch_split(self) -> None:
        self.words.append("split")

    def batch_resent(self) -> None:
        self.words.append("resent")

    def batch_requeued(self, cause: Cause) -> None:
        self.causes.append(cause)

    def blocked(self, by: BlockedBy) -> None:
        self.blocked_by.append(by)

    @property
    def reasons(self) -> list[FlushReason]:
        """Why batches left."""
        return [batch.reason for batch in self.sent]

    @property
    def times(self) -> list[float | None]:
        """How long the upstream took for those that came back."""
        return [took_s for _, took_s in self.done]


def watched(**traits: Any) -> tuple[Harness, Notes]:
    """Make a collector with an observer."""
    notes = Notes()
    return harness(observer=notes, **traits), notes


def _submit_each(proxy: Harness, calls: Sequence[str]) -> None:
    for text in calls:
        proxy.submit(text)


def _break(proxy: Harness, *, times: int) -> None:
    for sent in proxy.upstream.open[:times]:
        sent.fail(ConnectionBroken("broken"))


def test_a_call_that_finds_a_free_slot_leaves_as_free() -> None:
    """The settings ask for no wait."""
    proxy, notes = watched()

    proxy.submit("a")

    [batch] = notes.sent
    assert batch.reason is FlushReason.FREE
    assert batch.route == "/embed"
    assert (batch.parts, batch.items) == (1, 1)
    assert batch.size == len(b'"a",')
    assert list(batch.waits_s) == [0]


@pytest.mark.parametrize("caps", [{"calls": 2}, {"items": 2}, {"size": 8}])
def test_a_batch_that_reaches_a_cap_leaves_as_full(caps: dict[str, int]) -> None:
    """Be it of calls, of inputs or of bytes."""
    proxy, notes = watched(max_wait_s=1, **caps)

    proxy.submit("a")
    proxy.submit("b")

    [batch] = notes.sent
    assert batch.reason is FlushReason.FULL
    assert batch.fill == 1
    assert batch.parts == 2


def test_a_batch_whose_wait_is_over_leaves_by_the_timer() -> None:
    """Each call's own wait is told, the oldest first."""
    proxy, notes = watched(max_wait_s=1)
    proxy.submit("a")
    proxy.clock.advance(0.75)
    proxy.submit("b")

    proxy.clock.advance(0.25)

    [batch] = notes.sent
    assert batch.reason is FlushReason.TIMER
    assert list(batch.waits_s) == [1, 0.25]


def test_a_batch_that_leaves_before_the_end_leaves_for_the_drain() -> None:
    """Those that wait, and those that still come."""
    proxy, notes = watched(max_wait_s=1)
    proxy.submit("a")

    proxy.collector.flush()
    proxy.submit("b")

    assert notes.reasons == [FlushReason.DRAIN, FlushReason.DRAIN]


def test_a_lone_call_before_the_end_leaves_for_the_drain() -> None:
    """It is the same whether it finds others or not."""
    proxy, notes = watched()
    proxy.collector.flush()

    proxy.submit("a")

    assert notes.reasons == [FlushReason.DRAIN]


def test_a_full_batch_leaves_as_full_also_before_the_end() -> None:
    """It would have left in any case."""
    proxy, notes = watched(max_wait_s=1, calls=1)
    proxy.collector.flush()

    proxy.submit("a")

    assert notes.reasons == [FlushReason.FULL]


def test_a_part_from_quarantine_leaves_alone() -> None:
    """One after the other, with nothing else in flight."""
    proxy, notes = watched(calls=2, max_wait_s=1)
    proxy.submit("a")
    proxy.submit("b")
    _break(proxy, times=1)
    _break(proxy, times=2)

    proxy.upstream.open[0].answer()

    assert notes.reasons == [FlushReason.FULL, FlushReason.SUSPECT, FlushReason.SUSPECT]
    assert [batch.parts for batch in notes.sent] == [2, 1, 1]
    assert [batch.in_flight for batch in notes.sent] == [1, 1, 1]


@pytest.mark.parametrize(
    ("count", "fill"), [(1, 0.125), (16, 0.5), (32, 1)], ids=["calls", "inputs", "full"]
)
def test_a_batch_is_as_full_as_its_closest_cap(count: int, fill: float) -> None:
    """Whichever makes it full first."""
    proxy, notes = watched(calls=8, items=32)

    proxy.submit(*texts(count))

    assert notes.sent[0].fill == fill


def test_nothing_is_fuller_than_full() -> None:
    """One input may be larger than a whole batch."""
    proxy, notes = watched(size=10)

    proxy.submit("much too large for a batch")

    assert notes.sent[0].fill == 1


def test_parts_of_a_large_call_have_waited_since_it_came() -> None:
    """The second one leaves when there is room for it."""
    proxy, notes = watched(items=2, budget=4)
    proxy.submit(*texts(6))

    proxy.clock.advance(3)
    proxy.upstream.open[0].answer()

    assert [list(each.waits_s) for each in notes.sent] == [[0], [0], [3]]


def test_a_batch_counts_itself_among_those_in_flight() -> None:
    """So that the upstream's time can be shared out."""
    proxy, notes = watched(slots=3)
    proxy.submit("a")
    proxy.submit("b")

    proxy.upstream.open[0].answer()
    proxy.submit("c")

    assert [batch.in_flight for batch in notes.sent] == [1, 2, 2]


def test_a_batch_says_how_many_others_wait() -> None:
    """Those that could not share it."""
    proxy, notes = watched(slots=1)
    proxy.submit("a")
    proxy.submit("b", lane="one")
    proxy.submit("c", lane="two")

    proxy.upstream.open[0].answer()
    proxy.upstream.open[0].answer()

    assert [batch.lanes_left for batch in notes.sent] == [0, 1, 0]


def test_a_batch_says_whether_its_key_is_a_clients_own() -> None:
    """Others could share it but for that."""
    proxy, notes = watched()

    proxy.submit("a", lane="personal: mine")
    proxy.submit("b", lane="shared")

    assert [batch.is_personal for batch in notes.sent] == [True, False]


def test_a_batch_that_is_answered_is_done_with_its_time() -> None:
    """It is the very one that left."""
    proxy, notes = watched()
    proxy.submit("a")

    proxy.clock.advance(0.25)
    proxy.upstream.open[0].answer()

    assert notes.done == [(notes.sent[0], 0.25)]


@pytest.mark.parametrize("status", [400, 429, 500])
def test_a_batch_that_is_refused_is_done_without_a_time(status: int) -> None:
    """How fast an upstream refuses says nothing."""
    proxy, notes = watched()
    proxy.submit("a")

    proxy.upstream.open[0].refuse(status)
    proxy.collector.stop()

    assert notes.times == [None]


@pytest.mark.parametrize("error", [UpstreamTimeout("late"), CannotConnect("away")])
def test_a_batch_that_fails_is_done_without_a_time(error: Exception) -> None:
    """Nor how long it took to fail."""
    proxy, notes = watched()
    proxy.submit("a")

    proxy.upstream.open[0].fail(error)
    proxy.collector.stop()

    assert notes.times == [None]


def test_a_batch_that_no_caller_waits_for_is_done_without_a_time() -> None:
    """Its request was cancelled."""
    proxy, notes = watched()
    call = proxy.submit("a")

    call.done.cancel()

    assert notes.times == [None]


def test_a_batch_is_back_when_all_its_halves_are() -> None:
    """Until then its place in flight is taken."""
    proxy, notes = watched(calls=2, max_wait_s=1)
    proxy.submit("a")
    proxy.submit("b")
    proxy.upstream.open[0].refuse(422)

    proxy.upstream.open[0].refuse(422)
    early = list(notes.done)
    proxy.upstream.open[0].answer()

    assert early == []
    assert notes.times == [None]


def test_each_halving_in_search_of_a_bad_input_is_told() -> None:
    """One bad call among eight is found by three of them."""
    proxy, notes = watched(calls=8, max_wait_s=1)
    _submit_each(proxy, texts(8))

    while proxy.upstream.open:
        sent = proxy.upstream.open[0]
        if "t7" in sent.inputs:
            sent.refuse(422)
        else:
            sent.answer()

    assert notes.words == ["split", "split", "split"]


def test_a_lone_call_that_is_refused_is_not_isolated() -> None:
    """It is found already."""
    proxy, notes = watched()
    proxy.submit("a")

    proxy.upstream.open[0].refuse(422)

    assert notes.words == []


def test_a_batch_that_is_sent_again_is_told_once() -> None:
    """After the second break its calls are in quarantine, and not counted here."""
    proxy, notes = watched(calls=2, max_wait_s=1)
    proxy.submit("a")
    proxy.submit("b")

    _break(proxy, times=1)
    _break(proxy, times=2)

    assert notes.words == ["resent"]


def test_a_batch_that_is_requeued_is_told_with_its_cause() -> None:
    """Which is the upstream's refusal, or that it is away."""
    proxy, notes = watched()
    away = CannotConnect("away")
    proxy.submit("a")

    proxy.upstream.open[0].refuse(429, FULL)
    proxy.clock.advance(0.05)
    proxy.upstream.open[0].fail(away)
    proxy.collector.stop()

    assert notes.causes == [reply(429, FULL), away]


def test_a_refusal_that_is_passed_on_requeues_nothing() -> None:
    """A client's own quota is for the client to wait for."""
    proxy, notes = watched()
    call = proxy.submit("a", lane="personal: poor")

    proxy.upstream.open[0].refuse(429, b"quota exceeded")

    assert call.reply.status == 429
    assert notes.causes == []


def test_where_all_leave_at_once_nothing_is_in_the_way() -> None:
    """And nothing is told."""
    proxy, notes = watched(slots=2)

    proxy.submit("a")
    proxy.submit("b")
    proxy.upstream.open[0].answer()

    assert notes.blocked_by == []


def test_a_call_that_waits_for_its_timer_is_blocked_by_nothing() -> None:
    """The operator wanted it so."""
    proxy, notes = watched(max_wait_s=1)

    proxy.submit("a")
    proxy.clock.advance(1)

    assert notes.blocked_by == []


def test_a_call_without_a_slot_is_blocked_by_it() -> None:
    """It is told once, however many come, and when it is over."""
    proxy, notes = watched(slots=1)
    proxy.submit("a")

    proxy.submit("b")
    proxy.submit("c")
    before = list(notes.blocked_by)
    proxy.upstream.open[0].answer()

    assert before == [BlockedBy.SLOT]
    assert notes.blocked_by == [BlockedBy.SLOT, BlockedBy.NOTHING]


def test_a_full_batch_without_room_is_blocked_by_the_budget() -> None:
    """Until one in flight comes back."""
    proxy, notes = watched(items=2, budget=4)
    proxy.submit(*texts(4))

    proxy.submit(*texts(2))
    before = list(notes.blocked_by)
    proxy.upstream.open[0].answer()

    assert before == [BlockedBy.BUDGET]
    assert notes.blocked_by == [BlockedBy.BUDGET, BlockedBy.NOTHING]


def test_a_call_is_blocked_by_an_upstream_without_room() -> None:
    """Until the next try."""
    proxy, notes = watched()
    proxy.submit("a")

    proxy.upstream.open[0].refuse(429, FULL)
    before = list(notes.blocked_by)
    proxy.clock.advance(0.05)

    assert before == [BlockedBy.UPSTREAM]
    assert notes.blocked_by == [BlockedBy.UPSTREAM, BlockedBy.NOTHING]
    proxy.upstream.open[0].answer()


def test_an_upstream_that_takes_no_work_blocks_nothing_if_nothing_waits() -> None:
    """The call that it refused is gone."""
    proxy, notes = watched()
    call = proxy.submit("a")
    proxy.upstream.open[0].refuse(429, FULL)

    call.done.cancel()
    proxy.collector.stop()

    assert notes.blocked_by == [BlockedBy.UPSTREAM, BlockedBy.NOTHING]


def test_nothing_is_blocked_any_more_when_the_blocked_call_is_cancelled() -> None:
    """It waits for no slot any more."""
    proxy, notes = watched(slots=1)
    proxy.submit("a")
    call = proxy.submit("b")

    call.done.cancel()

    assert notes.blocked_by == [BlockedBy.SLOT, BlockedBy.NOTHING]


def test_what_blocks_a_batch_may_change() -> None:
    """The slot that a call waits for is of no use with the upstream away."""
    proxy, notes = watched(slots=1)
    proxy.submit("a")
    proxy.submit("b")

    proxy.upstream.open[0].fail(CannotConnect("away"))
    proxy.collector.stop()

    assert notes.blocked_by == [BlockedBy.SLOT, BlockedBy.UPSTREAM]
