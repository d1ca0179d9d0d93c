"""The model behind a server: a BERT on the card, or one that only takes its time."""

from collections.abc import Iterator, Sequence
from hashlib import sha256
from time import sleep
from typing import Any, Protocol

from bench.gpu.shapes import SHAPES, Shape
from bench.gpu.words import texts, tokens_in

__all__ = ["COUNTS", "TOKENS", "Model", "Pretended", "load", "sizes", "warm"]

COUNTS = (1, 2, 4, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512)
"""Texts in a step: it is filled up to one of these, so that no shape is new."""

TOKENS = 32_768
"""Tokens in a step; what has more is cut into several."""


class Model(Protocol):
    """What makes rows of texts."""

    def encode(self, texts: Sequence[str]) -> Any:
        """Make a row of each text, as JSON can be written of it."""


class Pretended:
    """It sleeps as long as a card works: for trying the benchmark without one."""

    STEP_S, TOKEN_S = 2e-3, 1e-6

    def __init__(self, shape: Shape) -> None:
        self._size = shape.size

    def encode(self, texts: Sequence[str]) -> list[list[float]]:
        """Sleep, and make rows that differ as the texts do."""
        tokens = sum(tokens_in(text.count(" ") + 1) for text in texts)
        sleep(self.STEP_S + tokens * self.TOKEN_S)
        return [list(_row(text, self._size)) for text in texts]


def _row(text: str, size: int) -> Iterator[float]:
    known = sha256(text.encode()).digest()
    for at in range(size):
        yield (known[at % len(known)] - 127.5) / 128


def load(shape: str, *, dry: bool) -> Model:
    """Load a model; a dry one needs neither card nor PyTorch."""
    if dry:
        return Pretended(SHAPES[shape])
    from bench.gpu.bert import Bert  # noqa: PLC0415

    return Bert(SHAPES[shape])


def sizes(words: int, counts: Sequence[int] = COUNTS) -> list[int]:
    """Say how many texts of so many words may be in a step."""
    return [count for count in counts if count * tokens_in(words) <= TOKENS]


def warm(model: Model, words: Sequence[int]) -> None:
    """Let it meet each shape once: the first time takes many times as long."""
    for each in words:
        for count in sizes(each):
            model.encode(texts(each, count))
