"""What abproxy's own choice among several servers is worth."""

from functools import cache

import pytest
from attrs import evolve

from bench.simulation.clients import MIXED, Crowd
from bench.simulation.runs import KINDS, Figures, Run, play

ONE = {"three-serial": "serial", "three-groups": "groups"}
"""Of which each of the three is one."""

TURNS = "abproxy turns=yes"
"""The same behind a balancer that gives each server its turn."""


@cache
def played(
    kind: str, clients: int, way: str = "abproxy", *, is_mixed: bool = False
) -> Figures:
    """Play so many clients, once for all tests."""
    lengths = MIXED if is_mixed else Crowd().lengths
    crowd = Crowd(clients=clients, lengths=lengths)
    scale = 1.0 if is_mixed else 0.4
    return play(Run(kind=KINDS[kind], way=way, crowds=(crowd,), scale=scale))[0]


@pytest.mark.parametrize("three", ONE)
@pytest.mark.parametrize("clients", [64, 128])
def test_three_servers_do_three_times_as_much(three: str, clients: int) -> None:
    """For three times the clients, whether requests are costly or inputs are."""
    one = played(ONE[three], clients)

    assert played(three, 3 * clients).items_per_s >= 2.8 * one.items_per_s


@pytest.mark.parametrize("three", ONE)
def test_a_few_clients_are_divided_among_the_servers(three: str) -> None:
    """A third of them is at each, as it would be alone."""
    one = played(ONE[three], 8)

    assert played(three, 24).items_per_s >= 2.8 * one.items_per_s


@pytest.mark.parametrize("three", ONE)
def test_a_server_at_half_speed_gets_half_as_much(three: str) -> None:
    """Nearly the sum of speeds; with turns all go at the pace of the slow one."""
    sum_of_speeds = 2.5 * played(ONE[three], 64).items_per_s

    chosen = played(f"{three}-uneven", 192)
    in_turn = played(f"{three}-uneven", 192, TURNS)

    assert chosen.items_per_s >= 0.95 * sum_of_speeds
    assert in_turn.items_per_s <= 0.75 * sum_of_speeds


def test_texts_of_different_length_leave_no_server_idle() -> None:
    """Who has a long one gets no other meanwhile."""
    chosen = played("three-groups", 8, is_mixed=True)
    in_turn = played("three-groups", 8, TURNS, is_mixed=True)

    assert chosen.items_per_s >= 2 * in_turn.items_per_s


def test_texts_of_different_length_wait_less_in_a_crowd() -> None:
    """All servers are busy then, so that what is left to gain is an even wait."""
    chosen = played("three-groups", 64, is_mixed=True)
    in_turn = played("three-groups", 64, TURNS, is_mixed=True)

    assert chosen.items_per_s >= in_turn.items_per_s
    assert chosen.p99_ms <= 0.7 * in_turn.p99_ms


@pytest.mark.parametrize(
    ("crowd", "scale", "times"),
    [(Crowd(rate=2160), 0.3, 1.5), (Crowd(rate=180, lengths=MIXED), 1.0, 0.5)],
    ids=["short", "mixed"],
)
def test_calls_at_a_rate_find_a_server_that_is_free(
    crowd: Crowd, scale: float, times: float
) -> None:
    """From the first second on, though a balancer would make queues of them."""
    run = Run(kind=KINDS["sixteen-groups"], way="", crowds=(crowd,), scale=scale)

    chosen, direct = (play(evolve(run, way=way))[0] for way in ("abproxy", "direct"))

    assert chosen.p99_ms <= times * direct.p99_ms
