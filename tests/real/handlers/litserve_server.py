"""
A server of embeddings as one writes it with LitServe, with its OpenAI route.

Run in the environment of LitServe, with `MODEL` set: `litserve_server.py PORT
MAX_BATCH_SIZE`.  With more than 1 LitServe batches requests by itself, and then
refuses requests of several texts.
"""

import sys
from typing import Any

import litserve
from fastapi import HTTPException
from litserve.specs import OpenAIEmbeddingSpec
from minilm import MiniLm, TooLong


class Embedding(litserve.LitAPI):
    """Texts in, rows out; LitServe checks the rest of a request."""

    def setup(self, _device: str) -> None:
        """Load the model."""
        self.model = MiniLm()

    def predict(self, inputs: Any) -> Any:
        """Compute rows of a request's texts, or of those of several requests."""
        texts = (
            [inputs] if isinstance(inputs, str) else [_text(each) for each in inputs]
        )
        if not all(isinstance(each, str) for each in texts):
            raise HTTPException(400, "this server takes texts, not tokens")
        try:
            rows, _ = self.model.embed(texts)
        except TooLong as error:
            raise HTTPException(400, str(error)) from None
        return rows


def _text(given: Any) -> Any:
    # In a batch of LitServe's own there may be a text in a list.
    return given[0] if isinstance(given, list) and len(given) == 1 else given


if __name__ == "__main__":
    port, most = int(sys.argv[1]), int(sys.argv[2])
    api = Embedding(max_batch_size=most, batch_timeout=0.01, spec=OpenAIEmbeddingSpec())
    server = litserve.LitServer(api, accelerator="cpu", track_requests=False)
    server.run(host="127.0.0.1", port=port, generate_client_file=False)
