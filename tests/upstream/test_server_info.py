"""What an inference server says of itself, as far as it matters."""

import json
from typing import Any

import pytest

from abproxy.http.messages import Response
from abproxy.upstream.server_info import ServerInfo, batch_limit_in, read_info
from support.recorded import exchanges


def answer(body: bytes, status: int = 200) -> Response:
    """Make an upstream's answer."""
    return Response(status=status, reason=b"", headers=(), body=body)


def info(**members: Any) -> Response:
    """Make an answer to `GET /info` with the two limits it must have."""
    limits = {"max_client_batch_size": 32, "max_concurrent_requests": 512}
    return answer(json.dumps({**limits, **members}).encode())


def task(model_type: Any) -> str | None:
    """Read what the model does."""
    facts = read_info(info(model_type=model_type))
    assert facts is not None
    return facts.task


def test_the_recorded_answer_is_understood() -> None:
    """TEI's own words."""
    [recorded] = [
        each for each in exchanges() if (each.server, each.path) == ("embed", "/info")
    ][:1]

    assert read_info(answer(recorded.reply_body)) == ServerInfo(
        max_batch_inputs=32,
        max_inputs_in_flight=512,
        max_input_length=256,
        task="embedding",
        model="sentence-transformers/all-MiniLM-L6-v2",
        version="1.9.3",
        dtype="float32",
    )


@pytest.mark.parametrize(
    ("model_type", "expected"),
    [
        ({"embedding": {"pooling": "mean"}}, "embedding"),
        ({"embedding": {"pooling": "splade"}}, "splade"),
        ({"embedding": {"pooling": "splade", "more": 1}}, "splade"),
        ({"classifier": {"id2label": {}, "label2id": {}}}, "classifier"),
        ({"reranker": {"id2label": {}, "label2id": {}}}, "reranker"),
        ("Embedding", "embedding"),
        ({"embedding": {}, "classifier": {}}, None),
        ({}, None),
        ("", ""),
        (None, None),
    ],
)
def test_the_task_is_what_the_model_does(model_type: Any, expected: str | None) -> None:
    """To TEI, a splade model is an embedding model with a pooling of its own."""
    assert task(model_type) == expected


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"<html>",
        b"[]",
        b"{}",
        b'{"max_client_batch_size":32}',
        b'{"max_client_batch_size":"32","max_concurrent_requests":512}',
        b'{"max_client_batch_size":0,"max_concurrent_requests":512}',
        b'{"max_client_batch_size":32,"max_concurrent_requests":-1}',
        b'{"version":"\xff"}',
        b"[" * 100_000,
    ],
)
def test_a_server_that_is_no_tei_tells_nothing(body: bytes) -> None:
    """Then nothing is guessed."""
    assert read_info(answer(body)) is None


@pytest.mark.parametrize("status", [413, 422])
def test_a_refusal_of_too_many_inputs_tells_the_limit(status: int) -> None:
    """In the words of TEI before and after 1.8."""
    said = b'{"error":"batch size 33 > maximum allowed batch size 8","error_type":"V"}'

    assert batch_limit_in(answer(said, status)) == 8


@pytest.mark.parametrize(
    ("status", "body"),
    [
        (200, b"batch size 33 > maximum allowed batch size 8"),
        (422, b"batch size is no size"),
        (413, b"length limit exceeded"),
        (
            422,
            rb'{"error":"no prompt \"batch size 3 > maximum allowed batch size 1\""}',
        ),
        (422, b'"batch size 3 > maximum allowed batch size %b"' % (b"9" * 5000)),
    ],
)
def test_any_other_answer_tells_no_limit(status: int, body: bytes) -> None:
    """An input might contain these words as well."""
    assert batch_limit_in(answer(body, status)) is None


def test_a_limit_of_nothing_is_one() -> None:
    """A batch of none would never leave."""
    said = b'{"error":"batch size 1 > maximum allowed batch size 0"}'

    assert batch_limit_in(answer(said, 422)) == 1
