"""Answers that have no row for each input, whatever the inputs are."""

from typing import Any

import msgspec
import pytest

from support.network import Network, network

TOGETHER: dict[str, Any] = {"max_wait_ms": 100, "max_batch_calls": 8}


def _odd(here: Network, mood: str) -> list[tuple[int, bytes]]:
    path, member = ("/embeddings", "input") if mood == "bare" else ("/embed", "inputs")
    calls = [{member: [f"text {at}"]} for at in range(8)]
    here.upstream.forget()
    got = here.settle(*[here.post(call, path=path) for call in calls])
    assert got == [here.alone(call, path=path) for call in calls]
    return got


@pytest.mark.parametrize("mood", ["bare", "embeddings"])
def test_what_cannot_be_split_is_asked_for_one_by_one(mood: str) -> None:
    """Each gets the upstream's own bytes; nothing is shared for ten minutes."""
    with network(mood=mood, **TOGETHER) as here:
        assert [status for status, _ in _odd(here, mood)] == [200] * 8
        here.pass_(5)

        _odd(here, mood)
        assert list(map(len, here.upstream.inputs)) == [1] * 8

        here.upstream.change(shape="")
        here.pass_(601)
        _odd(here, mood)
        assert list(map(len, here.upstream.inputs)) == [8]


@pytest.mark.parametrize("mood", ["bare", "embeddings"])
def test_the_page_says_that_answers_cannot_be_split(mood: str) -> None:
    """An operator sees why nothing is batched."""
    with network(mood=mood, **TOGETHER) as here:
        _odd(here, mood)
        path = b"/embeddings" if mood == "bare" else b"/embed"

        shown = msgspec.json.encode(here.page("/-/status.json"))

        assert b"alone" in shown
        assert path in shown
