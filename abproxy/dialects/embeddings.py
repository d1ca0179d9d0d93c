"""
The quick knife for OpenAI answers that are written as TEI writes them.

It goes from row to row, and is only trusted where each looks as TEI's do and
ends with the index of its place; whatever looks otherwise goes to a real JSON
parser.  What stands behind the rows is parsed in any case.
"""

from functools import lru_cache

import msgspec

__all__ = ["Members", "cut_plain", "read_members", "stems_of"]

Members = dict[str, msgspec.Raw]

read_members = msgspec.json.Decoder(Members).decode

OPENING = b'{"object":"list","data":['
ROW = b'{"object":"embedding","embedding":'
CLOSING = {ord('"'): b'"', ord("["): b"]"}
COMMA = ord(",")
NO_ROWS = b"[]"


@lru_cache(32)
def _endings(count: int) -> tuple[bytes, ...]:
    """Say how *count* rows end that are in order."""
    return tuple(b'"index":%d}' % at for at in range(count))


def stems_of(rows: list[bytes]) -> list[bytes] | None:
    """Take their indexes off *rows*, if each ends with that of its place."""
    endings = _endings(len(rows))
    if not all(map(bytes.endswith, rows, endings)):
        return None
    return [row[: -len(end)] for row, end in zip(rows, endings, strict=True)]


def cut_plain(body: bytes, count: int) -> tuple[list[bytes], Members] | None:
    """
    Cut *count* rows out of *body*, without their indexes; None if it is not plain.

    Returns:
        the rows, and the members around them.
    """
    if not body.startswith(OPENING) or b"\\" in body:
        return None
    stems, at = [], len(OPENING)
    for place, ending in enumerate(_endings(count), 1):
        end = _end_of_value(body, at)
        after = end + 1 + len(ending)
        goes_on = b"," if place < count else b"]"
        is_plain = body.startswith(ending, end + 1) and body.startswith(goes_on, after)
        if not is_plain or body[end] != COMMA:
            return None
        stems.append(body[at : end + 1])
        at = after + 1
    members = read_members(OPENING + body[at - 1 :])
    return (stems, members) if bytes(members["data"]) == NO_ROWS else None


def _end_of_value(body: bytes, start: int) -> int:
    """
    Find the end of the embedding in the row at *start*; 0 if it is not plain.

    Behind an inner bracket, or one in a text, no index follows: whoever looks
    for that need not look for nested values.
    """
    value = start + len(ROW)
    if not body.startswith(ROW, start) or value >= len(body):
        return 0
    closing = CLOSING.get(body[value])
    return body.find(closing, value + 1) + 1 if closing else 0
