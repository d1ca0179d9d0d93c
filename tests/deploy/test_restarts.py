"""What deploy/README.md shows of restarts is what `make test/real` has found."""

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from real import report, restarts

REQUIRED = ("haproxy", "nginx", "envoy", "podman", "systemd")


@pytest.fixture
def found() -> Mapping[str, Sequence[Mapping[str, Any]]]:
    """Give what was found."""
    read: Mapping[str, Sequence[Mapping[str, Any]]] = report.read()["restarts"]
    return read


def test_the_page_shows_what_was_found(found: Any) -> None:
    """The table is up to date; `make test/real` writes it again."""
    page = restarts.PAGE.read_text(encoding="utf-8")

    assert restarts.section_in(page) == restarts.section(found)


@pytest.mark.parametrize("name", REQUIRED)
def test_restarts_with_real_programs_lost_no_call(found: Any, name: str) -> None:
    """Of thousands."""
    assert sum(each["calls"] for each in found[name]) > 1000
    assert [each["what"] for each in found[name] if each["lost"]] == []


@pytest.mark.parametrize("name", ["haproxy", "nginx", "envoy", "systemd"])
def test_with_something_that_listens_no_connection_is_refused(
    found: Any, name: str
) -> None:
    """A balancer, or systemd, is there all the time."""
    assert sum(each["refused"] for each in found[name]) == 0
