"""
Rows and errors to the bytes TEI would send for them.

The order of keys is TEI's, and numbers have its digits.
"""

from base64 import b64encode
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from abproxy_model.digits import shortest
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
    "rows",
    "similarities",
)

_Floats = NDArray[np.float32]
json_bytes = msgspec.json.encode


def rows(vectors: Sequence[_Floats], _tokens: int) -> bytes:
    """The answer of /embed."""
    return json_bytes(shortest(vectors))


def all_rows(vectors: Sequence[_Floats], _tokens: int) -> bytes:
    """The answer of /embed_all."""
    return json_bytes([shortest(list(each)) for each in vectors])


def similarities(vectors: Sequence[_Floats], _tokens: int) -> bytes:
    """The answer of /similarity: the first one's cosine with each other."""
    first, *others = vectors
    cosines = np.array([first @ each for each in others], dtype=np.float32)
    return json_bytes(shortest([cosines])[0])


def openai(
    model_name: str, encoding_format: str
) -> Callable[[Sequence[_Floats], int], bytes]:
    """The answer of /v1/embeddings."""
    encode = _base64 if encoding_format == "base64" else shortest

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
