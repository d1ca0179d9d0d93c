"""What `/-/status.json` says of all workers."""

from typing import Any

import msgspec

from abproxy.settings.settings import Settings
from abproxy.telemetry.status import LANES
from abproxy.workers.aggregate import RecentBatches
from abproxy.workers.statuses import add_totals, merge_status
from support.proxy import START, wired


def document(calls: int = 0, **more: Any) -> Any:
    """Make what a worker says that has answered so many calls."""
    with wired() as here:
        asked = [here.call("a") for _ in range(calls)]
        here.answer_all()
        assert all(client.answers() for client in asked)
        said = msgspec.to_builtins(here.status.document())
    return said | more


def batch(serial: int, at: float, items: int = 1) -> dict[str, Any]:
    """Make what a worker says of a batch."""
    return {"serial": serial, "at": at, "items": items}


def test_the_shape_is_that_of_one_process() -> None:
    """Its readers need not know how many there are."""
    one = document(1)

    whole = merge_status([one, document(2)], Settings(workers=2))

    others = {"started_at", "totals", "batches", "workers"}
    assert whole.keys() | others == one.keys()
    assert whole["flow"].keys() == one["flow"].keys()
    assert whole["upstream"].keys() == one["upstream"].keys()
    assert whole["verdict"].keys() == one["verdict"].keys()
    assert whole["lately"].keys() == one["lately"].keys()


def test_what_happened_lately_is_added_up() -> None:
    """And judged as one."""
    whole = merge_status([document(2), document(3)], Settings(workers=2))

    assert whole["lately"]["calls"] == 5
    assert whole["verdict"]["calls"] == 5


def test_shares_of_time_are_those_of_the_average_worker() -> None:
    """Two that are kept half of the time are not kept all of it."""
    one, other = document(), document()
    one["lately"] |= {"at": 100.0, "kept_by_slot_s": 60.0}
    other["lately"] |= {"at": 100.0, "kept_by_slot_s": 40.0}

    whole = merge_status([one, other], Settings(workers=2))

    assert whole["verdict"]["slot_limited"] == 0.5
    assert whole["verdict"]["period_s"] == whole["lately"]["at"] == 100.0


def test_a_call_costs_what_all_of_them_spend() -> None:
    """An idle worker makes no call dear."""
    busy, idle = document(), document()
    busy["lately"] |= {"cpu_s": 3.0, "calls": 1000}
    idle["lately"] |= {"cpu_s": 1.0, "calls": 0}

    whole = merge_status([busy, idle], Settings(workers=2))

    assert whole["cpu_us_per_call"] == 4000
    assert whole["flow"]["cpu_seconds_per_call"] == 0.004


def test_the_limits_of_all_are_the_whole() -> None:
    """What was divided is put together again."""
    one, other = document(), document()

    flow = merge_status([one, other], Settings(workers=2))["flow"]

    name = "waiting_max_items"
    assert flow[name] == one["flow"][name] + other["flow"][name]
    assert flow["batch_max_items"] == one["flow"]["batch_max_items"]


def test_the_upstream_is_as_the_worst_off_sees_it() -> None:
    """With what others have learnt of it."""
    good, bad = document(), document()
    good["upstream"] |= {"state": "up", "model": "m", "max_batch_inputs": 16}
    bad["upstream"] |= {"state": "failing", "why": "it broke", "model": None}

    upstream = merge_status([good, bad], Settings(workers=2))["upstream"]

    assert (upstream["state"], upstream["why"]) == ("failing", "it broke")
    assert (upstream["model"], upstream["max_batch_inputs"]) == ("m", 16)


def test_what_keeps_batches_is_the_most_serious_thing() -> None:
    """As it is what should be looked at."""
    said = [document(kept_by=word) for word in ("nothing", "upstream", "slot")]

    assert merge_status(said, Settings(workers=3))["kept_by"] == "upstream"


def test_the_lanes_of_all_are_listed_with_the_longest_first() -> None:
    """As many as of one."""
    lanes = [{"route": "/embed", "items": number} for number in range(LANES)]
    said = [document(lanes=lanes), document(lanes=lanes)]

    listed = merge_status(said, Settings(workers=2))["lanes"]

    assert [lane["items"] for lane in listed[:3]] == [19, 19, 18]
    assert len(listed) == LANES


def test_the_last_error_comes_first() -> None:
    """Of whichever worker."""
    one = document(errors=[{"at": 1.0, "reason": "a"}, {"at": 3.0, "reason": "c"}])
    other = document(errors=[{"at": 2.0, "reason": "b"}])

    listed = merge_status([one, other], Settings(workers=2))["errors"]

    assert [error["reason"] for error in listed] == ["c", "b", "a"]


def test_settings_are_shown_as_they_were_chosen() -> None:
    """Not as a worker has them."""
    settings = Settings(workers=2, slots=8)

    shown = merge_status([document(), document()], settings)["settings"]

    [slots] = [each for each in shown if each["name"] == "SLOTS"]
    assert slots["value"] == "8"


def test_totals_are_added_up_and_as_new_as_the_newest() -> None:
    """A moment is no sum."""
    whole = add_totals([{"at": START, "calls": 2}, {"at": START + 1, "calls": 3}])

    assert whole == {"at": START + 1, "calls": 5}


def test_batches_are_numbered_anew_in_the_order_of_time() -> None:
    """Two workers count from 1, and a page wants those after the last it saw."""
    batches = RecentBatches()
    batches.add({"1": [batch(1, 10.0), batch(2, 30.0)], "2": [batch(1, 20.0)]})

    batches.add({"1": [batch(3, 50.0)], "2": [batch(2, 40.0)]})

    listed = batches.after(2)
    assert [each["serial"] for each in listed] == [3, 4, 5]
    assert [each["at"] for each in listed] == [30.0, 40.0, 50.0]


def test_a_batch_that_is_told_twice_is_one() -> None:
    """Two who look at the same time are both told."""
    batches = RecentBatches()
    batches.add({"1": [batch(1, 10.0)]})

    batches.add({"1": [batch(1, 10.0)]})

    assert len(batches.after(0)) == 1
    assert batches.seen == {"1": 1}


def test_of_a_new_worker_all_batches_are_new() -> None:
    """It begins to count at 1."""
    batches = RecentBatches()
    batches.add({"1": [batch(7, 10.0)]})
    batches.worker_ended("1")

    batches.add({"1": [batch(1, 20.0)]})

    assert [each["at"] for each in batches.after(0)] == [10.0, 20.0]


def test_only_the_last_batches_are_kept() -> None:
    """The past belongs to a system that collects metrics."""
    batches = RecentBatches()

    batches.add({"1": [batch(number, number) for number in range(1, 1001)]})

    assert len(batches.after(0)) == 256
    assert batches.after(0)[-1]["serial"] == 1000
