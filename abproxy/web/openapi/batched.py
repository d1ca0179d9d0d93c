"""
What is batched, described by the very types that read it.

What is described as refused here is refused by the upstream: we relay what we
do not understand.
"""

from collections.abc import Mapping
from typing import Any

from abproxy.dialects.call import Dialect
from abproxy.dialects.openai import OPENAI, OPENAI_BARE
from abproxy.dialects.tei import (
    DECODE,
    EMBED,
    EMBED_ALL,
    EMBED_SPARSE,
    PREDICT,
    TOKENIZE,
)
from abproxy.web.openapi.schemas import (
    NUMBER,
    OPENAI_ERROR,
    TEI_ERROR,
    TEXT,
    WHOLE,
    Schema,
    json_of,
    list_of,
    object_of,
)

__all__ = ["REFUSALS", "batched"]

NUMBERS = list_of(NUMBER)
SCORES = list_of(object_of(score=NUMBER, label=TEXT))
EMBEDDINGS = object_of(
    object={"const": "list"},
    data=list_of(
        object_of(
            object={"const": "embedding"},
            index=WHOLE,
            embedding={"anyOf": [NUMBERS, TEXT]},
        )
    ),
    model=TEXT,
    usage=object_of(prompt_tokens=WHOLE, total_tokens=WHOLE),
)

ABOUT: Mapping[Dialect, tuple[str, Schema, Any]] = {
    EMBED: (
        "Embeddings, one for each input",
        list_of(NUMBERS),
        {"inputs": ["What is Vector Search?", "Hello, world!"]},
    ),
    EMBED_ALL: (
        "Embeddings of every token, without pooling",
        list_of(list_of(NUMBERS)),
        {"inputs": "What is Vector Search?"},
    ),
    EMBED_SPARSE: (
        "Sparse embeddings, for models that make them",
        list_of(list_of(object_of(index=WHOLE, value=NUMBER))),
        {"inputs": "What is Vector Search?"},
    ),
    PREDICT: (
        "Labels and scores; one flat list for one text or pair",
        {"anyOf": [SCORES, list_of(SCORES)]},
        {"inputs": [["a good film"], ["a bad film"]]},
    ),
    TOKENIZE: (
        "Tokens, one list for each text",
        list_of(
            list_of(
                object_of(id=WHOLE, text=TEXT, special={"type": "boolean"})
                | {"additionalProperties": True}
            )
        ),
        {"inputs": "What is Vector Search?"},
    ),
    DECODE: ("Texts of token ids", list_of(TEXT), {"ids": [[101, 7592, 102]]}),
    OPENAI: (
        "Embeddings as the OpenAI API has them",
        EMBEDDINGS,
        {"input": ["Hello, world!"], "model": "any", "encoding_format": "float"},
    ),
    OPENAI_BARE: (
        "The same without a version in the path",
        EMBEDDINGS,
        {"input": ["Hello, world!"], "model": "any", "encoding_format": "float"},
    ),
}
"""What a route is for, the shape of its answer, and a body to begin with."""

REFUSALS = {
    "400": "The body is no JSON, or holds no input",
    "401": "A key is wanted: `Authorization: Bearer ...`",
    "404": "The inference server has no such route",
    "408": "The request took too long to arrive",
    "413": "The body is too large",
    "415": "The content type is not application/json",
    "422": "The inference server cannot use an input or an option",
    "424": "The inference server's model failed, or does not do this",
    "429": "Too much is waiting; `Retry-After` says when to come back",
    "431": "The head of the request is too large",
    "500": "A bug in abproxy; the answer's `X-Request-Id` is in its log",
    "502": "The inference server gave no usable answer",
    "503": "The inference server takes no work, and has not for a while",
    "504": "The inference server, or a turn, did not come in time",
}
"""What other answers mean, whoever gives them."""


_NAME = {
    "description": "How the client and our log know the request, if this is our answer",
    "schema": TEXT,
}
_COME_BACK = {"description": "After how many seconds", "schema": WHOLE}


def _refusal(status: str, meaning: str, error: Schema) -> Schema:
    headers = {"X-Request-Id": _NAME}
    if status == "401":
        return {"description": meaning, "headers": headers}
    if status == "429":
        headers["Retry-After"] = _COME_BACK
    # The inference server's web framework answers some of them in plain text.
    content = {**json_of(error), "text/plain": {"schema": TEXT}}
    return {"description": meaning, "headers": headers, "content": content}


def batched(route: Dialect, body: Schema) -> Schema:
    """Describe a *route* whose *body* is of this schema."""
    summary, answer, example = ABOUT.get(route, (route.path.decode(), {}, None))
    error = OPENAI_ERROR if route.has_usage else TEI_ERROR
    refusals = {
        status: _refusal(status, meaning, error) for status, meaning in REFUSALS.items()
    }
    good = {"description": "One row for each input", "content": json_of(answer)}
    return {
        "post": {
            "tags": ["batched"],
            "summary": summary,
            "security": [{}, {"key": []}],
            "requestBody": {
                "required": True,
                "content": json_of(body, example=example) if example else json_of(body),
            },
            "responses": {"200": good, **refusals},
        }
    }
