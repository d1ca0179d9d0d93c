"""
The smallest model: a table with one vector for each token.

A text's vector depends on its own tokens and on nothing else, to the last bit,
so that tests may demand equal bytes through any batch.
"""

from collections.abc import Sequence

import numpy as np
from attrs import frozen
from numpy.typing import NDArray

__all__ = ("Static",)

_Floats = NDArray[np.float32]


@frozen(kw_only=True)
class Static:
    """Token vectors looked up in a table."""

    _table: NDArray[np.floating]

    @property
    def dimensions(self) -> int:
        """How long a vector is."""
        return int(self._table.shape[1])

    @property
    def vocabulary(self) -> int:
        """How many token ids there are."""
        return int(self._table.shape[0])

    def __call__(self, texts: Sequence[Sequence[int]]) -> list[_Floats]:
        """One vector for each token of *texts*."""
        return [self._table[list(ids)].astype(np.float32) for ids in texts]
