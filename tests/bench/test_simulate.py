"""
What the policy is worth, played on a virtual clock.

Each goal is a ratio between two ways through the same model, so the figures
are the same on every machine.  `python -m bench.simulate` plays more of them.
"""

from pathlib import Path

import pytest
from attrs import evolve

from bench import simulate
from bench.simulation.clients import MIXED, Crowd
from bench.simulation.runs import KINDS, Figures, Run, play
from bench.simulation.scenarios import WAYS

SERVERS = ("merging", "serial", "sixteen", "groups")


def figures_of(kind: str, way: str, *crowds: Crowd, scale: float = 1.0) -> Figures:
    """Play, and take the figures of the first crowd."""
    run = Run(kind=KINDS[kind], way=way, crowds=crowds, scale=scale)
    return play(run)[0]


def gain(kind: str, crowd: Crowd, *, over: str = "direct", scale: float = 1.0) -> float:
    """Say how many times as many items abproxy gets answered."""
    ours = figures_of(kind, "abproxy", crowd, scale=scale)
    theirs = figures_of(kind, over, crowd, scale=scale)
    return ours.items_per_s / theirs.items_per_s


@pytest.mark.parametrize(
    ("clients", "items"),
    [
        (1, 1),
        (1, 2),
        (1, 8),
        (2, 1),
        (2, 2),
        (2, 8),
        (64, 8),
        (8, 1),
        (8, 2),
        (8, 8),
        (64, 1),
        (64, 2),
        (256, 1),
        (128, 3),
        (192, 2),
        (256, 2),
    ],
)
def test_a_server_that_merges_is_kept_busy(clients: int, items: int) -> None:
    """A GPU answers as much as if everybody asked it directly."""
    crowd = Crowd(clients=clients, items=items)
    # Where many are here one look takes long, and one trial is most of a run.
    is_large = clients * items > 256

    assert gain("merging", crowd, scale=3 if is_large else 1) >= 0.98


def test_hundreds_of_lone_texts_keep_it_busy_too() -> None:
    """As many as there are permits may travel one by one."""
    assert gain("merging", Crowd(clients=400), scale=4) >= 0.98


@pytest.mark.parametrize("clients", [64, 200])
def test_one_request_at_a_time_gains_most(clients: int) -> None:
    """What a request costs is shared by all calls in its batch."""
    assert gain("serial", Crowd(clients=clients, items=2)) >= 4


@pytest.mark.parametrize("kind", SERVERS)
def test_a_query_does_not_wait_for_an_import(kind: str) -> None:
    """Two batches in flight would be the least to wait for; twice that is allowed."""
    crowds = Crowd(), Crowd(items=1000)

    ours = figures_of(kind, "abproxy", *crowds, scale=2)
    least = figures_of(kind, "abproxy budget=64", *crowds, scale=2)

    assert ours.p50_ms <= 2 * least.p50_ms


def test_a_query_waits_less_if_the_import_is_bulk() -> None:
    """Who says that there is no hurry lets others go first."""
    usual = figures_of("serial", "abproxy", Crowd(), Crowd(items=1000))
    bulk = figures_of("serial", "abproxy", Crowd(), Crowd(items=1000, is_bulk=True))

    assert bulk.p50_ms < 0.8 * usual.p50_ms


def test_packing_saves_padding() -> None:
    """Texts of similar length side by side are answered in half the time."""
    crowd = Crowd(clients=200, lengths=MIXED)

    packed = figures_of("groups", "abproxy slots=2", crowd, scale=4)
    unpacked = figures_of("groups", "abproxy slots=2 packs=no", crowd, scale=4)

    assert packed.items_per_s >= 2 * unpacked.items_per_s
    assert packed.p99_ms < unpacked.p99_ms


def test_nobody_hears_of_429() -> None:
    """With more clients than permits, all are answered, and as fast as any can be."""
    crowd = Crowd(clients=1000, items=2)

    ours = figures_of("merging", "abproxy", crowd)
    direct = figures_of("merging", "direct", crowd)

    assert ours.refused == ours.failed == 0
    assert direct.refused > 0
    assert ours.items_per_s >= direct.items_per_s


@pytest.mark.parametrize("permits", [64, 48, 16])
def test_permits_that_nobody_told_of_are_learned(permits: int) -> None:
    """The upstream's refusals stay between it and the proxy, and are few."""
    crowd = Crowd(clients=200, items=2)
    kind = evolve(KINDS["small"], permits=permits)

    [ours] = play(Run(kind=kind, way="abproxy", crowds=(crowd,)))
    [direct] = play(Run(kind=kind, way="direct", crowds=(crowd,)))

    assert ours.refused == ours.failed == 0
    assert ours.items_per_s >= 0.98 * direct.items_per_s


@pytest.mark.parametrize("clients", [8, 64, 256])
def test_a_quota_that_nobody_told_of_is_used_up(clients: int) -> None:
    """Refusals make batches no smaller, as that would take more requests."""
    run = Run(kind=KINDS["quota"], way="", crowds=(Crowd(clients=clients),), scale=0.2)

    ours, timer = (play(evolve(run, way=way))[0] for way in ("abproxy", "timer 50/32"))

    assert ours.refused == ours.failed == 0
    assert ours.items_per_s >= 0.95 * timer.items_per_s


@pytest.mark.parametrize(
    "clients",
    [
        8,
        1,
        16,
    ],
)
def test_a_deadly_text_fails_alone(clients: int) -> None:
    """Everybody else is delayed by the restarts, and answered."""
    crowds = Crowd(clients=clients), Crowd(deadly=True, begins_s=4)
    run = Run(kind=KINDS["mortal"], way="abproxy", crowds=crowds)

    others, deadly = play(run)

    assert others.refused == others.failed == 0
    assert deadly.failed == 1


@pytest.mark.parametrize("kind", SERVERS)
def test_a_lone_client_is_never_slower(kind: str) -> None:
    """Who is alone pays nothing for the others who are not there."""
    ours = figures_of(kind, "abproxy", Crowd(), scale=0.1)
    direct = figures_of(kind, "direct", Crowd(), scale=0.1)

    assert ours.p99_ms <= 1.0001 * direct.p99_ms
    assert ours.items_per_s >= direct.items_per_s


@pytest.mark.parametrize(
    ("kind", "clients"),
    [
        ("serial", 3),
        ("serial", 16),
        ("serial", 1000),
        ("groups", 3),
        ("groups", 16),
        ("groups", 64),
        ("groups", 500),
        ("sixteen", 64),
        ("sixteen", 1000),
        ("sixteen", 3),
        ("sixteen", 16),
        ("sixteen", 24),
    ],
)
def test_no_number_of_clients_is_served_slower(kind: str, clients: int) -> None:
    """However many call, the proxy never costs throughput."""
    assert gain(kind, Crowd(clients=clients), scale=0.25) >= 0.99


def test_the_same_seed_gives_the_same_figures() -> None:
    """Two people who compare policies compare the same play."""
    crowd = Crowd(clients=8, lengths=MIXED)

    first = figures_of("groups", "abproxy", crowd, scale=0.2)
    second = figures_of("groups", "abproxy", crowd, scale=0.2)

    assert first == second


def test_an_open_load_is_the_same_by_every_way() -> None:
    """Calls come when they come, whatever becomes of the ones before."""
    crowd = Crowd(rate=20.0)

    direct = figures_of("groups", "direct", crowd)
    ours = figures_of("groups", "abproxy", crowd)

    assert ours.items_per_s == pytest.approx(direct.items_per_s, rel=0.01)


def test_the_command_prints_a_table(capsys: pytest.CaptureFixture[str]) -> None:
    """Each way has a row."""
    simulate.main(["--server", "serial", "--clients", "1", "--scale", "0.1"])

    table = capsys.readouterr().out
    assert all(f"  {way}  " in table for way in WAYS)


def test_the_command_writes_markdown(capsys: pytest.CaptureFixture[str]) -> None:
    """A table can be pasted into a page."""
    simulate.main(["--markdown", "--only", "untold", "--scale", "0.2"])

    assert "| load | way | items/s |" in capsys.readouterr().out


def test_the_command_draws_plots(tmp_path: Path) -> None:
    """One picture for each figure and server."""
    simulate.main(["--plot", str(tmp_path), "--way", "direct", "--scale", "0.05"])

    drawn = sorted(file.name for file in tmp_path.iterdir())
    assert len(drawn) == 9
    assert (tmp_path / "flow-serial-p50.svg").read_text().startswith("<svg")


def test_a_way_that_does_not_exist_is_named() -> None:
    """A typing error is not played."""
    with pytest.raises(ValueError, match="no 'slot'"):
        figures_of("serial", "abproxy slot=2", Crowd())
