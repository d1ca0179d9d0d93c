"""What every answer carries, and who needs the API key."""

from collections.abc import Callable
from typing import Any

import pytest

from abproxy_model.model import Model
from abproxy_model.settings import Settings

BODY = b'{"inputs":"a"}'


@pytest.fixture
def locked(static: Model, serve: Callable[..., Any]) -> Any:
    """Give a server with a key."""
    return serve(static, Settings(api_key="sekret"))


def test_a_caller_with_the_key_is_answered(locked: Any) -> None:
    """The key is a bearer token."""
    answer = locked.ask(
        "POST",
        "/embed",
        BODY,
        content_type="application/json",
        authorization="Bearer sekret",
    )

    assert answer.status == 200


@pytest.mark.parametrize("path", ["/", "/health", "/ping", "/metrics"])
def test_health_and_metrics_need_no_key(locked: Any, path: str) -> None:
    """What only reads is public."""
    assert locked.ask("GET", path, None).status == 200


def test_root_is_public_for_reading_only(locked: Any) -> None:
    """Posting to / is an inference, and needs the key."""
    assert locked.post("/", BODY).status == 401


def test_a_preflight_needs_no_key(locked: Any) -> None:
    """A browser asks before it knows the key."""
    assert locked.ask("OPTIONS", "/embed", None).headers["allow"] == "POST"
