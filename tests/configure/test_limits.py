"""Whose word counts on limits."""

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.logger import capturedLogs

from abproxy.models.limits import limits_for, limits_for_all
from abproxy.settings.settings import Settings
from abproxy.upstream.server_info import ServerInfo

TEI = ServerInfo(max_batch_inputs=8, max_inputs_in_flight=64)


def test_without_a_word_from_anybody_teis_defaults_hold() -> None:
    """A batch of 32, and 512 in flight."""
    limits = limits_for(Settings(), ServerInfo())

    assert (limits.caps.items, limits.budget) == (32, 512)
    assert limits.caps.calls == sys.maxsize
    assert limits.caps.size == 1_900_000


def test_the_upstream_knows_its_own_limits() -> None:
    """They come from /info."""
    limits = limits_for(Settings(), TEI)

    assert (limits.caps.items, limits.budget) == (8, 64)


def test_the_operator_wins() -> None:
    """Also over what the upstream says."""
    chosen = Settings(
        max_batch_inputs=4, budget=16, max_batch_calls=3, max_batch_bytes=9
    )

    limits = limits_for(chosen, TEI)

    assert (limits.caps.items, limits.budget) == (4, 16)
    assert (limits.caps.calls, limits.caps.size) == (3, 9)


def test_a_batch_is_never_larger_than_the_budget() -> None:
    """It would never get in."""
    assert limits_for(Settings(budget=5), ServerInfo()).caps.items == 5


@pytest.mark.parametrize(
    ("chosen", "warning"),
    [
        (Settings(max_batch_inputs=9), ("MAX_BATCH_INPUTS", 9, 8)),
        (Settings(budget=65), ("BUDGET", 65, 64)),
    ],
)
def test_a_limit_that_the_upstream_will_not_keep_is_warned_of(
    chosen: Settings, warning: tuple[str, int, int]
) -> None:
    """With the name of the setting and both numbers."""
    with capturedLogs() as logged:
        limits_for(chosen, TEI)

    [event] = logged
    assert (event["name"], event["chosen"], event["allowed"]) == warning


@pytest.mark.parametrize(
    "chosen", [Settings(), Settings(max_batch_inputs=8, budget=64)]
)
def test_a_limit_that_will_be_kept_is_no_reason_to_warn(chosen: Settings) -> None:
    """The log is for news."""
    with capturedLogs() as logged:
        limits_for(chosen, TEI)

    assert logged == []


# Several servers


def test_a_batch_is_for_the_smallest_of_several_servers() -> None:
    """It may be sent to any."""
    limits = limits_for_all(Settings(), [TEI, ServerInfo(max_batch_inputs=4)])

    assert limits.caps.items == 4
    assert limits.servers == 2


def test_in_flight_is_what_all_servers_take_together() -> None:
    """Less what may be left over at each, so that any batch has room somewhere."""
    limits = limits_for_all(Settings(), [ServerInfo()] * 3)

    assert limits.budget == 3 * 512 - 2 * 31


def test_small_servers_take_whole_batches() -> None:
    """Two for each server, where it takes so many."""
    limits = limits_for_all(Settings(budget=32), [ServerInfo()] * 3)

    assert limits.budget == 3 * 32


@pytest.mark.parametrize("workers", [1, 2])
def test_a_budget_is_for_each_server(workers: int) -> None:
    """As its permits are; workers divide it."""
    chosen = Settings(budget=64, max_batch_inputs=1, workers=workers)

    limits = limits_for_all(chosen, [ServerInfo()] * 2)

    assert limits.budget == 2 * 64 // workers


@given(
    st.lists(st.integers(1, 70), min_size=1, max_size=4),
    st.integers(1, 40),
    st.lists(st.integers(1, 40), max_size=60),
)
def test_whole_batches_never_exceed_the_permits_of_a_server(
    permits: list[int], batch: int, sizes: list[int]
) -> None:
    """As long as the budget has room, one of the servers has."""
    infos = [ServerInfo(max_inputs_in_flight=each) for each in permits]
    limits = limits_for_all(Settings(max_batch_inputs=batch), infos)
    items, taken = limits.caps.items, [0] * len(permits)
    has_room_for_any = limits.budget == sum(permits) - (len(permits) - 1) * (items - 1)

    for wanted in sizes:
        size = min(wanted, items) if has_room_for_any else items
        if sum(taken) + size > limits.budget:
            break
        roomy = [at for at, most in enumerate(permits) if taken[at] + size <= most]
        assert roomy
        taken[roomy[0]] += size
