"""The smaller parts of the benchmark."""

import shutil

import pytest

from bench.wire import features, memory, syscalls
from bench.wire.bench import Bench
from bench.wire.contestants import Ground
from bench.wire.load import choose
from bench.wire.workloads import QUICK

COUNTED = """\
% time     seconds  usecs/call     calls    errors syscall
------ ----------- ----------- --------- --------- ----------------
 60.00    0.600000           6    100000           sendto
 39.00    0.390000           3    120000       500 recvfrom
  1.00    0.010000          10        10           epoll_wait
------ ----------- ----------- --------- --------- ----------------
100.00    1.000000           4    220010       500 total
"""


@pytest.fixture
def bench(ground: Ground) -> Bench:
    """Measure as little as can be measured."""
    _, load = choose(ground.cores.load, ground.folder)
    return Bench(ground=ground, load=load, workloads=QUICK[:1], rounds=1, seconds=1)


def test_counts_of_strace_are_read() -> None:
    """With and without errors, and without the sum."""
    counts = {"sendto": 100000, "recvfrom": 120000, "epoll_wait": 10}

    assert syscalls.read_counts(COUNTED) == counts


def test_without_strace_it_is_said_so(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rest goes on."""
    monkeypatch.setattr(shutil, "which", lambda _: None)

    assert "no strace" in syscalls.syscalls(bench)["skipped"]


def test_an_unknown_setting_is_skipped(bench: Bench) -> None:
    """Another version of abproxy may have it."""
    feature = features.Feature(
        name="a wonder", having=features.Side(settings={"WONDER": "true"})
    )

    [told] = features.features(bench, [feature])
    assert told == {"name": "a wonder", "skipped": "this abproxy has no WONDER"}


def test_a_setting_that_does_not_work_is_skipped(bench: Bench) -> None:
    """With what abproxy said."""
    feature = features.Feature(
        name="too few", having=features.Side(settings={"SLOTS": "0"})
    )

    [told] = features.features(bench, [feature])
    assert "abproxy ended at once" in told["skipped"]


def test_a_feature_has_its_price(bench: Bench) -> None:
    """Measured against the same without it."""
    feature = features.Feature(
        name="one by one", having=features.Side(settings={"MAX_BATCH_SIZE": "1"})
    )

    [told] = features.features(bench, [feature])
    assert told["ratio"][0] == pytest.approx(
        told["having_us"] / told["lacking_us"], rel=0.02
    )
    assert told["ratio"][0] > 1


def test_idle_connections_have_their_price(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process may also give memory back meanwhile, so it can be less than nothing."""
    monkeypatch.setattr(memory, "CONNECTIONS", 50)
    monkeypatch.setattr(memory, "LOADED_S", 1)

    told = memory.memory(bench)
    assert min(told["idle_mb"], told["started_mb"]) > 10
    assert abs(told["bytes_per_idle_connection"]) < 1_000_000
