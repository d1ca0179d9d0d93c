"""
Rows are cut, never decoded: a float that is not parsed cannot be re-rounded.

The quick knife counts brackets and splits between them.  It is only trusted
when every count agrees; whatever looks unusual goes to a real JSON parser.
"""

from collections.abc import Sequence
from itertools import accumulate, pairwise

from abproxy.dialects.call import BadAnswer, Slice
from abproxy.dialects.members import read_elements

__all__ = ["cut_arrays", "cut_values", "deal", "join"]


def cut_arrays(body: bytes, count: int) -> list[bytes]:
    """
    Cut `[[…],[…]]` into *count* flat arrays, as /embed answers.

    Raises:
        BadAnswer: there are not exactly *count* rows.
    """
    flat = body.count(b"[") == body.count(b"]") == count + 1
    if flat and body.startswith(b"[[") and body.endswith(b"]]"):
        rows = body[2:-2].split(b"],[")
        if len(rows) == count:
            return [b"[%b]" % row for row in rows]
    return cut_values(body, count)


def cut_values(body: bytes, count: int) -> list[bytes]:
    """
    Cut a JSON array of any *count* values with a parser.

    Raises:
        BadAnswer: there are not exactly *count* rows, or no array at all.
    """
    try:
        rows = read_elements(body)
    except ValueError as error:
        raise BadAnswer(f"no array of rows: {error}") from error
    if len(rows) != count:
        raise BadAnswer(f"{len(rows)} rows for {count} inputs")
    return rows


def deal(
    rows: Sequence[bytes],
    lengths: Sequence[Sequence[int]],
    order: Sequence[int] | None = None,
) -> list[Slice]:
    """
    Deal *rows* out, to each part as many as it has items.

    Args:
        rows: one for each item, as the upstream answered.
        lengths: for each part the lengths of its items.
        order: which item was sent at each place, if they were sorted.
    """
    if order is not None:
        rows = [row for _, row in sorted(zip(order, rows, strict=True))]
    ends = accumulate(map(len, lengths), initial=0)
    return [Slice(rows=rows[start:end]) for start, end in pairwise(ends)]


def join(slices: Sequence[Slice]) -> bytes:
    """Put the rows of all *slices* together as one JSON array."""
    return b"[%b]" % b",".join(row for part in slices for row in part.rows)
