"""
The row of one item as it is kept, in memory and elsewhere.

It holds the bytes of the row, what its dialect needs to write an answer around it,
and the header lines that do not change from answer to answer.
"""

import re
from functools import lru_cache

import msgspec
from twisted.web.http import OK

from abproxy.dialects.call import Dialect, PartResult, Rows
from abproxy.dialects.reply import CHARACTERS, counts_characters, lines_of_all
from abproxy.http.messages import HeaderList, Response

__all__ = ["pack", "unpack"]

_OF_THE_MOMENT = re.compile(
    rb"date|age|expires|via|server-timing|retry-after|cf-.*|.*rate-?limit.*"
    rb"|(?:.*[-_])?(?:id|trace|traceparent|tracestate|ray|remaining|reset"
    rb"|time|timing|duration|latency|ms|seconds|queue|queued|cache)(?:[-_].*)?",
    re.IGNORECASE | re.DOTALL,
)
"""The names of header lines that are about one answer, and when it was given."""

_encode = msgspec.msgpack.encode
_decode = msgspec.msgpack.Decoder(tuple[bytes, bytes, bytes]).decode
_decode_head = msgspec.msgpack.Decoder(
    tuple[bytes, tuple[tuple[bytes, bytes], ...]]
).decode


def pack(dialect: Dialect, result: PartResult) -> bytes | None:
    """Return the *result* of one item as bytes; None if it has no row by itself."""
    rows = result.rows
    if rows is None or len(rows.raw) != 1:
        return None
    head = _head(result.response.reason, _lasting(result.response))
    return _encode((head, rows.raw[0], dialect.pack_frame(rows.frame)))


def unpack(dialect: Dialect, packed: bytes, marks: HeaderList = ()) -> PartResult:
    """
    Return the result that `pack` wrote, with the lines *marks* in its answer.

    Raises:
        ValueError: it is none.
    """
    head, row, frame = _decode(packed)
    return PartResult(
        response=_response(head, marks),
        rows=Rows(raw=(row,), frame=dialect.unpack_frame(frame)),
    )


@lru_cache(64)
def _head(reason: bytes, lines: HeaderList) -> bytes:
    return _encode((reason, lines))


@lru_cache(64)
def _response(head: bytes, marks: HeaderList) -> Response:
    """Return one object for equal heads: their lines are spelled once."""
    reason, lines = _decode_head(head)
    return Response(status=OK, reason=reason, headers=(*lines, *marks), body=b"")


def _lasting(response: Response) -> HeaderList:
    """Return the lines that are right for a later answer."""
    lines = tuple(line for line in lines_of_all(response) if not _passes(line[0]))
    # Its number is that of each call: only that there is one is kept.
    return (*lines, (CHARACTERS, b"0")) if counts_characters(response) else lines


@lru_cache(1000)
def _passes(name: bytes) -> bool:
    return _OF_THE_MOMENT.fullmatch(name) is not None
