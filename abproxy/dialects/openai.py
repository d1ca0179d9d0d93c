"""
The embeddings route of the OpenAI API, as TEI, vLLM, Infinity and others have it.

An answer is an object; its `data` are the rows, which carry their `index`, and
its `usage` is the batch's.  Each caller gets an answer with indexes from 0 and a
usage of its own; all other members stay as they are.
"""

import re
from collections.abc import Sequence
from typing import Any, Literal

import msgspec
from attrs import evolve

from abproxy.dialects.call import BadAnswer, Rows
from abproxy.dialects.parse import NOT_JSON, Inputs, Size
from abproxy.dialects.split import (
    Lengths,
    Members,
    Order,
    Template,
    Usage,
    add_up,
    decode_members,
    distribute,
    divide,
    find_embeddings,
    make_template,
    strip_indexes,
)
from abproxy.dialects.tei import JSONRoute
from abproxy.errors import ProxyError, openai_error_body

__all__ = ["OPENAI", "OPENAI_BARE"]

_decode_rows = msgspec.json.Decoder(list[msgspec.Raw]).decode
_decode_usage = msgspec.json.Decoder(dict[str, Any] | None).decode
_LAST_INDEX = re.compile(rb'"index":(\d+)\}\Z')
_NONE = msgspec.Raw(b"null")


class EmbeddingsBody(msgspec.Struct):
    input: Inputs
    model: str | None = None
    user: str | None = None
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: Size | None = None


class _Frame(msgspec.Struct, frozen=True):
    """What goes around the rows in one part's answer."""

    template: Template
    """The answer without its rows and its usage."""

    usage: Usage
    """The part's own."""

    raw_usage: bytes
    """The usage of the batch, as it was written."""


class OpenAIRoute(JSONRoute):
    """The dialect of /v1/embeddings."""

    def split(self, body: bytes, lengths: Lengths, order: Order = None) -> list[Rows]:
        """Split the data, and the usage in proportion to the lengths."""
        try:
            rows, members = _rows_and_members(body, sum(map(len, lengths)))
            usage = _decode_usage(members.get("usage", _NONE)) or {}
        except (*NOT_JSON, KeyError) as error:
            raise BadAnswer(f"no list of embeddings: {error}") from error
        template = make_template(members, ("data", "usage"))
        raw = bytes(members.get("usage", _NONE))
        usages = divide(usage, list(map(sum, lengths)))
        return [
            Rows(raw=part.raw, frame=_Frame(template, own, raw))
            for part, own in zip(distribute(rows, lengths, order), usages, strict=True)
        ]

    def write(self, parts: Sequence[Rows], *, is_list: bool) -> bytes:  # noqa: ARG002
        """Write all rows, and around them what stood around the first part's."""
        rows = [row for part in parts for row in part.raw]
        data = b",".join([_numbered(row, at) for at, row in enumerate(rows)])
        frame: _Frame = parts[0].frame
        usage = add_up([part.frame.usage for part in parts])
        if usage and not frame.usage:
            # The server began to count between two parts of one call.
            frame = next(part.frame for part in parts if part.frame.usage)
        raw = msgspec.json.encode(usage) if usage else frame.raw_usage
        return frame.template.fill({"data": b"[%b]" % data, "usage": raw})

    def error_body(self, error: ProxyError) -> bytes:
        """Write `{"message","code","type"}`."""
        return openai_error_body(error)


def _rows_and_members(body: bytes, count: int) -> tuple[list[bytes], Members]:
    plain = find_embeddings(body, count)
    if plain is not None:
        return plain
    members = decode_members(body)
    rows = list(map(bytes, _decode_rows(members["data"])))
    return _in_order(rows, count), members


def _in_order(rows: list[bytes], count: int) -> list[bytes]:
    """
    Return the rows in the order of their indexes, each place exactly once.

    Where all end with their indexes, these are left out.
    """
    if len(rows) != count:
        raise BadAnswer(f"{len(rows)} embeddings for {count} inputs")
    stripped = strip_indexes(rows)
    if stripped is not None:
        return stripped
    places = [_index(row) for row in rows]
    if sorted(places) != list(range(count)):
        raise BadAnswer("the indexes of the embeddings are not one for each input")
    return [row for _, row in sorted(zip(places, rows, strict=True))]


def _index(row: bytes) -> int:
    last = _LAST_INDEX.search(row, max(0, len(row) - 24))
    if last is not None:
        return int(last[1])
    try:
        return int(bytes(decode_members(row)["index"]))
    except (msgspec.DecodeError, KeyError, ValueError) as error:
        raise BadAnswer("an embedding without an index") from error


def _numbered(row: bytes, at: int) -> bytes:
    if not row.endswith(b"}"):
        return b'%b"index":%d}' % (row, at)
    members = decode_members(row)
    members["index"] = msgspec.Raw(b"%d" % at)
    return msgspec.json.encode(members)


OPENAI = OpenAIRoute(
    path=b"/v1/embeddings", items="input", body=EmbeddingsBody, has_usage=True
)
OPENAI_BARE = evolve(OPENAI, path=b"/embeddings")
"""The same without a version; not every server has both, so they are two routes."""
