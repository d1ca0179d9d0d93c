"""What docs/compatibility.md shows is what `make test/real` has found."""

from typing import Any

import pytest

from real import report


def test_the_page_shows_what_was_found() -> None:
    """The table is up to date; `make test/real` writes it again."""
    page = report.PAGE.read_text(encoding="utf-8")

    assert report.section_in(page) == report.section(report.read())


def test_two_servers_that_are_not_tei_were_run() -> None:
    """The page's promise stands on more than what is recorded of TEI."""
    run = [name for name, each in report.read()["servers"].items() if each["ways"]]

    assert len(run) >= 2


def test_every_failure_is_listed() -> None:
    """The counts of a way are those of its failures."""
    ways = [way for each in report.read()["servers"].values() for way in each["ways"]]

    for way in ways:
        assert sum(each["count"] for each in way["failures"]) == way["failed"]


@pytest.fixture
def tested() -> dict[str, Any]:
    """Give what was found of one server."""
    failure = {
        "round": "at once",
        "call": "good",
        "differences": ["status: 200, not 500"],
        "request": "POST /v1/embeddings",
        "direct": "200",
        "through": "500",
        "count": 3,
    }
    way = {
        "way": "abproxy",
        "calls": 100,
        "refused": 10,
        "failed": 3,
        "greatest_difference": 1e-07,
        "batches": 20,
        "batched_calls": 90,
        "failures": [failure],
    }
    server = {
        "what": "a server",
        "date": "2026-11-27",
        "versions": {"one": "1.0"},
        "routes": ["/v1/embeddings"],
        "ways": [way],
        "clients": {"openai": {"uses": 10, "failures": []}},
        "killed": {"times": 2, "calls": 900, "lost": 5, "lost_as": {"502": 5}},
    }
    return {
        "programs": {"abproxy": "26.11.0"},
        "settings": "MAX_WAIT_TIME=100",
        "tolerance": 1e-3,
        "servers": {"One": server},
    }


def test_a_failure_is_shown(tested: dict[str, Any]) -> None:
    """Nothing that was found is left out of the page."""
    section = report.section(tested)

    assert "| **3** |" in section
    assert "| One | good | at once | status: 200, not 500 |" in section


def test_calls_that_were_lost_as_a_server_was_killed_are_shown(
    tested: dict[str, Any],
) -> None:
    """The page says how many there were, and of how many."""
    assert "| 2 times: **5** of 900 |" in report.section(tested)


def test_servers_that_were_not_run_again_are_kept(tested: dict[str, Any]) -> None:
    """One server can be run by itself."""
    other = {**tested, "servers": {"Two": tested["servers"]["One"]}}

    assert list(report.merged(tested, other)["servers"]) == ["One", "Two"]


def test_a_server_that_was_run_again_is_replaced(tested: dict[str, Any]) -> None:
    """What was found last counts."""
    again = {**tested["servers"]["One"], "date": "2026-12-01"}

    merged = report.merged(tested, {**tested, "servers": {"One": again}})

    assert merged["servers"]["One"]["date"] == "2026-12-01"
