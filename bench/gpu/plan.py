"""
What is measured: a dozen cells, each a server, a model, texts and clients.

Not the full product, which would take hours: for each server the number of
clients is varied on small texts, and longer texts, more of them and the large
model are looked at where many clients come.
"""

from collections.abc import Iterable, Sequence

import attrs
from attrs import frozen

from bench.gpu.words import texts

__all__ = ["CELLS", "DRY", "SECONDS", "Cell", "cells_of", "described", "groups"]

SECONDS, SECONDS_OF_MANY = 5, 20
MANY = 1000
DIFFERENT_CALLS = 4096
"""So many calls take turns under load."""


@frozen(kw_only=True)
class Cell:
    """One kind of call to one server, and how many clients make it at a time."""

    server: str
    shape: str = "minilm"
    words: int = 10
    inputs: int = 1
    clients: int

    @property
    def name(self) -> str:
        """Tell it from the others."""
        size = f"{self.inputs}x{self.words}"
        return f"{self.server}-{self.shape}-{size}-{self.clients}"

    @property
    def seconds(self) -> int:
        """Say how long to ask the server directly: many clients wait long for it."""
        return SECONDS_OF_MANY if self.clients >= MANY else SECONDS

    def texts(self, number: int) -> list[str]:
        """Write the inputs of a call."""
        return texts(self.words, self.inputs, seed=number)


def cells_of(server: str, clients: Iterable[int]) -> tuple[Cell, ...]:
    """Vary the number of clients that send one short text."""
    return tuple(Cell(server=server, clients=each) for each in clients)


CELLS: Sequence[Cell] = (
    Cell(server="naive", clients=1),
    Cell(server="naive", clients=32),
    Cell(server="naive", clients=200, words=100, inputs=8),
    Cell(server="naive", clients=200),
    Cell(server="naive", clients=1000),
    Cell(server="naive", shape="large", clients=200),
    *cells_of("batcher", (1, 8, 32, 200, 1000)),
    Cell(server="batcher", clients=200, words=100, inputs=8),
    Cell(server="batcher", shape="large", clients=32, words=400),
    Cell(server="batcher", shape="large", clients=200, words=100),
)
"""Those of one server and model stand together; a new model is a new start."""

DRY: Sequence[Cell] = (
    Cell(server="naive", clients=8),
    Cell(server="batcher", clients=8, words=100, inputs=8),
)
"""Enough to see that all parts work together."""


def groups(cells: Iterable[Cell]) -> dict[tuple[str, str], list[Cell]]:
    """Sort cells by server and model: each of these is started once."""
    found: dict[tuple[str, str], list[Cell]] = {}
    for cell in cells:
        found.setdefault((cell.server, cell.shape), []).append(cell)
    return found


def described(cell: Cell) -> dict[str, object]:
    """Tell what a table has to know."""
    return {"name": cell.name, **attrs.asdict(cell)}
