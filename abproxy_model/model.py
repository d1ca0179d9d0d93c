"""The models, by name, and how one is loaded."""

from collections.abc import Callable, Sequence

import numpy as np
from attrs import frozen
from numpy.typing import NDArray
from safetensors.numpy import load_file

from abproxy_model.bert import Bert
from abproxy_model.files import MINILM, STATIC
from abproxy_model.tokens import Tokens

__all__ = ("LOADERS", "Model", "Static", "load")

_Floats = NDArray[np.float32]


@frozen(kw_only=True)
class Model:
    """A tokenizer and a function from token ids to token vectors."""

    model_id: str
    served_model_name: str
    dimensions: int
    tokens: Tokens
    token_vectors: Callable[[Sequence[Sequence[int]]], list[_Floats]]
    """One array of token vectors for each text, in the texts' order."""


@frozen(kw_only=True)
class Static:
    """
    The smallest model: a table with one vector for each token.

    A text's vector depends on its own tokens and on nothing else, to the last
    bit, so that tests may demand equal bytes through any batch.
    """

    _table: NDArray[np.floating]

    @property
    def dimensions(self) -> int:
        """The length of a vector."""
        return int(self._table.shape[1])

    @property
    def vocabulary(self) -> int:
        """The number of token ids."""
        return int(self._table.shape[0])

    def __call__(self, texts: Sequence[Sequence[int]]) -> list[_Floats]:
        """One vector for each token of *texts*."""
        return [self._table[list(ids)].astype(np.float32) for ids in texts]


def load(name: str) -> Model:
    """
    Load the model called *name*.

    Raises:
        ModelUnavailable: its package is missing or not the published one.
    """
    return LOADERS[name]()


def _load_minilm() -> Model:
    bert = Bert.from_weights(load_file(MINILM.weights_path()))
    return Model(
        model_id="sentence-transformers/all-MiniLM-L6-v2",
        served_model_name="all-MiniLM-L6-v2",
        dimensions=bert.dimensions,
        tokens=Tokens.from_file(
            MINILM.tokenizer_path(),
            max_input_length=256,
            vocabulary=bert.vocabulary,
            special=True,
        ),
        token_vectors=bert,
    )


def _load_static() -> Model:
    static = Static(table=load_file(STATIC.weights_path())["embedding.weight"])
    return Model(
        model_id="wordllama/l2_supercat_256",
        served_model_name="l2_supercat_256",
        dimensions=static.dimensions,
        tokens=Tokens.from_file(
            STATIC.tokenizer_path(),
            max_input_length=512,
            vocabulary=static.vocabulary,
            special=False,
        ),
        token_vectors=static,
    )


LOADERS = {"minilm": _load_minilm, "static": _load_static}
