"""What is limited is limited for all workers together."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.logger import capturedLogs

from abproxy.models.limits import limits_for, part_of
from abproxy.settings.settings import Settings
from abproxy.upstream.server_info import ServerInfo
from abproxy.workers.shares import share_of, warn_of_too_little

URL = "http://127.0.0.1:8080"
DIVIDED = (
    "max_connections",
    "max_waiting_bytes",
    "max_waiting_inputs",
    "max_waiting_inputs_of_one",
    "slots",
    "upstream_requests_per_minute",
    "upstream_tokens_per_minute",
)


def warnings(**chosen: Any) -> list[str]:
    """Return the warnings that are logged."""
    with capturedLogs() as events:
        warn_of_too_little(Settings(**chosen))
    return [event["log_format"].format(**event) for event in events]


@given(whole=st.integers(1, 10**9), workers=st.integers(1, 64))
def test_parts_are_never_more_than_the_whole_and_never_nothing(
    whole: int, workers: int
) -> None:
    """Unless there are fewer than workers, of which each needs one."""
    part = part_of(whole, workers)

    assert part >= 1
    assert part * workers <= max(whole, workers)


@given(whole=st.integers(1, 10**9), workers=st.integers(1, 64))
def test_little_is_lost_in_dividing(whole: int, workers: int) -> None:
    """Less than one for each worker."""
    assert whole - part_of(whole, workers) * workers < workers


@pytest.mark.parametrize("name", DIVIDED)
def test_a_worker_has_its_part_of_each_limit(name: str) -> None:
    """A quarter, where there are four."""
    chosen: dict[str, Any] = {name: 400}

    share = share_of(Settings(workers=4, **chosen), URL)

    assert getattr(share, name) == 100


def test_what_is_not_limited_stays_without_a_limit() -> None:
    """A part of nothing is nothing."""
    share = share_of(Settings(workers=4), URL)

    assert (share.slots, share.rate_limit, share.max_waiting_inputs_of_one) == (
        None,
        None,
        None,
    )


def test_a_rate_is_divided_exactly() -> None:
    """It may be a fraction."""
    assert share_of(Settings(workers=4, rate_limit=10.0), URL).rate_limit == 2.5


def test_a_worker_starts_no_model_of_its_own() -> None:
    """It goes to the one that all share."""
    share = share_of(Settings(workers=2, embedded=True), "http://127.0.0.1:1")

    assert (share.embedded, share.upstream_url) == (False, "http://127.0.0.1:1")


@given(permits=st.integers(1, 2048), workers=st.integers(1, 16))
def test_the_budget_of_all_is_never_above_what_the_upstream_takes(
    permits: int, workers: int
) -> None:
    """Whatever it says of itself, as long as each can have one input in flight."""
    limits = limits_for(
        Settings(workers=workers), ServerInfo(max_inputs_in_flight=permits)
    )

    assert limits.budget * workers <= max(permits, workers)


def test_a_budget_that_was_chosen_is_shared_as_well() -> None:
    """The operator means all workers."""
    assert limits_for(Settings(workers=2, budget=100), ServerInfo()).budget == 50


def test_a_chosen_budget_is_compared_as_a_whole() -> None:
    """Two halves of too much are too much."""
    with capturedLogs() as events:
        limits_for(
            Settings(workers=2, budget=600), ServerInfo(max_inputs_in_flight=512)
        )

    assert [event["chosen"] for event in events] == [600]


def test_too_little_for_all_is_warned_of() -> None:
    """Each has one, and the sum is more than was said."""
    assert warnings(workers=4, slots=3) == [
        "SLOTS is 3, but each of 4 workers has at least 1"
    ]


def test_enough_for_all_is_no_news() -> None:
    """One for each is enough."""
    assert warnings(workers=4, slots=4, budget=4) == []
