"""
Token vectors to one vector per text, as TEI finishes them.

One text at a time and always in the same order of additions, so a text's vector
does not depend on its neighbours.
"""

import numpy as np
from numpy.typing import NDArray

__all__ = ("finish", "mean")

_Floats = NDArray[np.float32]


def mean(token_vectors: _Floats) -> _Floats:
    """The mean over the tokens of one text."""
    total: _Floats = np.add.reduce(token_vectors, axis=0)
    total /= np.float32(len(token_vectors))
    return total


def finish(vector: _Floats, *, dimensions: int | None, normalize: bool) -> _Floats:
    """Cut *vector* to *dimensions*, then give it length one if asked to."""
    vector = vector[:dimensions]
    if normalize:
        squares = vector.astype(np.float64) ** 2
        vector = vector * np.float32(1 / np.sqrt(np.add.reduce(squares)))
    return vector
