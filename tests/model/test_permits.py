"""How many inputs may be in the house."""

from collections.abc import Callable
from typing import Any

import pytest
from replay import exchanges

from abproxy_model.errors import OverloadedError
from abproxy_model.model import Model
from abproxy_model.permits import Permits
from abproxy_model.settings import Settings

FOUR = b'{"inputs":["a","b","c","d"]}'
TWO = b'{"inputs":["a","b"]}'
OVERLOADED = next(each for each in exchanges() if each.name == "overloaded")


def test_a_request_without_all_its_permits_takes_none() -> None:
    """One permit missing refuses the whole request."""
    permits = Permits(total=8)

    with permits.hold(6), pytest.raises(OverloadedError), permits.hold(3):
        pass

    assert permits.taken == 0


@pytest.fixture
def server(static: Model, serve: Callable[..., Any], held: Any) -> Any:
    """Give a server with eight permits whose model is busy."""
    return serve(static, Settings(max_concurrent_requests=8), held)


def test_inputs_are_counted_and_not_requests(server: Any) -> None:
    """Two requests of four inputs fill eight permits; the third is refused."""
    server.send("POST", "/embed", FOUR, content_type="application/json")
    server.send("POST", "/embed", FOUR, content_type="application/json")

    refused = server.post("/embed", TWO)

    assert refused.status == OVERLOADED.status
    assert refused.body == OVERLOADED.reply_body


def test_an_answer_gives_its_permits_back(server: Any, held: Any) -> None:
    """What was answered no longer counts."""
    server.send("POST", "/embed", FOUR, content_type="application/json")
    held.finish()
    server.treq.flush()

    assert server.answers[0].status == 200
    assert server.application.permits.taken == 0


def test_a_refusal_gives_its_permits_back(server: Any, held: Any) -> None:
    """An input that cannot be embedded holds nothing."""
    body = b'{"inputs":["a",""]}'
    server.send("POST", "/embed", body, content_type="application/json")
    held.finish()
    server.treq.flush()

    assert server.answers[0].status == 400
    assert server.application.permits.taken == 0


def test_a_client_that_left_gives_its_permits_back(server: Any, held: Any) -> None:
    """A request whose client is gone is neither counted nor computed."""
    server.send("POST", "/embed", FOUR, content_type="application/json")
    gone = server.send("POST", "/embed", FOUR, content_type="application/json")
    gone.cancel()
    server.treq.flush()

    assert server.application.permits.taken == 4
    held.finish()
    server.treq.flush()
    assert held.work == []
    assert (
        b"abproxy_model_dropped_total 1.0" in server.ask("GET", "/metrics", None).body
    )
