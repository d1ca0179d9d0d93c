"""
Rows and errors to the bytes TEI would send for them.

The order of keys is TEI's, and numbers have its digits.
A response has a length, so that it is never chunked.
"""

from base64 import b64encode
from collections.abc import Callable, Sequence
from http import HTTPStatus
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray
from twisted.web.iweb import IRequest

from abproxy_model.errors import ModelError
from abproxy_model.model import Model
from abproxy_model.settings import Settings

__all__ = (
    "all_rows",
    "info",
    "json_bytes",
    "openai",
    "openai_refusal",
    "refusal",
    "reply",
    "reply_text",
    "rows",
    "shortest_doubles",
    "similarities",
)

_Floats = NDArray[np.float32]
json_bytes = msgspec.json.encode

_EXACT_SCALE = (1e-12, 1e9)
"""The sizes where ten to the power that scales nine digits is an exact double."""

_FEWEST, _MOST = 5, 9
"""Nine digits tell all float32 apart; fewer than five are rare enough to skip."""


def reply(
    request: IRequest, status: int, body: bytes, kind: bytes = b"application/json"
) -> bytes:
    """Answer *status* and *body*; an empty body has no type."""
    request.setResponseCode(status, HTTPStatus(status).phrase.encode())
    request.setHeader(b"content-length", str(len(body)).encode())
    if body:
        request.setHeader(b"content-type", kind)
    else:
        request.responseHeaders.removeHeader(b"content-type")
    return body


def reply_text(request: IRequest, status: int, body: bytes) -> bytes:
    """Answer text."""
    return reply(request, status, body, b"text/plain; charset=utf-8")


def rows(vectors: Sequence[_Floats], _tokens: int) -> bytes:
    """The answer of /embed."""
    return json_bytes(shortest_doubles(vectors))


def all_rows(vectors: Sequence[_Floats], _tokens: int) -> bytes:
    """The answer of /embed_all."""
    return json_bytes([shortest_doubles(list(each)) for each in vectors])


def similarities(vectors: Sequence[_Floats], _tokens: int) -> bytes:
    """The answer of /similarity: the first one's cosine with each other."""
    first, *others = vectors
    cosines = np.array([first @ each for each in others], dtype=np.float32)
    return json_bytes(shortest_doubles([cosines])[0])


def openai(
    model_name: str, encoding_format: str
) -> Callable[[Sequence[_Floats], int], bytes]:
    """The answer of /v1/embeddings."""
    encode = _base64 if encoding_format == "base64" else shortest_doubles

    def write(vectors: Sequence[_Floats], tokens: int) -> bytes:
        data = [
            {"object": "embedding", "embedding": embedding, "index": index}
            for index, embedding in enumerate(encode(vectors))
        ]
        return json_bytes(
            {
                "object": "list",
                "data": data,
                "model": model_name,
                "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
            }
        )

    return write


def refusal(error: ModelError) -> bytes:
    """An error on TEI's own routes."""
    return json_bytes({"error": str(error), "error_type": error.error_type})


def openai_refusal(error: ModelError) -> bytes:
    """An error on the OpenAI routes."""
    return json_bytes(
        {"message": str(error), "code": error.status, "type": error.error_type}
    )


def info(model: Model, settings: Settings) -> bytes:
    """The answer of /info; version and sha are of the TEI it behaves like."""
    return json_bytes(
        {
            "model_id": model.model_id,
            "model_sha": None,
            "model_dtype": "float32",
            "served_model_name": model.served_model_name,
            "model_type": {"embedding": {"pooling": "mean"}},
            "max_concurrent_requests": settings.max_concurrent_requests,
            "max_input_length": model.tokens.max_input_length,
            "max_batch_tokens": 16384,
            "max_batch_requests": 4,
            "max_client_batch_size": settings.max_client_batch_size,
            "auto_truncate": settings.auto_truncate,
            "tokenization_workers": 1,
            "version": "1.9.3",
            "sha": "0d124dc9773be6ac5a9a57d8439aba9bbbf33273",
            "docker_label": None,
        }
    )


def _base64(vectors: Sequence[_Floats]) -> list[Any]:
    return [b64encode(each.astype("<f4").tobytes()).decode() for each in vectors]


def shortest_doubles(rows: Sequence[NDArray[np.float32]]) -> list[list[float]]:
    """
    *rows* as doubles whose shortest decimal is the float32's shortest.

    So a JSON encoder, which prints the shortest form of a double, prints the
    fewest digits that read back as the same float32, at C speed.
    """
    if not rows:
        return []
    found: list[list[float]] = _short_doubles(np.stack(rows)).tolist()
    return found


def _short_doubles(values: NDArray[np.float32]) -> NDArray[np.float64]:
    flat = values.reshape(-1)
    exact = flat.astype(np.float64)
    size = np.abs(exact)
    is_usual = (size >= _EXACT_SCALE[0]) & (size < _EXACT_SCALE[1])
    found = exact.copy()
    _round(flat, exact, found, np.flatnonzero(is_usual))
    for index in np.flatnonzero(~is_usual & (size > 0)):
        found[index] = float(np.format_float_scientific(flat[index]))
    return found.reshape(values.shape)


def _round(
    flat: NDArray[np.float32],
    exact: NDArray[np.float64],
    found: NDArray[np.float64],
    todo: NDArray[np.intp],
) -> None:
    """Round to ever more digits, until the rounded number is the same float32."""
    exponent = np.floor(np.log10(np.abs(exact[todo])))
    for digits in range(_FEWEST, _MOST + 1):
        scale = 10.0 ** (digits - 1 - exponent)
        rounded = np.rint(exact[todo] * scale) / scale
        found[todo] = rounded
        wrong = rounded.astype(np.float32) != flat[todo]
        todo, exponent = todo[wrong], exponent[wrong]
