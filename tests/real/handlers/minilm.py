"""The model that the servers of our own writing serve: all-MiniLM-L6-v2."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load_file
from tokenizers import Tokenizer

from abproxy_model.bert import Bert

MOST_TOKENS = 256


class TooLong(ValueError):
    """A text has more tokens than the model takes."""


class MiniLm:
    """Texts to rows of length 1, nothing cut off."""

    def __init__(self) -> None:
        folder = Path(os.environ["MODEL"])
        self._tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        self._bert = Bert.from_weights(load_file(folder / "model.safetensors"))

    def embed(self, texts: Sequence[str]) -> tuple[NDArray[np.float32], int]:
        """
        Compute a row for each of *texts*; count the tokens.

        Raises:
            TooLong: one has too many of them.
        """
        ids = [self._ids(at, text) for at, text in enumerate(texts)]
        means = [each.mean(axis=0) for each in self._bert(ids)]
        rows = np.stack([each / np.linalg.norm(each) for each in means])
        return rows, sum(map(len, ids))

    def _ids(self, at: int, text: str) -> list[int]:
        ids: list[int] = self._tokenizer.encode(text).ids
        if len(ids) > MOST_TOKENS:
            raise TooLong(f"input {at} has {len(ids)} tokens, {MOST_TOKENS} at most")
        return ids
