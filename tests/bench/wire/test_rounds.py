"""Contestants take turns, and bad answers count for nothing."""

from pathlib import Path

import pytest

from bench.wire.errors import CannotMeasure
from bench.wire.load import Seen
from bench.wire.processes import Child
from bench.wire.rounds import measure, turns
from bench.wire.workloads import Workload


def test_each_is_first_in_turn() -> None:
    """So nobody always follows the same neighbour's noise."""
    assert list(turns(["a", "b", "c"], 4)) == [
        ["a", "b", "c"],
        ["b", "c", "a"],
        ["c", "a", "b"],
        ["a", "b", "c"],
    ]


@pytest.fixture
def init() -> Child:
    """Take a process that is always there: this one."""
    return Child(
        url="http://127.0.0.1:1",
        pid=int(Path("/proc/self").readlink().name),
        log=Path(),
    )


def test_cpu_time_is_shared_by_the_calls(init: Child) -> None:
    """What the process used meanwhile, for each call."""

    def load(*_: object) -> Seen:
        before_s = init.cpu_s
        while init.cpu_s < before_s + 0.1:
            pass
        return Seen(calls=1000, took_s=2, p50_ms=1, p99_ms=2)

    run = measure(init, Workload(name="any"), 1, load)
    assert 99 < run.cpu_us < 200
    assert run.busy == pytest.approx(run.cpu_us * 1000 / 2e6)
    assert run.calls_per_s == 500
    assert run.resident_mb > 1


def test_a_run_with_errors_is_none(init: Child) -> None:
    """Fast refusals are no speed."""

    def load(*_: object) -> Seen:
        return Seen(calls=1000, took_s=2, p50_ms=1, p99_ms=2, errors="status 7")

    with pytest.raises(CannotMeasure, match="status 7"):
        measure(init, Workload(name="any"), 1, load)
