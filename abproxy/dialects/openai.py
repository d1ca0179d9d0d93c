"""
The embeddings route of the OpenAI API, as TEI, vLLM, Infinity and others have it.

An answer is an object; its `data` are the rows, which carry their `index`, and
its `usage` is the batch's.  Each caller gets an answer put together again with
indexes from 0 and a usage of its own; all other members stay as they are.
"""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import msgspec
from attrs import evolve, frozen

from abproxy.dialects.call import BadAnswer, Slice
from abproxy.dialects.inputs import Inputs, Size
from abproxy.dialects.route import TeiRoute
from abproxy.dialects.rows import deal
from abproxy.dialects.usage import share_out
from abproxy.errors import ProxyError, openai_error_body

__all__ = ["OPENAI", "OPENAI_BARE"]

_decode_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_LAST_INDEX = re.compile(rb'"index":(\d+)\}\Z')


class EmbeddingsBody(msgspec.Struct):
    input: Inputs
    model: str | None = None
    user: str | None = None
    encoding_format: Literal["float", "base64"] = "float"
    dimensions: Size | None = None


class _Answer(msgspec.Struct):
    data: list[msgspec.Raw]
    usage: dict[str, Any] | None = None


@frozen(kw_only=True)
class _Frame:
    """An answer without its rows, with one part's share of the usage."""

    members: Mapping[str, msgspec.Raw]
    usage: Mapping[str, Any]


class OpenAIRoute(TeiRoute):
    """The dialect of /v1/embeddings."""

    def cut(
        self,
        body: bytes,
        lengths: Sequence[Sequence[int]],
        order: Sequence[int] | None = None,
    ) -> list[Slice]:
        """Deal out the data, and the usage in proportion to the lengths."""
        try:
            members = _decode_members(body)
            answer = msgspec.json.decode(body, type=_Answer)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise BadAnswer(f"no list of embeddings: {error}") from error
        rows = _in_order(list(map(bytes, answer.data)), sum(map(len, lengths)))
        usages = _share_usage(answer.usage or {}, list(map(sum, lengths)))
        return [
            Slice(rows=part.rows, frame=_Frame(members=members, usage=usage))
            for part, usage in zip(deal(rows, lengths, order), usages, strict=True)
        ]

    def write(self, slices: Sequence[Slice], *, is_list: bool) -> bytes:  # noqa: ARG002
        """Write the first part's frame around all rows."""
        rows = [row for part in slices for row in part.rows]
        data = b",".join(_numbered(row, at) for at, row in enumerate(rows))
        members = dict(slices[0].frame.members)
        members["data"] = msgspec.Raw(b"[%b]" % data)
        usage = _sum([part.frame.usage for part in slices])
        if usage:
            members["usage"] = msgspec.Raw(msgspec.json.encode(usage))
        return msgspec.json.encode(members)

    def error_body(self, error: ProxyError) -> bytes:
        """Write `{"message","code","type"}`."""
        return openai_error_body(error)


def _in_order(rows: list[bytes], count: int) -> list[bytes]:
    """Put the rows where their indexes say, each place exactly once."""
    if len(rows) != count:
        raise BadAnswer(f"{len(rows)} embeddings for {count} inputs")
    places = [_index(row) for row in rows]
    if places == list(range(count)):
        return rows
    if sorted(places) != list(range(count)):
        raise BadAnswer("the indexes of the embeddings are not one for each input")
    return [row for _, row in sorted(zip(places, rows, strict=True))]


def _index(row: bytes) -> int:
    last = _LAST_INDEX.search(row, max(0, len(row) - 24))
    if last is not None:
        return int(last[1])
    try:
        return int(bytes(_decode_members(row)["index"]))
    except (msgspec.DecodeError, KeyError, ValueError) as error:
        raise BadAnswer("an embedding without an index") from error


def _numbered(row: bytes, at: int) -> bytes:
    last = _LAST_INDEX.search(row, max(0, len(row) - 24))
    if last is not None:
        return b"%b%d}" % (row[: last.start(1)], at)
    members = _decode_members(row)
    members["index"] = msgspec.Raw(b"%d" % at)
    return msgspec.json.encode(members)


def _counts(usage: Mapping[str, Any]) -> dict[str, int]:
    return {name: value for name, value in usage.items() if type(value) is int}


def _share_usage(usage: dict[str, Any], weights: list[int]) -> list[dict[str, Any]]:
    shares = [dict(usage) for _ in weights]
    for name, total in _counts(usage).items():
        for share, own in zip(shares, share_out(total, weights), strict=True):
            share[name] = own
    return shares


def _sum(usages: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    added: Counter[str] = Counter()
    for usage in usages:
        added.update(_counts(usage))
    return {**usages[0], **added}


OPENAI = OpenAIRoute(
    path=b"/v1/embeddings", items="input", body=EmbeddingsBody, has_usage=True
)
OPENAI_BARE = evolve(OPENAI, path=b"/embeddings")
"""The same without a version; not every server has both, so they are two routes."""
