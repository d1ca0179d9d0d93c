"""Whose word counts on limits."""

import sys

import pytest
from twisted.logger import capturedLogs

from abproxy.configure import limits_for
from abproxy.settings.settings import Settings
from abproxy.upstream.discovery import ServerInfo

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
