"""
The routes of text-embeddings-inference (TEI), as version 1.9 reads them.

A body is an object with one member for the items and others for options; an
answer is a list with one row for each item.  Each route is a type that says
which bodies are parsed, with the upstream's own defaults, and two functions for
its items and rows where they are special.  Source: TEI's
`router/src/http/types.rs` and the exchanges recorded from TEI 1.9.3.
"""

from collections.abc import Callable, Sequence
from typing import Annotated, Any

import msgspec
from attrs import field, frozen

from abproxy.dialects.call import Dialect, Items, ParsedBody, Rows
from abproxy.dialects.members import OF_TEI, MemberRules
from abproxy.dialects.parse import (
    NOT_JSON,
    Direction,
    Inputs,
    Size,
    SuffixCache,
    Text,
    Token,
    canonical,
    read_elements,
    read_inputs,
    read_members,
    read_options,
)
from abproxy.dialects.split import Lengths, Order, join, split_arrays, split_values
from abproxy.errors import ProxyError, tei_error_body

__all__ = [
    "DECODE",
    "EMBED",
    "EMBED_ALL",
    "EMBED_SPARSE",
    "PREDICT",
    "TOKENIZE",
    "JSONRoute",
]


@frozen(kw_only=True, eq=False)
class JSONRoute(Dialect):
    """The dialect of one TEI route whose answer is a list with a row per item."""

    path: bytes

    items: str
    """The name of the member that holds the items."""

    body: type[msgspec.Struct]
    """The bodies that are parsed; its defaults are the upstream's."""

    read_items: Callable[[Any, bytes], Items | None] = read_inputs
    """Return the items in the member, given decoded and as the client wrote it."""

    split_rows: Callable[[bytes, Lengths, Order], list[Rows]] = split_values
    """Split an answer among the parts."""

    has_usage: bool = False

    _suffixes: SuffixCache = field(init=False)
    _decode: Callable[[bytes], msgspec.Struct] = field(init=False)
    _decode_items: Callable[[bytes], Any] = field(init=False)

    @_suffixes.default
    def _make_suffixes(self) -> SuffixCache:
        return SuffixCache(items=self.items)

    @_decode.default
    def _make_decode(self) -> Callable[[bytes], msgspec.Struct]:
        return msgspec.json.Decoder(self.body).decode

    @_decode_items.default
    def _make_decode_items(self) -> Callable[[bytes], Any]:
        fields = msgspec.structs.fields(self.body)
        [kind] = [each.type for each in fields if each.name == self.items]
        return msgspec.json.Decoder(kind).decode

    def read(self, body: bytes, rules: MemberRules = OF_TEI) -> ParsedBody | None:
        """Parse *body* by the *rules*; None for all that TEI might read otherwise."""
        try:
            raw, suffix = self._suffixes.split(body)
            options = self._suffixes.options.get((rules, suffix))
            if options is None:
                return self._read_whole(body, suffix, rules)
            items = self.read_items(self._decode_items(raw), raw)
        except NOT_JSON:
            return None
        if items is None:
            return None
        return ParsedBody(
            items=items, options=options.shared, alone_by=options.alone_by
        )

    def _read_whole(
        self, body: bytes, suffix: bytes, rules: MemberRules
    ) -> ParsedBody | None:
        known = self._decode(body)
        members = read_members(body)
        if members is None:
            return None
        items = self.read_items(getattr(known, self.items), members[self.items])
        if items is None:
            return None
        options = read_options(known, members, rules)
        self._suffixes.remember(rules, suffix, options)
        return ParsedBody(
            items=items, options=options.shared, alone_by=options.alone_by
        )

    def batch_body(self, items: Sequence[bytes], options: bytes) -> bytes:
        """Write `{"inputs":[…],…}`."""
        name = self.items.encode()
        return b'{"%b":[%b]%b}' % (name, b",".join(items), options)

    def split(self, body: bytes, lengths: Lengths, order: Order = None) -> list[Rows]:
        """Split the rows of *body* among the parts."""
        return self.split_rows(body, lengths, order)

    def write(self, parts: Sequence[Rows], *, is_list: bool) -> bytes:
        """Write all rows as a list, or the only row by itself."""
        return join(parts) if is_list else parts[0].raw[0]

    def error_body(self, error: ProxyError) -> bytes:
        """Write `{"error","error_type"}`."""
        return tei_error_body(error)


class _Truncating(msgspec.Struct, kw_only=True):
    truncate: bool | None = None
    truncation_direction: Direction = "Right"

    def __post_init__(self) -> None:
        self.truncation_direction = canonical(self.truncation_direction)


class PromptedBody(_Truncating, kw_only=True):
    inputs: Inputs
    prompt_name: str | None = None


class EmbedBody(PromptedBody, kw_only=True):
    normalize: bool = True
    dimensions: Size | None = None


class PredictBody(_Truncating, kw_only=True):
    inputs: Text | list[Text | list[Text]]
    raw_scores: bool = False


class TokenizeBody(msgspec.Struct):
    inputs: Text | Annotated[list[Text], msgspec.Meta(min_length=1)]
    add_special_tokens: bool = True
    prompt_name: str | None = None


class DecodeBody(msgspec.Struct):
    ids: Annotated[list[Token | list[Token]], msgspec.Meta(min_length=1)]
    skip_special_tokens: bool = True


def read_sequences(value: Any, raw: bytes) -> Items | None:
    """
    Return the texts and pairs in a body for /predict.

    `"a"`, `["a"]` and the pair `["a","b"]` are one input each and answered by
    one bare row; only a list of lists is a batch, answered by a list of rows.
    """
    if isinstance(value, str):
        return Items(raw=[b"[%b]" % raw], lengths=[len(value)], is_list=False)
    if _is_sequence(value):
        return Items(raw=[raw], lengths=[_length(value)], is_list=False)
    if not value or not all(map(_is_sequence, value)):
        return None
    return Items(raw=read_elements(raw), lengths=list(map(_length, value)))


def _is_sequence(value: Any) -> bool:
    one_or_two = isinstance(value, list) and len(value) in {1, 2}
    return one_or_two and all(isinstance(text, str) for text in value)


def _length(texts: list[str]) -> int:
    return sum(map(len, texts))


EMBED = JSONRoute(
    path=b"/embed", items="inputs", body=EmbedBody, split_rows=split_arrays
)
EMBED_ALL = JSONRoute(path=b"/embed_all", items="inputs", body=PromptedBody)
EMBED_SPARSE = JSONRoute(path=b"/embed_sparse", items="inputs", body=PromptedBody)
PREDICT = JSONRoute(
    path=b"/predict", items="inputs", body=PredictBody, read_items=read_sequences
)
TOKENIZE = JSONRoute(path=b"/tokenize", items="inputs", body=TokenizeBody)
DECODE = JSONRoute(path=b"/decode", items="ids", body=DecodeBody)
