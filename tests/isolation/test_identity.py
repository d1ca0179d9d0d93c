"""Who asks is told upstream, and a shared request says who it is."""

from typing import Any

import pytest

from support.network import inputs_of, network

OPENAI = "/v1/embeddings"
TOGETHER: dict[str, Any] = {"max_wait_ms": 100, "max_batch_calls": 8}


@pytest.mark.parametrize("client", ["fast", "treq"])
def test_a_shared_request_has_an_identity(client: str) -> None:
    """A server that wants `User-Agent` and `Accept` serves it as it serves one."""
    lines = ("User-Agent", "someone/1"), ("Accept", "application/json")
    with network(mood="picky", client=client, **TOGETHER) as here:
        calls = [{"input": f"text {at}"} for at in range(8)]

        got = here.settle(*[here.post(call, *lines, path=OPENAI) for call in calls])

        assert [status for status, _ in got] == [200] * 8
        [request] = here.upstream.requests
        assert request.headers[b"user-agent"].startswith(b"abproxy/")


def test_users_that_a_gateway_names_stay_apart() -> None:
    """Each request carries one of them, and their calls only."""
    with network(mood="identity", max_wait_ms=100, max_batch_calls=4) as here:
        users = ["alice", "bob"] * 4

        got = here.settle(
            *[
                here.post({"inputs": [f"{user} {at}"]}, ("X-Forwarded-User", user))
                for at, user in enumerate(users)
            ]
        )

        assert [status for status, _ in got] == [200] * 8
        for request in here.upstream.requests:
            user = request.headers[b"x-forwarded-user"].decode()
            texts = inputs_of(request.body)
            assert [text.split()[0] for text in texts] == [user] * len(texts)
        assert len(here.upstream.requests) == 2
