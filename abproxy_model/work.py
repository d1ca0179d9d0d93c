"""
One request's work, from inputs to the bytes of its answer.

All of it happens in the model's thread: tokens, vectors, digits. Nothing here
knows HTTP, and nothing is merged across requests.
"""

from collections.abc import Callable, Sequence
from time import perf_counter

import numpy as np
from attrs import frozen
from numpy.typing import NDArray

from abproxy_model.errors import ValidationError
from abproxy_model.model import Model
from abproxy_model.pooling import finish, mean
from abproxy_model.tokens import Input, Options

__all__ = ("Done", "Work")

_Floats = NDArray[np.float32]


@frozen(kw_only=True)
class Done:
    """What came of the work."""

    body: bytes
    lengths: Sequence[int]
    """The tokens of each input."""

    began_at: float
    tokenization_s: float
    inference_s: float


@frozen(kw_only=True)
class Work:
    """What one request asks the model to do."""

    model: Model
    items: Sequence[Input]
    write: Callable[[Sequence[_Floats], int], bytes]
    """Rows and the number of tokens to the answer's body."""

    options: Options
    normalize: bool = True
    dimensions: int | None = None
    pooled: bool = True

    def do(self) -> Done:
        """
        Compute the answer.

        Raises:
            ModelError: an input cannot be embedded; the first one decides.
        """
        began_at = perf_counter()
        ids = [self._encode(item) for item in self.items]
        tokenized_at = perf_counter()
        rows = [self._finish(each) for each in self.model.token_vectors(ids)]
        computed_at = perf_counter()
        lengths = [len(each) for each in ids]
        return Done(
            body=self.write(rows, sum(lengths)),
            lengths=lengths,
            began_at=began_at,
            tokenization_s=tokenized_at - began_at,
            inference_s=computed_at - tokenized_at,
        )

    def _encode(self, item: Input) -> list[int]:
        if self.dimensions == 0:
            raise ValidationError(
                "Input validation error: `dimensions` should be positive"
            )
        ids = self.model.encode(item, self.options)
        if self.dimensions is not None and self.dimensions > self.model.dimensions:
            raise ValidationError(
                "Input validation error: `dimensions` should be smaller than the "
                "maximum embedding dimension."
            )
        return ids

    def _finish(self, token_vectors: _Floats) -> _Floats:
        if not self.pooled:
            return token_vectors
        return finish(
            mean(token_vectors),
            dimensions=self.dimensions,
            normalize=self.normalize,
        )
