"""Clients take turns: what one of them has waiting costs the others little."""

from attrs import define, field
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from abproxy.batching.part import Part, size_of
from abproxy.batching.refusal import RetryTimeouts
from support.batching import Harness, Outcome, call_of, harness, texts


def sends_until_sent(proxy: Harness, call: Outcome, most: int = 500) -> int:
    """Answer what is in flight, the oldest first, and count the requests until then."""
    for sends in range(most):
        wanted = call.call.items.raw[0]
        if any(wanted in sent.request.body for sent in proxy.upstream.sent):
            return sends
        proxy.upstream.open[0].answer()
        proxy.clock.advance(0.016)
    return most


def submit(
    proxy: Harness, client: bytes, *inputs: str, is_bulk: bool = False, lane: str = ""
) -> Outcome:
    """Submit a call of *client* in a turn by itself."""
    call = call_of(*inputs, lane=lane)
    key = replace(call.lane_key, is_bulk=is_bulk)
    call = replace(call, client=client, lane_key=key)
    outcome = Outcome(call, proxy.collector.submit(call))
    proxy.clock.advance(0)
    return outcome


def test_a_query_waits_behind_one_part_of_a_client_with_many_imports() -> None:
    """However many these are."""
    proxy = harness(calls=32, slots=2, budget=64, max_waiting_size=1 << 24)
    for at in range(40):
        submit(proxy, b"importer", *texts(1000, f"import {at} "))
    for _ in range(10):
        proxy.upstream.open[0].answer()

    query = submit(proxy, b"other", "query")

    assert sends_until_sent(proxy, query) <= 2


def test_a_query_waits_behind_no_more_calls_than_one_batch_of_a_busy_client() -> None:
    """As many calls as these are, none of them is a large one."""
    proxy = harness(calls=8, items=8, budget=16, slots=1)
    for at in range(400):
        submit(proxy, b"busy", f"call {at}")

    query = submit(proxy, b"other", "query")

    assert sends_until_sent(proxy, query) <= 3


def test_a_client_has_its_turn_also_where_its_calls_share_no_batch_with_others() -> (
    None
):
    """The place counts over all lanes."""
    proxy = harness(calls=8, items=8, budget=16, slots=1)
    for at in range(400):
        submit(proxy, b"busy", f"call {at}", lane="theirs")

    query = submit(proxy, b"other", "query", lane="own")

    assert sends_until_sent(proxy, query) <= 3


def test_calls_of_clients_with_one_each_leave_in_the_order_of_arrival() -> None:
    """Whatever each of them sent before."""
    proxy = harness(calls=1, slots=1)
    for at in range(20):
        submit(proxy, b"first", f"before {at}")
    while proxy.upstream.open:
        proxy.upstream.open[0].answer()

    busy = submit(proxy, b"busy", "busy")
    for name in ("third", "first", "second"):
        submit(proxy, name.encode(), name)
    while proxy.upstream.open:
        proxy.upstream.open[0].answer()

    assert busy.is_right
    assert proxy.upstream.batches[-3:] == [["third"], ["first"], ["second"]]


def test_an_import_goes_on_though_other_clients_never_stop_coming() -> None:
    """Each of them is there for the first time, and has one call."""
    proxy = harness(calls=8, items=8, slots=1, budget=8)
    whole = submit(proxy, b"importer", *texts(80))

    for at in range(300):
        submit(proxy, b"client %d" % at, *texts(4, f"of {at} "))
        if at % 2:
            proxy.upstream.open[0].answer()

    assert whole.is_right


def test_bulk_calls_take_no_turn_from_the_other_calls_of_their_client() -> None:
    """Who says what is in no hurry is not to lose by that."""
    proxy = harness(calls=8, items=8, slots=1, budget=8)
    for at in range(10):
        submit(proxy, b"both", *texts(80, f"bulk {at} "), is_bulk=True)
    for at in range(40):
        submit(proxy, b"busy", f"call {at}")

    query = submit(proxy, b"both", "query")

    assert sends_until_sent(proxy, query) <= 3


def test_bulk_calls_stand_behind_all_that_come_up_to_ten_seconds_later() -> None:
    """And go before those that come after that."""
    proxy = harness(slots=1)
    submit(proxy, b"", "busy")
    submit(proxy, b"", "bulk", is_bulk=True)
    proxy.clock.advance(9.9)
    submit(proxy, b"", "soon", lane="1")
    proxy.clock.advance(0.2)
    submit(proxy, b"", "late", lane="2")

    while proxy.upstream.open:
        proxy.upstream.open[0].answer()

    assert proxy.upstream.batches[1:] == [["soon"], ["bulk"], ["late"]]


def test_calls_that_were_refused_take_their_turn_once() -> None:
    """However often the requests of one client come back, it has no more than that."""
    proxy = harness(calls=8, items=8, slots=1, budget=8)
    for at in range(20):
        submit(proxy, b"importer", *texts(16, f"import {at} "), lane="theirs")
    proxy.collector.retry_timeouts = RetryTimeouts(overload_s=1000)
    for _ in range(12):
        proxy.upstream.open[0].refuse(503)
        proxy.clock.advance(1.5)

    query = submit(proxy, b"other", "query", lane="own")

    assert sends_until_sent(proxy, query) <= 2


def test_a_call_with_an_earlier_turn_makes_no_other_wait_longer() -> None:
    """That of the first one ends for both of them."""
    proxy = harness(max_wait_s=1.0)
    submit(proxy, b"busy", "a")
    submit(proxy, b"busy", "b")
    proxy.clock.advance(0.9)
    submit(proxy, b"other", "c")

    proxy.clock.advance(0.1)

    assert [sorted(batch) for batch in proxy.upstream.batches] == [["a", "b", "c"]]


def test_a_call_that_stays_behind_is_not_held_anew() -> None:
    """It has waited as long as it may, though one that came later is first now."""
    proxy = harness(calls=3, items=3, budget=3, max_wait_s=1.0)
    submit(proxy, b"other", *texts(3))
    for name in "abc":
        submit(proxy, b"busy", name)
    proxy.clock.advance(0.9)
    for name in "ef":
        submit(proxy, b"other", name)
    proxy.upstream.open[0].answer()
    proxy.upstream.open[0].answer()
    held = proxy.upstream.open

    proxy.clock.advance(0.1)

    assert not held
    assert proxy.upstream.batches[1:] == [["a", "e", "b"], ["f", "c"]]


@define(eq=False)
class Course:
    """When a part queued up and left, and what its client had waiting before it."""

    client: int
    batches: float
    """How much of a batch it is."""

    own_before: float
    came_at: int
    left_at: int = 0


@define(eq=False)
class Watched:
    """A queue, and the course of each part in it."""

    proxy: Harness
    now: int = 0
    waiting: dict[Part, Course] = field(factory=dict)
    left: list[Course] = field(factory=list)

    def submit(self, client: int, items: int) -> None:
        """Queue up a call of so many items."""
        call = call_of(*texts(items, f"{self.now} "))
        call = replace(call, client=b"%d" % client)
        collector = self.proxy.collector
        collector.queue.submit(call, size_of(call.items.raw), collector.caps)
        self._note_new()

    def take(self) -> bool:
        """Let the next batch leave; return whether there was one."""
        queue, caps = self.proxy.collector.queue, self.proxy.collector.caps
        lane = queue.next_lane(also_not_full=True)
        if lane is None:
            return False
        for part in queue.take(lane, caps, alike=False):
            self.now += 1
            course = self.waiting.pop(part)
            course.left_at = self.now
            self.left.append(course)
        self._note_new()
        return True

    def _note_new(self) -> None:
        for lane in self.proxy.collector.queue.lanes:
            for part in set(lane._parts) - self.waiting.keys():
                self.now += 1
                client = int(part.call.client)
                own = [c.batches for c in self.waiting.values() if c.client == client]
                self.waiting[part] = Course(
                    client, len(part.items) / 4, sum(own), self.now
                )

    def passed_by(self, course: Course, client: int) -> float:
        """Return how many batches of *client* left while one part waited."""
        return sum(
            other.batches
            for other in self.left
            if other.client == client
            and course.came_at < other.left_at < course.left_at
        )


@settings(max_examples=150, deadline=None)
@given(
    play=st.lists(
        st.none() | st.tuples(st.integers(0, 3), st.integers(1, 9)),
        min_size=5,
        max_size=80,
    )
)
def test_a_part_waits_for_no_more_than_a_turn_of_each_other_client(
    play: list[tuple[int, int] | None],
) -> None:
    """As many as its own client has before it; and in order of arrival among these."""
    watched = Watched(harness(calls=4, items=4))

    for step in play:
        if step is None:
            watched.take()
        else:
            watched.submit(*step)
    while watched.take():
        pass

    for course in watched.left:
        for client in {0, 1, 2, 3} - {course.client}:
            assert watched.passed_by(course, client) <= course.own_before + 2
    for client in range(4):
        own = [course.came_at for course in watched.left if course.client == client]
        assert own == sorted(own)
