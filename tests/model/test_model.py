"""The table of token vectors: the same bits in any company."""

import json
from collections.abc import Callable
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from abproxy_model.model import Model, Static

TEXTS = ["hello", "What is Vector Search?", "naïve café ☕ 😀", "word " * 300, " "]


@pytest.fixture
def rows(static: Model, serve: Callable[..., Any]) -> Callable[[Any], list[bytes]]:
    """Give a function from inputs to the bytes of their rows."""
    server = serve(static)

    def embed(inputs: Any) -> list[bytes]:
        answer = server.post("/embed", msgspec.json.encode({"inputs": inputs}))
        found = msgspec.json.decode(answer.body, type=list[msgspec.Raw])
        return [bytes(row) for row in found]

    return embed


def test_a_row_has_the_same_bytes_alone_and_in_company(
    rows: Callable[[Any], list[bytes]],
) -> None:
    """A text is answered with equal bytes in any batch."""
    alone = [row for text in TEXTS for row in rows(text)]

    assert rows(TEXTS) == alone
    assert rows(TEXTS[::-1] * 6) == alone[::-1] * 6


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    st.lists(st.text(st.characters(codec="utf-8"), min_size=1), min_size=2, max_size=8)
)
def test_any_text_has_the_same_bytes_in_company(
    rows: Callable[[Any], list[bytes]], texts: list[str]
) -> None:
    """No text changes another text's bytes."""
    assert rows(texts)[0] == rows(texts[0])[0]


def test_token_ids_are_an_input_too(rows: Callable[[Any], list[bytes]]) -> None:
    """A list of numbers is one input of tokens, and lists of them are several."""
    assert len(rows([22172, 3186])) == 1
    assert rows([[22172, 3186], [3186]])[0] == rows([22172, 3186])[0]


def test_vectors_have_length_one(rows: Callable[[Any], list[bytes]]) -> None:
    """A row of the static model has 256 dimensions and length one."""
    (row,) = rows("hello")

    vector = json.loads(row)

    assert len(vector) == 256
    assert np.linalg.norm(vector) == pytest.approx(1, abs=1e-6)


def test_a_vector_is_the_mean_of_its_tokens() -> None:
    """Without a network, a text is no more than its tokens."""
    static = Static(table=np.eye(4, dtype=np.float16))

    assert static([[0, 2]])[0].mean(axis=0).tolist() == [0.5, 0, 0.5, 0]
