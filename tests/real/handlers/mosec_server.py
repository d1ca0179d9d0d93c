"""
A server of embeddings as one writes it with mosec, for both dialects.

Run in the environment of mosec, with `MODEL` set.
"""

import base64
import json
from typing import Any

import numpy as np
from minilm import MiniLm, TooLong
from mosec import Runtime, Server, Worker
from mosec.errors import ValidationError
from numpy.typing import NDArray

NAME = "minilm"


class Embedding(Worker):
    """Texts in, rows out; mosec decodes JSON and writes refusals."""

    member = "inputs"

    def __init__(self) -> None:
        self.model = MiniLm()

    def forward(self, data: Any) -> Any:
        """Answer one request."""
        try:
            rows, tokens = self.model.embed(_texts(data, self.member))
        except TooLong as error:
            raise ValidationError(str(error)) from None
        return self.described(data, rows, tokens)

    def described(
        self, _body: dict[str, Any], rows: NDArray[np.float32], _tokens: int
    ) -> Any:
        """Answer as TEI's /embed does."""
        return rows.tolist()


class OpenAi(Embedding):
    """The same in OpenAI's form."""

    member = "input"

    def described(
        self, body: dict[str, Any], rows: NDArray[np.float32], tokens: int
    ) -> Any:
        """Answer as OpenAI's /v1/embeddings does."""
        if body.get("model") != NAME:
            raise ValidationError(f"the model here is {NAME}")
        form = body.get("encoding_format", "float")
        return {
            "object": "list",
            "data": [
                {"object": "embedding", "index": at, "embedding": _formed(row, form)}
                for at, row in enumerate(rows)
            ],
            "model": NAME,
            "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
        }


def _texts(body: Any, member: str) -> list[str]:
    given = body.get(member) if isinstance(body, dict) else None
    texts = [given] if isinstance(given, str) else given
    if not isinstance(texts, list) or not texts:
        raise ValidationError(f"`{member}` is a text or a list of texts")
    for at, each in enumerate(texts):
        if not isinstance(each, str) or not each.strip():
            raise ValidationError(f"`{member}[{at}]` is no text: {json.dumps(each)}")
    return texts


def _formed(row: NDArray[np.float32], form: str) -> Any:
    if form == "float":
        return row.tolist()
    if form == "base64":
        return base64.b64encode(row.tobytes()).decode()
    raise ValidationError(f"`encoding_format` is float or base64, not {form}")


if __name__ == "__main__":
    server = Server()
    # Not more than one request in a batch of mosec's own: of such a batch one that is
    # refused takes along the others, without a proxy as well.
    routes = {"/embed": [Runtime(Embedding)], "/v1/embeddings": [Runtime(OpenAi)]}
    server.register_runtime(routes)
    server.run()
