"""What every answer carries and every caller must show."""

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


def test_the_right_key_opens_the_door(locked: Any) -> None:
    """A caller with the key is answered."""
    answer = locked.ask(
        "POST",
        "/embed",
        BODY,
        content_type="application/json",
        authorization="Bearer sekret",
    )

    assert answer.status == 200


@pytest.mark.parametrize("path", ["/", "/health", "/ping", "/metrics"])
def test_whoever_only_looks_needs_no_key(locked: Any, path: str) -> None:
    """Health and metrics are public."""
    assert locked.ask("GET", path, None).status == 200


def test_root_is_public_for_reading_only(locked: Any) -> None:
    """Posting to / is an inference, and needs the key."""
    assert locked.post("/", BODY).status == 401


def test_a_preflight_needs_no_key(locked: Any) -> None:
    """A browser asks before it knows the key."""
    assert locked.ask("OPTIONS", "/embed", None).headers["allow"] == "POST"


def test_a_mistake_of_ours_is_logged_and_answered(
    static: Model, serve: Callable[..., Any], nothing_leaked: list[object]
) -> None:
    """A bug is a 500, and the log has the traceback."""

    def broken(_work: Callable[[], Any]) -> Any:
        raise ZeroDivisionError

    answer = serve(static, run=broken).post("/embed", BODY)

    assert answer.status == 500
    assert len(nothing_leaked) == 1
    nothing_leaked.clear()


def test_operators_see_the_sizes_of_what_was_computed(
    static: Model, serve: Callable[..., Any]
) -> None:
    """The metrics have TEI's names and tell batch sizes."""
    server = serve(static)
    server.post("/embed", b'{"inputs":["a","b","c"]}')
    server.post("/embed", BODY)

    metrics = server.ask("GET", "/metrics", None).body

    assert b'te_request_count{method="batch"} 1.0' in metrics
    assert b"te_batch_next_size_sum 4.0" in metrics
    assert b"te_batch_next_size_count 2.0" in metrics
    assert b"te_queue_size 0.0" in metrics
