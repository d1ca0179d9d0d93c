"""
From the answer of a batch to the rows of each part.

Rows are found, never decoded: a float that is not parsed cannot be re-rounded.
The quick scans go from row to row and are only trusted where everything looks
as TEI writes it; whatever looks otherwise goes to a JSON parser.

A row may hold what no parser takes, the bare word `NaN`: alone its sender gets it
as it is, so it gets the same row in a batch, and the others get theirs.
"""

import re
from collections.abc import Collection, Mapping, Sequence
from functools import lru_cache

import msgspec
from attrs import frozen

from abproxy.dialects.call import BadAnswer, Rows, UnsplittableAnswer
from abproxy.dialects.parse import NOT_JSON, read_elements

__all__ = [
    "ROW",
    "Lengths",
    "Members",
    "Order",
    "Template",
    "count_numbers",
    "distribute",
    "find_arrays",
    "find_embeddings",
    "find_values",
    "join",
    "join_rows",
    "make_template",
    "quote_words",
    "read_object",
    "read_rows",
    "refuse_form",
    "split_arrays",
    "split_values",
    "strip_indexes",
    "unquote_words",
]

Lengths = Sequence[Sequence[int]]
"""For each part the lengths of its items."""

Order = Sequence[int] | None
"""Which item was sent at each place, if they were sorted."""


# Lists of rows


def split_arrays(body: bytes, lengths: Lengths, order: Order = None) -> list[Rows]:
    """
    Split `[[…],[…]]` among the parts, as /embed answers.

    What one part gets is one piece of *body*, unless items were sorted.

    Raises:
        BadAnswer: there is not exactly one row for each item.
    """
    count = sum(map(len, lengths))
    if order is not None:
        return distribute(find_arrays(body, count), lengths, order)
    ends = _ends_of_rows(body)
    if ends is None or len(ends) != count:
        return split_values(body, lengths)
    parts, start, at = [], 1, -1
    for of_part in lengths:
        at += len(of_part)
        parts.append(Rows(raw=(body[start : ends[at]],)))
        start = ends[at] + 1
    return parts


def split_values(body: bytes, lengths: Lengths, order: Order = None) -> list[Rows]:
    """
    Split a JSON array of any values among the parts.

    Raises:
        BadAnswer: there is not exactly one row for each item.
    """
    return distribute(find_values(body, sum(map(len, lengths))), lengths, order)


def find_arrays(body: bytes, count: int) -> list[bytes]:
    """
    Return the *count* flat arrays in `[[…],[…]]`.

    Raises:
        BadAnswer: there are not exactly *count* rows.
    """
    ends = _ends_of_rows(body)
    if ends is None or len(ends) != count:
        return find_values(body, count)
    return [body[start + 1 : end] for start, end in zip([0, *ends], ends, strict=False)]


def _ends_of_rows(body: bytes) -> list[int] | None:
    """Return where flat rows end that are written without a blank between them."""
    if not body.startswith(b"[[") or b'"' in body:
        return None
    ends: list[int] = []
    # A single byte is found faster than any other pattern, by a factor of ten.
    start, find = 1, body.find
    while (end := find(b"]", start) + 1) and find(b"[", start + 1, end) < 0:
        ends.append(end)
        if not body.startswith(b",[", end):
            return ends if body[end:] == b"]" else None
        start = end + 1
    return None


def count_numbers(row: bytes, start: int = 0) -> int:
    """Return how many numbers the flat array has that begins at *start* of *row*."""
    return row.count(b",", start, row.find(b"]", start)) + 1


def find_values(body: bytes, count: int) -> list[bytes]:
    """
    Return the *count* values in a JSON array, with a parser.

    Raises:
        UnsplittableAnswer: the rows are elsewhere than in an array.
        BadAnswer: there are not exactly *count* rows, or no array at all.
    """
    try:
        rows = read_rows(body)
    except ValueError as error:
        raise refuse_form(body, count, error) from error
    if len(rows) != count:
        raise BadAnswer(f"{len(rows)} rows for {count} inputs")
    return rows


def read_rows(body: bytes) -> list[bytes]:
    """
    Return the values in a JSON array, however many there are.

    Raises:
        ValueError: it is not an array, or not JSON.
    """
    try:
        return read_elements(body)
    except ValueError:
        quoted = quote_words(body)
        if quoted is None:
            raise
        return list(map(unquote_words, read_elements(quoted)))


def distribute(
    rows: Sequence[bytes], lengths: Lengths, order: Order = None
) -> list[Rows]:
    """
    Return for each part as many of *rows* as it has items.

    Args:
        rows: one for each item, as the upstream answered.
        lengths: for each part the lengths of its items.
        order: which item was sent at each place, if they were sorted.
    """
    if order is not None:
        rows = [row for _, row in sorted(zip(order, rows, strict=True))]
    parts, start = [], 0
    for of_part in lengths:
        end = start + len(of_part)
        parts.append(Rows(raw=rows[start:end]))
        start = end
    return parts


def join(parts: Sequence[Rows]) -> bytes:
    """Join the rows of all *parts* as one JSON array."""
    return join_rows([row for part in parts for row in part.raw])


def join_rows(rows: list[bytes]) -> bytes:
    """Join *rows*, which are changed by it, as one JSON array, with one copy."""
    if len(rows) < 2:  # noqa: PLR2004
        return b"[%b]" % b"".join(rows)
    rows[0] = b"[" + rows[0]
    rows[-1] += b"]"
    return b",".join(rows)


# Words that are no JSON, but that many servers write for numbers which are none

_MARK = b"\x7f"
_STRING_OR_WORD = re.compile(
    rb'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)|[-+]?\b(?:nan|inf(?:inity)?)\b',
    re.IGNORECASE | re.DOTALL,
)
_QUOTED_WORD = re.compile(rb'"\x7f([-+]?[A-Za-z]{3,8})\x7f"')


def quote_words(body: bytes) -> bytes | None:
    """
    Write `NaN` and `Infinity` in *body* as texts, so that a parser takes it.

    None if there are none, or if they could not be told from its own texts again.
    """
    if _MARK in body:
        return None
    quoted = _STRING_OR_WORD.sub(_quote, body)
    return None if len(quoted) == len(body) else quoted


def _quote(found: re.Match[bytes]) -> bytes:
    text = found[0]
    return text if text.startswith(b'"') else b'"\x7f%b\x7f"' % text


def unquote_words(piece: bytes) -> bytes:
    """Return *piece* of what `quote_words` wrote as it was."""
    return _QUOTED_WORD.sub(rb"\1", piece) if _MARK in piece else piece


# Answers in another form

_decode_any = msgspec.json.Decoder(list[msgspec.Raw] | dict[str, msgspec.Raw]).decode
_OF_ERRORS = frozenset({"detail", "details", "error", "errors", "message"})
_DEPTH = 3


def refuse_form(body: bytes, count: int, error: Exception) -> BadAnswer:
    """
    Return the error for an answer without the form of its route, as *error* says.

    It only counts as another form if there are *count* rows somewhere: an error
    with status 200 may be about one item.
    """
    if _holds_rows(quote_words(body) or body, count, _DEPTH):
        return UnsplittableAnswer(f"the rows are in another form: {error}")
    return BadAnswer(f"no list of rows: {error}")


def _holds_rows(body: bytes, count: int, depth: int) -> bool:
    try:
        found = _decode_any(body)
    except NOT_JSON:
        return False
    if isinstance(found, list):
        return len(found) == count
    return depth > 1 and any(
        _holds_rows(bytes(value), count, depth - 1)
        for name, value in found.items()
        if name.lower() not in _OF_ERRORS
    )


# OpenAI's objects

FEW = 1000
"""What belongs to more rows is not kept: a call may have a hundred times as many."""

Members = dict[str, msgspec.Raw]

_decode_members = msgspec.json.Decoder(Members).decode

OPENING = b'{"object":"list","data":['
ROW = b'{"object":"embedding","embedding":'
CLOSING = {ord('"'): b'"', ord("["): b"]"}
COMMA = ord(",")
NO_ROWS = b"[]"


def read_object(body: bytes) -> Members:
    """
    Return the members of the object in *body*.

    Raises:
        msgspec.DecodeError: it is not an object, or not JSON.
    """
    try:
        return _decode_members(body)
    except msgspec.DecodeError:
        quoted = quote_words(body)
        if quoted is None:
            raise
        members = _decode_members(quoted).items()
        return {name: msgspec.Raw(unquote_words(bytes(raw))) for name, raw in members}


def _endings(count: int) -> tuple[bytes, ...]:
    """Return how *count* rows end that are in order."""
    return _kept_endings(count) if count <= FEW else _kept_endings.__wrapped__(count)


@lru_cache(32)
def _kept_endings(count: int) -> tuple[bytes, ...]:
    return tuple(b'"index":%d}' % at for at in range(count))


def strip_indexes(rows: list[bytes]) -> list[bytes] | None:
    """Return *rows* without their indexes; None unless each ends with its place."""
    endings = _endings(len(rows))
    if not all(map(bytes.endswith, rows, endings)):
        return None
    return [row[: -len(end)] for row, end in zip(rows, endings, strict=True)]


def find_embeddings(body: bytes, count: int) -> tuple[list[bytes], Members] | None:
    """
    Return the *count* rows in *body* without their indexes, and what is around them.

    None unless each row looks as TEI writes it and ends with the index of its
    place.  What stands behind the rows is parsed in any case.
    """
    if not body.startswith(OPENING) or b"\\" in body:
        return None
    rows, at = [], len(OPENING)
    for place, ending in enumerate(_endings(count), 1):
        end = _end_of_value(body, at)
        after = end + 1 + len(ending)
        goes_on = b"," if place < count else b"]"
        is_plain = body.startswith(ending, end + 1) and body.startswith(goes_on, after)
        if not is_plain or body[end] != COMMA:
            return None
        rows.append(body[at : end + 1])
        at = after + 1
    members = read_object(OPENING + body[at - 1 :])
    return (rows, members) if bytes(members["data"]) == NO_ROWS else None


def _end_of_value(body: bytes, start: int) -> int:
    """Return where the embedding in the row at *start* ends; 0 if it is not plain."""
    # Behind an inner bracket, or one in a text, no index follows: as the caller
    # looks for that, nested values need not be looked for here.
    value = start + len(ROW)
    if not body.startswith(ROW, start) or value >= len(body):
        return 0
    closing = CLOSING.get(body[value])
    return body.find(closing, value + 1) + 1 if closing else 0


@frozen
class Template:
    """An object of which all members stay as they are, but for a few."""

    pieces: tuple[bytes, ...]
    """What stands before, between and after the holes."""

    holes: tuple[str, ...]
    """The names of the members that are missing, in order."""

    def fill(self, values: Mapping[str, bytes]) -> bytes:
        """Write the object with these *values* in its holes."""
        written = [self.pieces[0]]
        for name, piece in zip(self.holes, self.pieces[1:], strict=True):
            written += (values[name], piece)
        return b"".join(written)


def make_template(
    members: Mapping[str, msgspec.Raw], holes: Collection[str]
) -> Template:
    """Return the object with these *members*, and with *holes* to fill in."""
    pieces, names, piece = [], [], b"{"
    for at, (name, value) in enumerate(members.items()):
        piece += b"," if at else b""
        piece += msgspec.json.encode(name) + b":"
        if name in holes:
            pieces.append(piece)
            names.append(name)
            piece = b""
        else:
            piece += bytes(value)
    return Template((*pieces, piece + b"}"), tuple(names))
