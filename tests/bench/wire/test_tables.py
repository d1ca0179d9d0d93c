"""Results as tables: everything is in them, in words of their own."""

from collections.abc import Callable

import pytest

from bench.wire.tables import full, short
from bench.wire.workloads import FULL
from support.measured import cold, found, one


def test_the_readme_shows_the_medians() -> None:
    """For each contestant, and how it compares in neighbouring runs."""
    assert (
        "| 64 | abproxy | 4,500 | 1.00 ms | 13 ms | 250.0 µs | 0.04 | 3.00 | 0.33 |"
        in short(found()).splitlines()
    )


def test_nobody_is_compared_with_himself() -> None:
    """And without a proxy there is no CPU time of one."""
    lines = short(found()).splitlines()

    assert "| 64 | no proxy | 100,000 | 1.00 ms | 13 ms | | | 72.50 | |" in lines
    assert "| 64 | aiohttp | 1,500 | 1.00 ms | 13 ms | 750.0 µs | 0.01 | | |" in lines


def test_the_readme_shows_only_the_clients() -> None:
    """Other workloads are on the page."""
    assert len(short(found()).splitlines()) == 4 + 2 + 2 * 3


def test_the_page_shows_all() -> None:
    """With the spread, how busy the core was, and the memory."""
    lines = full(found()).splitlines()

    assert (
        "| 64 clients, 1 input of 384 | abproxy | 4,500 | 3,000 to 6,000 | 1.00 ms "
        "| 13 ms | 250.0 µs | 95% | 55 MB | 0.04 | 3.00 | 0.33 |" in lines
    )


@pytest.mark.parametrize("workload", FULL, ids=lambda each: each.name)
def test_workloads_are_told_apart(workload: object) -> None:
    """Each has words of its own."""
    described = [dict(each.described()) for each in FULL]

    speed = [one(each.pop("clients"), **each) for each in described]
    lines = full(found(speed=speed)).splitlines()
    assert workload in FULL
    assert len({line.split("|")[1] for line in lines if "| abproxy |" in line}) == len(
        FULL
    )


@pytest.mark.parametrize("write", [short, full])
def test_the_machine_is_told(write: object) -> None:
    """Figures without it say nothing."""
    assert callable(write)
    words = write(found())

    assert "A <fast> one, 2 cores (here and there), Linux, Python 3.11.7" in words
    assert "medians of 2 rounds of 1 s" in words
    assert "it is the ratios that count" in words


def test_what_was_not_measured_is_left_out() -> None:
    """A quick run has only the speed."""
    assert "### Memory" not in full(found())


def test_memory_is_told() -> None:
    """All four figures."""
    memory = {
        "connections": 1000,
        "started_mb": 61.5,
        "idle_mb": 64.4,
        "bytes_per_idle_connection": 2900,
        "loaded_mb": 70.1,
    }

    words = full(found(memory=memory))
    assert "| with 1,000 idle connections | 64.4 MB |" in words
    assert "| for each of them | 2,900 bytes |" in words


OWN = {"calls": 100, "before_us": 620.0, "after_us": 420.5}


def test_a_client_that_pauses_has_rows_of_its_own() -> None:
    """In the README, below those that never do."""
    *_, last = short(found()).splitlines()

    lines = short(found(cold=cold(**OWN))).splitlines()
    rows = [line for line in lines if line.startswith("| 1, with pauses |")]
    assert [row.split("|")[2].strip() for row in rows] == [
        "no proxy",
        "aiohttp",
        "abproxy",
    ]
    assert "| 6.25 ms |" in rows[-1]
    assert lines.index(rows[0]) == lines.index(last) + 1


@pytest.mark.parametrize("write", [short, full])
def test_what_a_lone_call_pays_is_told(write: Callable[..., str]) -> None:
    """Beside no proxy, in neighbouring runs, and how much of it is ours."""
    words = write(found(cold=cold(**OWN)))

    assert "the client waits 10 ms before each call, and the server takes 5 ms" in words
    assert "abproxy adds 1.00 ms to the median (0.75 ms to 1.25 ms);" in words
    assert "620.0 µs to do with a call before it is sent on" in words
    assert "and 420.5 µs after its answer has come, as `strace` sees it." in words


def test_the_page_shows_a_lone_call_of_each() -> None:
    """With the spread."""
    lines = full(found(cold=cold(**OWN))).splitlines()

    assert "### A lone call after a pause" in lines
    assert "| abproxy | 6.25 ms | 5.75 ms to 6.75 ms | 13 ms | 250.0 µs |" in lines


def test_without_strace_a_lone_call_still_has_its_price() -> None:
    """Only where it goes is not known."""
    words = short(found(cold=cold(skipped="no strace here")))

    assert "abproxy adds 1.00 ms" in words
    assert "where they go was not measured: no strace here." in words


def test_system_calls_are_told() -> None:
    """Those that are called most, and all together."""
    words = full(found(syscalls={"all": 2.5, "each": {"recvfrom": 1.25}}))

    assert "| `recvfrom` | 1.25 |" in words
    assert "| all | 2.50 |" in words


def test_features_are_told() -> None:
    """The ratio, or why there is none."""
    features = [
        {"name": "`A=1`", "ratio": [1.5, 1.4, 1.6], "having_us": 30, "lacking_us": 20},
        {"name": "`B=1`", "skipped": "this abproxy has no B"},
    ]

    words = full(found(features=features))
    assert "| `A=1` | 30.0 µs | 20.0 µs | 1.50 | 1.40 to 1.60 |" in words
    assert "| `B=1` | not measured: this abproxy has no B | | | |" in words


def test_the_model_is_told() -> None:
    """In a sentence, too."""
    run = {"p50_ms": 1500.0, "p99_ms": 2000.0}
    direct = [{"calls_per_s": 100, **run}, {"calls_per_s": 120, **run}]
    batched = [{"calls_per_s": 300, **run}, {"calls_per_s": 360, **run}]

    model = {"clients": 200, "seconds": 7, "direct": direct, "abproxy": batched}
    words = full(found(model=model))
    assert "| abproxy | 330 | 300 to 360 | 1,500 ms | 2,000 ms |" in words
    assert "3.00 times as many calls (2 rounds of 7 s)." in words


@pytest.mark.parametrize("part", ["syscalls", "model"])
def test_what_was_skipped_has_its_reason(part: str) -> None:
    """Instead of a table."""
    assert "the moon was full." in full(
        found(**{part: {"skipped": "the moon was full"}})
    )
