"""
The embeddings route of the OpenAI API, as TEI, vLLM, Infinity and others have it.

An answer is an object; its `data` are the rows, which carry their `index`, and
its `usage` is the batch's.  Each caller gets an answer with indexes from 0 and a
usage of its own; all other members stay as they are.
"""

import re
from collections.abc import Sequence
from enum import IntEnum, auto
from functools import lru_cache
from typing import Literal

import msgspec
from attrs import evolve

from abproxy.dialects.call import BadAnswer, Items, Rows, UnsplittableAnswer
from abproxy.dialects.parse import NOT_JSON, Inputs, Size
from abproxy.dialects.split import (
    Lengths,
    Members,
    Order,
    Template,
    count_numbers,
    distribute,
    find_embeddings,
    join_rows,
    make_template,
    read_object,
    read_rows,
    refuse_form,
    strip_indexes,
)
from abproxy.dialects.tei import JSONRoute
from abproxy.dialects.usage import Usage, add_up, decode_usage, divide, encode_usage
from abproxy.errors import ProxyError, openai_error_body

__all__ = ["OPENAI", "OPENAI_BARE"]

_LAST_INDEX = re.compile(rb'"index":(\d+)\}\Z')
_EMBEDDING = re.compile(rb'"embedding":[ \t\r\n]*[\["]')
_BARE = (b"[", b'"')
_NULL = b"null"
_NONE = msgspec.Raw(_NULL)


class EmbeddingsBody(msgspec.Struct):
    input: Inputs
    model: str | None = None
    user: str | None = None
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: Size | None = None


class Indexes(IntEnum):
    """The rows of an answer that have an index; the API promises it of all."""

    ALL = auto()

    BUT_ZERO = auto()
    """Protocol Buffers leave out what is 0, also where they are written as JSON."""

    NONE = auto()
    """The rows are in order; a null is none."""


class _Frame(msgspec.Struct, frozen=True):
    """The bytes around the rows in one part's answer."""

    template: Template
    """The answer without its rows and its usage."""

    usage: Usage
    """The part's own."""

    raw_usage: bytes
    """The usage of the batch, as it was written."""

    indexes: Indexes


_pack = msgspec.msgpack.encode
_unpack_frame = msgspec.msgpack.Decoder(tuple[bytes, bytes, bytes, int]).decode
_read_template = msgspec.msgpack.Decoder(
    tuple[tuple[bytes, ...], tuple[str, ...]]
).decode


LARGEST_TEMPLATE = 4 << 10
"""A larger one is made anew: it is all that the server adds to an answer."""


def _unpack_template(packed: bytes) -> Template:
    keeps = len(packed) <= LARGEST_TEMPLATE
    return _kept_template(packed) if keeps else Template(*_read_template(packed))


@lru_cache(64)
def _kept_template(packed: bytes) -> Template:
    return Template(*_read_template(packed))


class OpenAIRoute(JSONRoute):
    """The dialect of /v1/embeddings."""

    def split(self, body: bytes, lengths: Lengths, order: Order = None) -> list[Rows]:
        """Split the data, and the usage in proportion to the lengths."""
        found = _find_rows(body, sum(map(len, lengths)))
        raw = bytes(found.members.get("usage", _NONE))
        try:
            usages = divide(decode_usage(raw), list(map(sum, lengths)))
        except NOT_JSON as error:
            raise BadAnswer(f"no usage: {error}") from error
        template = make_template(found.members, ("data", "usage"))
        parts = distribute(found.rows, lengths, order)
        return [
            Rows(raw=part.raw, frame=_Frame(template, own, raw, found.indexes))
            for part, own in zip(parts, usages, strict=True)
        ]

    def write(self, parts: Sequence[Rows], items: Items) -> bytes:  # noqa: ARG002
        """Write all rows, and around them what stood around the first part's."""
        frames: list[_Frame] = [part.frame for part in parts]
        rows = (row for part in parts for row in part.raw)
        indexes = min(frame.indexes for frame in frames)
        numbered = [_numbered(row, at, indexes) for at, row in enumerate(rows)]
        frame, usage = frames[0], add_up([frame.usage for frame in frames])
        if usage and not frame.usage:
            # The server began to count between two parts of one call.
            frame = next(frame for frame in frames if frame.usage)
        raw = encode_usage(usage) if usage else frame.raw_usage
        return frame.template.fill({"data": join_rows(numbered), "usage": raw})

    def width(self, row: bytes) -> int | None:
        """Return how many numbers the embedding in *row* has, in either format."""
        found = _EMBEDDING.search(row)
        if found is None:
            return None
        start = found.end()
        if row.startswith(b"[", start - 1):
            return count_numbers(row, start)
        digits = row.find(b'"', start) - start
        return (digits - row.count(b"=", start, start + digits)) * 6 // 8 // 4

    def pack_frame(self, frame: _Frame) -> bytes:
        """Write the frame of a part's rows so that it can be kept."""
        template = _pack((frame.template.pieces, frame.template.holes))
        usage = encode_usage(frame.usage)
        return _pack((template, usage, frame.raw_usage, int(frame.indexes)))

    def unpack_frame(self, packed: bytes) -> _Frame:
        """
        Return the frame that `pack_frame` wrote.

        Raises:
            ValueError: it is no such frame.
        """
        template, usage, raw_usage, indexes = _unpack_frame(packed)
        return _Frame(
            _unpack_template(template),
            decode_usage(usage),
            raw_usage,
            Indexes(indexes),
        )

    def error_body(self, error: ProxyError) -> bytes:
        """Write `{"message","code","type"}`."""
        return openai_error_body(error)


class _Found(msgspec.Struct, frozen=True):
    """The members of an answer."""

    rows: list[bytes]
    """In order, and without their indexes where all end with them."""

    members: Members
    indexes: Indexes = Indexes.ALL


def _find_rows(body: bytes, count: int) -> _Found:
    try:
        plain = find_embeddings(body, count)
        if plain is not None:
            return _Found(*plain)
        members = read_object(body)
        rows = read_rows(bytes(members["data"]))
    except (KeyError, ValueError, RecursionError) as error:
        raise refuse_form(body, count, error) from error
    if len(rows) != count:
        raise BadAnswer(f"{len(rows)} embeddings for {count} inputs")
    if all(row.startswith(_BARE) for row in rows):
        raise UnsplittableAnswer("the embeddings are not in objects")
    return _in_order(rows, members)


def _in_order(rows: list[bytes], members: Members) -> _Found:
    """
    Return the rows in the order of their indexes, each place exactly once.

    Where all end with their indexes, these are left out; where none has one, the
    rows are in order.
    """
    stripped = strip_indexes(rows)
    if stripped is not None:
        return _Found(stripped, members)
    indexes = [_index(row) for row in rows]
    if not any(index is not None for index in indexes):
        return _Found(rows, members, Indexes.NONE)
    places = [index or 0 for index in indexes]
    if sorted(places) != list(range(len(rows))):
        raise BadAnswer("the indexes of the embeddings are not one for each input")
    in_order = [row for _, row in sorted(zip(places, rows, strict=True))]
    kind = Indexes.BUT_ZERO if None in indexes else Indexes.ALL
    return _Found(in_order, members, kind)


def _index(row: bytes) -> int | None:
    last = _LAST_INDEX.search(row, max(0, len(row) - 24))
    if last is not None:
        return int(last[1])
    try:
        written = bytes(read_object(row).get("index", _NONE))
        return None if written == _NULL else int(written)
    except (*NOT_JSON, ValueError) as error:
        raise BadAnswer("an embedding whose place cannot be read") from error


def _numbered(row: bytes, at: int, indexes: Indexes) -> bytes:
    if not row.endswith(b"}"):
        return b'%b"index":%d}' % (row, at)
    if indexes is Indexes.NONE:
        return row
    members = read_object(row)
    members["index"] = msgspec.Raw(b"%d" % at)
    if indexes is Indexes.BUT_ZERO and not at:
        del members["index"]
    return msgspec.json.encode(members)


OPENAI = OpenAIRoute(
    path=b"/v1/embeddings", items="input", body=EmbeddingsBody, has_usage=True
)
OPENAI_BARE = evolve(OPENAI, path=b"/embeddings")
"""The same without a version; not every server has both, so they are two routes."""
