"""Whether an answer has the rows of who asked, and nothing of anybody else."""

import json
from collections.abc import Sequence

from bench.breakable import row_of

__all__ = ["are_own", "are_right", "rows_in"]


def rows_in(body: bytes) -> list[list[float]] | None:
    """Return the rows in an answer of any form; None if there are none."""
    try:
        found = json.loads(body)
    except ValueError:
        return None
    if isinstance(found, dict):
        found = found.get("data", found.get("embeddings"))
    if not isinstance(found, list):
        return None
    return [each["embedding"] if isinstance(each, dict) else each for each in found]


def are_right(body: bytes, texts: Sequence[str], dimensions: int = 4) -> bool:
    """Return whether these are the rows of *texts*, in order."""
    return rows_in(body) == [row_of(text, dimensions) for text in texts]


def are_own(body: bytes, texts: Sequence[str], dimensions: int = 4) -> bool:
    """
    Return whether all rows that there are belong to *texts*.

    A call that was alone gets what the server says, were it a row too few.
    """
    own = [row_of(text, dimensions) for text in texts]
    # A row with NaN is equal to none, and not even to itself.
    return all(row in own or "NaN" in json.dumps(row) for row in rows_in(body) or [])
