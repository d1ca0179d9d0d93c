"""Names in `.env` that are no settings, but look like one."""

import pytest
from twisted.logger import capturedLogs, formatEvent

from abproxy.settings.settings import settings_from


def said(*names: str) -> list[str]:
    """Read settings of a file with these *names*, and return what the log says."""
    with capturedLogs() as events:
        settings_from({}, {}, dict.fromkeys(names, "1"))
    return [formatEvent(event) for event in events]


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("MAX_WAIT_TIEM", "MAX_WAIT_TIME"),
        ("MAX_WAITTIME", "MAX_WAIT_TIME"),
        ("MAX_WAIT_TIMES", "MAX_WAIT_TIME"),
        ("MAX_WIAT_TIEM", "MAX_WAIT_TIME"),
        ("max_wait_time", "MAX_WAIT_TIME"),
        ("APIKEY", "API_KEY"),
        ("API_KEYS", "API_KEY"),
        ("API_KEY_FIEL", "API_KEY_FILE"),
        ("SLOT", "SLOTS"),
        ("PROT", "PORT"),
    ],
)
def test_a_name_that_is_nearly_a_setting_is_told(name: str, meant: str) -> None:
    """It would have no effect, and nothing would say so."""
    assert said(name) == [f"{name} in the .env file is not a setting; {meant} is"]


@pytest.mark.parametrize(
    "name",
    [
        *("MAX_WAIT_TIME", "EXPRESS", "UPSTREAM_CLIENT", "COMPOSE_PROJECT_NAME", "ID"),
        *("HOST", "TAG", "MODEL", "OTEL_SERVICE_NAME", "TRUSTED_PROXY", "X" * 5000),
    ],
)
def test_other_names_are_for_other_programs(name: str) -> None:
    """Compose reads the same file; former settings have a word of their own."""
    values = {"MAX_WAIT_TIME": "1", "EXPRESS": "true", "UPSTREAM_CLIENT": "fast"}
    with capturedLogs() as events:
        settings_from({}, {}, {name: values.get(name, "1")})

    assert events == []


def test_each_name_is_told_once() -> None:
    """At the start, and again on a reload."""
    assert len(said("SLOT", "BUDGETS", "BUDGET")) == 2


def test_names_in_the_environment_are_for_any_program() -> None:
    """Only the file is ours."""
    with capturedLogs() as events:
        settings_from({}, {"MAX_WAIT_TIEM": "1"}, {})

    assert events == []
