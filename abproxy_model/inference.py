"""
Computation of requests: permits, the queue for the thread, and the work itself.

One request at a time, and nothing is merged across requests.
Nothing here knows HTTP.
"""

from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from time import perf_counter
from typing import Any

import numpy as np
from attrs import define, field, frozen
from numpy.typing import NDArray
from twisted.internet.defer import Deferred

from abproxy_model.errors import OverloadedError, ValidationError
from abproxy_model.model import Model
from abproxy_model.tokens import Input, Options

__all__ = ("Job", "JobResult", "Permits", "WorkQueue")

_Floats = NDArray[np.float32]


@define(kw_only=True, eq=False)
class Permits:
    """
    The number of inputs that may be accepted and not yet answered.

    Requests never wait for a permit: one missing refuses the whole request.
    """

    _total: int
    _taken: int = field(init=False, default=0)

    @property
    def taken(self) -> int:
        """Permits in use."""
        return self._taken

    @contextmanager
    def hold(self, count: int) -> Iterator[None]:
        """
        Hold *count* permits while the block runs.

        Raises:
            OverloadedError: there are not as many left.
        """
        if self._taken + count > self._total:
            raise OverloadedError
        self._taken += count
        try:
            yield
        finally:
            self._taken -= count


@frozen(kw_only=True)
class _Entry:
    work: Callable[[], Any]
    size: int
    waiter: Deferred[Any]


@define(kw_only=True, eq=False)
class WorkQueue:
    """Work for one thread: first come, first served, one at a time."""

    _run: Callable[[Callable[[], Any]], Deferred[Any]]
    """Does the work somewhere else, typically in a thread."""

    _waiting: deque[_Entry] = field(init=False, factory=deque)
    _busy: bool = field(init=False, default=False)

    @property
    def size(self) -> int:
        """Return how much is waiting, in the units of `submit`."""
        return sum(entry.size for entry in self._waiting if not entry.waiter.called)

    def submit(self, work: Callable[[], Any], *, size: int = 1) -> Deferred[Any]:
        """
        Do *work* when its turn comes; the Deferred fires with its result.

        Cancelling the Deferred drops work that has not begun. Work that has begun
        is finished, and its result is thrown away.
        """
        waiter: Deferred[Any] = Deferred()
        self._waiting.append(_Entry(work=work, size=size, waiter=waiter))
        self._advance()
        return waiter

    def _advance(self) -> None:
        while self._waiting and not self._busy:
            entry = self._waiting.popleft()
            if not entry.waiter.called:
                self._busy = True
                self._run(entry.work).addBoth(self._finish, entry.waiter)

    def _finish(self, result: Any, waiter: Deferred[Any]) -> None:
        # The next piece of work starts before this one is answered, so that the
        # thread has something to do meanwhile.
        self._busy = False
        self._advance()
        waiter.callback(result)


@frozen(kw_only=True)
class JobResult:
    """The body of an answer, and what it cost."""

    body: bytes
    lengths: Sequence[int]
    """The tokens of each input."""

    began_at: float
    tokenization_s: float
    inference_s: float


@frozen(kw_only=True)
class Job:
    """The work of the model for one request, all of it in the model's thread."""

    model: Model
    items: Sequence[Input]
    write: Callable[[Sequence[_Floats], int], bytes]
    """Turns rows and the number of tokens into the answer's body."""

    options: Options
    normalize: bool = True
    dimensions: int | None = None
    pooled: bool = True

    def run(self) -> JobResult:
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
        return JobResult(
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
        ids = self.model.tokens.encode(item, self.options)
        if self.dimensions is not None and self.dimensions > self.model.dimensions:
            raise ValidationError(
                "Input validation error: `dimensions` should be smaller than the "
                "maximum embedding dimension."
            )
        return ids

    def _finish(self, token_vectors: _Floats) -> _Floats:
        """Pool, cut and normalize the vectors of one text, as TEI does."""
        if not self.pooled:
            return token_vectors
        vector = _mean(token_vectors)[: self.dimensions]
        return _normalized(vector) if self.normalize else vector


def _mean(token_vectors: _Floats) -> _Floats:
    """
    The mean over the tokens of one text.

    One text at a time and always in the same order of additions, so that a
    text's vector does not depend on its neighbours.
    """
    total: _Floats = np.add.reduce(token_vectors, axis=0)
    total /= np.float32(len(token_vectors))
    return total


def _normalized(vector: _Floats) -> _Floats:
    squares = vector.astype(np.float64) ** 2
    return vector * np.float32(1 / np.sqrt(np.add.reduce(squares)))
