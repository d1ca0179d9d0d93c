"""
The row of one item as it is kept, in memory and elsewhere, and its key.

An entry holds the bytes of the row, what its dialect needs to write an answer
around it, and the header lines that do not change from answer to answer.

Its key covers everything on which the row depends, and who may see it: the model,
the route and its options, the header lines that reach the upstream but for
credentials of ours, perhaps the client, and the item byte for byte.
"""

import re
from collections.abc import Sequence
from functools import lru_cache
from hashlib import blake2b
from typing import Any

import msgspec
from attrs import define, field
from twisted.web.http import OK

from abproxy.dialects.call import (
    BadAnswer,
    Call,
    Dialect,
    LaneKey,
    PartResult,
    Rows,
)
from abproxy.dialects.reply import CHARACTERS, counts_characters, lines_of_all
from abproxy.dialects.tei import DECODE, TOKENIZE
from abproxy.http.messages import HeaderList, Response
from abproxy.reuse.rows import rows_of

__all__ = ["Keys", "entries_of", "key_of", "pack", "unpack"]

VERSION = b"1"
"""Of the form of keys and entries: others are never found."""

MOST_PREFIXES = 1024
"""So many are remembered; then all are forgotten, as some never repeat."""

LARGEST_LANE = 8 << 10
"""The prefix of a larger lane is made anew: clients decide how large theirs are."""

LENGTH = 32

_OF_THE_MOMENT = re.compile(
    rb"date|age|expires|via|server-timing|retry-after|cf-.*|.*rate-?limit.*|x-model-sha"
    rb"|.*(?:call|correlation|event|req|request|session|span|trace|transaction)id"
    rb"|(?:.*[-_])?(?:id|trace|traceparent|tracestate|ray|correlation"
    rb"|time|timing|timer|timestamp|runtime|duration|elapsed|latency|ms|seconds"
    rb"|remaining|reset|quota|spend|queue|queued|cache)(?:[-_].*)?",
    re.IGNORECASE | re.DOTALL,
)
"""The names of header lines that are about one answer, and when it was given."""

_encode = msgspec.msgpack.encode
_decode = msgspec.msgpack.Decoder(tuple[bytes, bytes, bytes]).decode
_decode_head = msgspec.msgpack.Decoder(
    tuple[bytes, tuple[tuple[bytes, bytes], ...]]
).decode


@define(kw_only=True, eq=False)
class Keys:
    """Makes keys, for one model."""

    epoch: Sequence[str]
    """What identifies the model, and how it computes."""

    by_client: bool
    """Whether rows are kept for each client by itself."""

    are_ours: bool
    """Whether the credentials in a lane are those of the proxy."""

    source: Any = None
    """Stands for the model, as what its rows come from."""

    marks: HeaderList = ()
    """Header lines that answers with its rows have."""

    _prefixes: dict[tuple[LaneKey, bytes], bytes] = field(
        init=False, factory=dict, repr=False
    )

    def are(self, other: "Keys") -> bool:
        """Return whether these are the keys that *other* makes."""
        return all(
            getattr(self, name) == getattr(other, name)
            for name in ("epoch", "by_client", "are_ours")
        )

    def prefix(self, call: Call) -> bytes:
        """Return what all keys of calls like *call* have in common, as a digest."""
        about = call.lane_key, call.client if self.by_client else b""
        prefix = self._prefixes.get(about)
        if prefix is None:
            prefix = self._digest(*about)
            if len(self._prefixes) >= MOST_PREFIXES:
                self._prefixes.clear()
            if call.lane_key.size + len(about[1]) <= LARGEST_LANE:
                self._prefixes[about] = prefix
        return prefix

    def _digest(self, lane: LaneKey, client: bytes) -> bytes:
        about = (
            VERSION,
            tuple(self.epoch),
            lane.dialect.path,
            lane.path,
            self._lines(lane.headers),
            lane.options,
            client,
        )
        packed = msgspec.msgpack.encode(about)
        return blake2b(packed, digest_size=LENGTH).digest()

    def _lines(self, headers: HeaderList) -> HeaderList:
        if not self.are_ours:
            return headers
        return tuple(line for line in headers if line[0].lower() != b"authorization")


def key_of(prefix: bytes, item: bytes) -> bytes:
    """Return the key of the row of *item*."""
    return blake2b(item, digest_size=LENGTH, key=prefix).digest()


_TEXT = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)
_EMBEDDING = re.compile(rb'"embedding":[ \t\r\n]*(?:\[[ \t\r\n]*[-\[0-9]|"[^"])')
_DIGIT = re.compile(rb"[0-9]")
_BOOLEAN = re.compile(rb"tru|fals")  # an `e` may be in a number
_IN_NUMBERS = b"0123456789+-.eE,:[]{} \t\r\n"
_TEXT_ROUTES = frozenset({TOKENIZE.path, DECODE.path})
"""No model computes their rows, in which a null or an empty text may be right."""


def pack(dialect: Dialect, result: PartResult) -> bytes | None:
    """Return the *result* of one item as bytes; None if it is no row by itself."""
    rows = result.rows
    if rows is None or len(rows.raw) != 1 or not _is_good(dialect, rows.raw[0]):
        return None
    head = _head(result.response.reason, _lasting(result.response))
    return _encode((head, rows.raw[0], dialect.pack_frame(rows.frame)))


def unpack(
    dialect: Dialect, packed: bytes, keys: Keys, marks: HeaderList = ()
) -> PartResult:
    """
    Return the result that `pack` wrote.

    Args:
        dialect: of its route.
        packed: what was written.
        keys: under which it was found.
        marks: header lines that are added to those of the keys.

    Raises:
        ValueError: it is none.
    """
    head, row, frame = _decode(packed)
    return PartResult(
        response=_response(head, keys.source, (*keys.marks, *marks)),
        rows=Rows(raw=(row,), frame=dialect.unpack_frame(frame)),
        calls=0,
    )


def _is_good(dialect: Dialect, row: bytes) -> bool:
    """
    Return whether *row* is a result, and no failure that came with status 200.

    Servers write `NaN` or null for what they could not compute, and errors in the
    place of rows: the next one who asks may get a result.
    """
    if dialect.path in _TEXT_ROUTES:
        return row.startswith((b"[", b'"'))
    if row.startswith(b'"'):
        return False
    outside = _TEXT.sub(b"", row) if b'"' in row else row
    if row.startswith(b"{"):
        if b'"error"' in row or _EMBEDDING.search(row) is None:
            return False
    elif _DIGIT.search(outside) is None:
        return False
    words = outside.translate(None, _IN_NUMBERS)
    return not words or not _BOOLEAN.sub(b"", words)


@lru_cache(64)
def _head(reason: bytes, lines: HeaderList) -> bytes:
    return _encode((reason, lines))


@lru_cache(64)
def _response(head: bytes, source: Any, marks: HeaderList) -> Response:
    """Return one object for equal heads: their lines are spelled once."""
    reason, lines = _decode_head(head)
    lines = (*lines, *marks)
    return Response(status=OK, reason=reason, headers=lines, body=b"", source=source)


def _lasting(response: Response) -> HeaderList:
    """Return the lines that are right for a later answer."""
    lines = tuple(line for line in lines_of_all(response) if not _passes(line[0]))
    # Its number is that of each call: only that there is one is kept.
    return (*lines, (CHARACTERS, b"0")) if counts_characters(response) else lines


@lru_cache(1000)
def _passes(name: bytes) -> bool:
    return _OF_THE_MOMENT.fullmatch(name) is not None


def entries_of(
    call: Call, results: Sequence[PartResult], keys: Keys
) -> dict[bytes, bytes]:
    """
    Return what is to be kept of the *results* of a *call*, by its keys.

    Nothing if their rows cannot be told from each other.
    """
    try:
        rows = rows_of(call, results)
    except BadAnswer:
        return {}
    dialect, prefix = call.lane_key.dialect, keys.prefix(call)
    return {
        key_of(prefix, item): packed
        for item, row in zip(call.items.raw, rows, strict=True)
        if (packed := pack(dialect, row)) is not None
    }
