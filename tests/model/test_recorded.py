"""Whatever TEI was asked, the embedded model answers as TEI did."""

import base64
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from abproxy_model.model import Model
from abproxy_model.settings import Settings
from support.recorded import Exchange, exchanges

NOT_SERVED = ("/docs", "/docs/", "/api-doc/openapi.json", "/vertex")
SETTINGS = {
    "embed": Settings(),
    "limited": Settings(
        api_key="sekret",
        auto_truncate=False,
        max_client_batch_size=4,
        max_concurrent_requests=8,
    ),
}
MEASURED = {
    "x-compute-time",
    "x-total-time",
    "x-tokenization-time",
    "x-queue-time",
    "x-inference-time",
}
OF_THE_CONNECTION = {"connection", "content-encoding", "content-length"}
"""Headers that the client keeps to itself, or makes up."""

NOT_COMPARED = {"date", *MEASURED}

SERVED = [
    each
    for each in exchanges()
    if each.server in SETTINGS
    and each.path not in NOT_SERVED
    and each.name != "overloaded"  # needs company: see test_inference
]
REFUSED = [each for each in SERVED if each.status != 200]
EMBEDDED = [
    each
    for each in SERVED
    if each.status == 200
    and each.method == "POST"
    and each.path not in ("/tokenize", "/decode")
]
OTHERS = [
    each
    for each in SERVED
    if each not in REFUSED and each not in EMBEDDED and each.path != "/metrics"
]


def names(some: list[Exchange]) -> list[str]:
    """Tell tests apart."""
    return [f"{each.server} {each.name}" for each in some]


@pytest.fixture
def replay(minilm: Model, serve: Callable[..., Any]) -> Callable[[Exchange], Any]:
    """Give a function that asks the embedded model what TEI was asked."""

    def ask(exchange: Exchange) -> Any:
        server = serve(minilm, SETTINGS[exchange.server])
        return server.ask(
            exchange.method,
            exchange.path,
            exchange.body or None,
            **dict(exchange.headers),
        )

    return ask


def comparable(headers: dict[str, str]) -> dict[str, str]:
    """Headers of the answer itself; of what was measured, only the names."""
    return {
        name: "" if name in NOT_COMPARED else value
        for name, value in headers.items()
        if name not in OF_THE_CONNECTION
    }


def numbers(body: bytes) -> np.ndarray[Any, Any]:
    """All numbers of an answer, in order, decoded where they are base64."""
    return np.array(list(_numbers(json.loads(body))))


def _numbers(value: Any) -> Any:
    match value:
        case float():
            yield value
        case str() if len(value) > 40 or value.endswith("="):
            yield from np.frombuffer(base64.b64decode(value), dtype="<f4").tolist()
        case list():
            for each in value:
                yield from _numbers(each)
        case dict():
            yield from _numbers(list(value.values()))


@pytest.mark.parametrize("exchange", SERVED, ids=names(SERVED))
def test_status_and_headers_are_as_recorded(
    replay: Callable[[Exchange], Any], exchange: Exchange
) -> None:
    """Status, type, CORS headers, and what an answer cost, are TEI's."""
    answer = replay(exchange)

    recorded = dict(exchange.reply_headers)
    assert answer.status == exchange.status
    assert comparable(answer.headers) == comparable(recorded)


@pytest.mark.parametrize("exchange", REFUSED, ids=names(REFUSED))
def test_errors_are_as_recorded(
    replay: Callable[[Exchange], Any], exchange: Exchange
) -> None:
    """A refusal has the recorded words, to the column of a wrong byte."""
    assert replay(exchange).body == exchange.reply_body


@pytest.mark.parametrize("exchange", EMBEDDED, ids=names(EMBEDDED))
def test_vectors_are_as_recorded(
    replay: Callable[[Exchange], Any], exchange: Exchange
) -> None:
    """Vectors are TEI's own, to the fifth digit."""
    found, recorded = numbers(replay(exchange).body), numbers(exchange.reply_body)

    lengths = np.linalg.norm(found) * np.linalg.norm(recorded)
    assert found.shape == recorded.shape
    assert found @ recorded / lengths > 0.9999
    assert np.abs(found - recorded).max() < 1e-5 * max(1, np.abs(recorded).max())


@pytest.mark.parametrize("exchange", OTHERS, ids=names(OTHERS))
def test_other_answers_are_as_recorded(
    replay: Callable[[Exchange], Any], exchange: Exchange
) -> None:
    """Tokens, texts, health and the description of the model are TEI's."""
    assert replay(exchange).body == exchange.reply_body
