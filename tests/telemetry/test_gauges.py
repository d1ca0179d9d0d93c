"""What is read at the moment of a scrape: the state of the proxy."""

from collections.abc import Iterator

import pytest

from abproxy import __version__
from abproxy.batching.ladder import FIRST, TOP
from abproxy.errors import CannotConnect, ConnectionBroken
from abproxy.events import BlockedBy
from support.proxy import InMemoryProxy, wired

LADDER = ("rung", "holds", "trying", "trials", "looks_to_trial")


@pytest.fixture
def here() -> Iterator[InMemoryProxy]:
    """Wire a proxy with one slot."""
    with wired(slots=1) as proxy:
        yield proxy
        proxy.answer_all()


def test_an_idle_proxy_has_nothing_but_limits(here: InMemoryProxy) -> None:
    """Those that the operator and the upstream have set."""
    assert here.figure("batches_in_flight") == 0
    assert here.figure("items_in_flight") == 0
    assert here.figure("waiting_calls") == 0
    assert here.figure("waiting_items") == 0
    assert here.figure("waiting_bytes") == 0
    assert here.figure("lanes") == 0
    assert here.figure("oldest_wait_seconds") == 0
    assert here.figure("slots") == 1
    assert here.figure("batch_max_items") == 32
    assert here.figure("budget_max_items") == 512
    assert here.figure("waiting_max_items") == 10_000
    assert here.figure("waiting_max_bytes") == 128 << 20


def test_what_is_in_flight_is_seen(here: InMemoryProxy) -> None:
    """Batches, their inputs, and the slots that they take."""
    here.call("a", "b", "c")

    assert here.figure("batches_in_flight") == 1
    assert here.figure("items_in_flight") == 3
    assert here.figure("slots_taken") == 1


def test_without_slots_the_rung_in_force_is_seen() -> None:
    """And whether it is on trial."""
    with wired() as proxy:
        ladder = proxy.collector.budget.slots.ladder
        before = [proxy.figure(f"ladder_{name}") for name in LADDER]
        ladder.look(0.0, binds=True, may_leap=True)
        trying = [proxy.figure(f"ladder_{name}") for name in LADDER]
        for _ in range(3):
            ladder.look(1.0, binds=True, may_leap=True)
        after = proxy.figure("ladder_trials"), proxy.figure("ladder_looks_to_trial")

    assert before == [FIRST + 1, 0, 0, 0, 0]
    assert trying == [TOP + 1, 0, 1, 0, 0]
    assert after[0] == 1


def test_with_slots_there_is_no_ladder(here: InMemoryProxy) -> None:
    """Their number is fixed."""
    assert [here.figure(f"ladder_{name}") for name in LADDER] == [0, 0, 0, 0, 0]


def test_what_waits_for_callers_is_told_apart(here: InMemoryProxy) -> None:
    """From what waits for a slot."""
    here.recorder.blocked(BlockedBy.CALLERS)
    here.clock.advance(2)

    assert here.figure("kept_seconds_total", by="callers") == 2
    assert here.figure("kept_seconds_total", by="slot") == 0


def test_the_budget_is_what_it_is_now(here: InMemoryProxy) -> None:
    """It follows the upstream."""
    limit = here.collector.budget.limit

    assert here.figure("budget_items") == limit.items
    limit.refused()
    assert here.figure("budget_items") == limit.items


def test_what_waits_is_seen(here: InMemoryProxy) -> None:
    """How many inputs, how many bytes, in how many lanes."""
    here.call("in flight")

    here.call("a", "b")
    here.call("c", truncate=True)

    assert here.figure("waiting_calls") == 2
    assert here.figure("waiting_items") == 3
    assert here.figure("waiting_bytes") == 3 * len(b'"a",')
    assert here.figure("lanes") == 2


def test_what_is_still_to_queue_up_is_seen(here: InMemoryProxy) -> None:
    """An import waits as a whole, and queues up part by part."""
    here.call("in flight")

    here.call(*["a"] * 100)

    assert here.figure("items_in_flight") == 1 + 32
    assert here.figure("waiting_items") == 32
    assert here.figure("waiting_rest_items") == 36
    assert here.figure("waiting_bytes") == 68 * len(b'"a",')


def test_the_longest_wait_is_seen(here: InMemoryProxy) -> None:
    """In whichever lane."""
    here.call("in flight")
    here.call("oldest")
    here.clock.advance(2)
    here.call("younger", truncate=True)
    here.clock.advance(1)

    assert here.figure("oldest_wait_seconds") == 3


def test_a_call_in_quarantine_waits_like_all_others(here: InMemoryProxy) -> None:
    """Until the upstream is there again, and nothing else is in flight."""
    here.call("deadly")
    here.upstream.open[0].fail(ConnectionBroken("broken"))
    here.upstream.open[0].fail(ConnectionBroken("broken"))

    here.clock.advance(2)

    assert here.figure("waiting_items") == 1
    assert here.figure("oldest_wait_seconds") == 2


def test_connections_and_open_requests_are_seen(here: InMemoryProxy) -> None:
    """Also those who ask for nothing."""
    here.connect()
    here.call("a")

    assert here.figure("connections") == 2
    assert here.figure("requests_open") == 1


def test_a_port_for_operators_counts_as_well() -> None:
    """A connection is a connection."""
    with wired(operations_port="0") as here:
        gate = here.service.private
        assert gate is not None

        here.connect(gate.site)
        here.connect()

        assert here.figure("connections") == 2


def test_the_upstream_is_up_when_it_answers(here: InMemoryProxy) -> None:
    """At first nothing is known."""
    before = here.figure("upstream_up")

    here.call("a")
    here.answer_all()

    assert before == 0
    assert here.figure("upstream_up") == 1
    assert here.figure("upstream_state", state="up") == 1
    assert here.figure("upstream_state", state="unknown") == 0


def test_the_upstream_is_in_one_state_of_five(here: InMemoryProxy) -> None:
    """Each has a line of its own, so that it can be drawn."""
    here.call("a")
    here.upstream.open[0].fail(CannotConnect("away"))

    states = ("unknown", "up", "full", "unreachable", "failing")
    figures = [here.figure("upstream_state", state=state) for state in states]
    assert figures == [0, 0, 0, 1, 0]
    assert here.figure("upstream_up") == 0


def test_that_the_proxy_drains_is_seen(here: InMemoryProxy) -> None:
    """After SIGTERM, while the last calls are answered."""
    before = here.figure("draining")

    here.service.site.drain()
    here.clock.advance(0)

    assert before == 0
    assert here.figure("draining") == 1


def test_what_keeps_batches_is_counted_in_seconds(here: InMemoryProxy) -> None:
    """Up to this moment."""
    here.call("in flight")
    here.call("waits")
    here.clock.advance(3)

    kept = [
        here.figure("kept_seconds_total", by=obstacle)
        for obstacle in ("slot", "budget", "upstream", "nothing")
    ]
    assert kept == [3, 0, 0, None]


def test_cpu_time_of_a_call_is_seen(here: InMemoryProxy) -> None:
    """As the recorder reckons it."""
    used_s = here.recorder.totals().cpu_s
    here.recorder.cpu_s = lambda: used_s + 8.0
    here.call("a")
    here.answer_all()

    assert here.figure("cpu_seconds_per_call") == pytest.approx(8, abs=1)


def test_the_version_is_a_label(here: InMemoryProxy) -> None:
    """So that a change can be seen in a graph."""
    assert here.figure("build_info", version=__version__) == 1


def test_every_figure_is_known_by_one_name_on_the_page(here: InMemoryProxy) -> None:
    """What the page calls `flow` is what Prometheus scrapes."""
    flow = here.page("/-/status.json")["flow"]

    missing = [name for name in flow if here.figure(name) is None]
    assert len(flow) > 10
    assert missing == []
