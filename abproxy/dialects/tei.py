"""
The routes of text-embeddings-inference (TEI), as version 1.9 reads them.

A body is an object with one member for the items and others for options; an
answer is a list with one row for each item.  Each route is a type that says
which bodies are parsed, with the upstream's own defaults, and two functions for
its items and rows where they are special.  Source: TEI's
`router/src/http/types.rs` and the exchanges recorded from TEI 1.9.3.
"""

from collections.abc import Callable, Sequence
from itertools import chain
from typing import Annotated, Any

import msgspec
from attrs import field, frozen

from abproxy.dialects.bounds import (
    FEW,
    MAX_OPTIONS,
    Kind,
    check_members,
    look_over,
    too_many,
)
from abproxy.dialects.call import Dialect, Items, ParsedBody, Rows
from abproxy.dialects.members import OF_TEI, MemberRules
from abproxy.dialects.parse import (
    NOT_JSON,
    Direction,
    Inputs,
    Options,
    Size,
    SuffixCache,
    Text,
    Token,
    canonical,
    read_elements,
    read_ids,
    read_inputs,
    read_members,
    read_options,
    write_members,
)
from abproxy.dialects.split import (
    Lengths,
    Order,
    count_numbers,
    join,
    split_arrays,
    split_values,
)
from abproxy.errors import ProxyError, tei_error_body

__all__ = [
    "DECODE",
    "EMBED",
    "EMBED_ALL",
    "EMBED_SPARSE",
    "PREDICT",
    "TOKENIZE",
    "JSONRoute",
    "TruncatingBody",
]


def _any_width(_row: bytes) -> None:
    """Return that rows of one model may have different numbers of values."""


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

    has_ids: bool = True
    """Whether an item may be token ids."""

    texts: int = 1
    """How many texts an item may have."""

    split_rows: Callable[[bytes, Lengths, Order], list[Rows]] = split_values
    """Split an answer among the parts."""

    measure: Callable[[bytes], int | None] = _any_width
    """Return how many numbers a row has, where all rows of a model have as many."""

    has_usage: bool = False

    _suffixes: SuffixCache = field(init=False)
    _decode: Callable[[bytes], msgspec.Struct] = field(init=False)
    _decode_items: Callable[[bytes], Any] = field(init=False)

    @_suffixes.default
    def _make_suffixes(self) -> SuffixCache:
        return SuffixCache(items=self.items)

    @_decode.default
    def _make_decode(self) -> Callable[[bytes], msgspec.Struct]:
        body = msgspec.defstruct(
            self.body.__name__, [(self.items, msgspec.Raw)], bases=(self.body,)
        )
        return msgspec.json.Decoder(body).decode

    @_decode_items.default
    def _make_decode_items(self) -> Callable[[bytes], Any]:
        fields = msgspec.structs.fields(self.body)
        [kind] = [each.type for each in fields if each.name == self.items]
        return msgspec.json.Decoder(kind).decode

    def read(self, body: bytes, rules: MemberRules = OF_TEI) -> ParsedBody | None:
        """
        Parse *body* by the *rules*; None for all that TEI might read otherwise.

        Raises:
            CallTooLarge: it has more inputs than the *rules* allow, or more
                members than anyone needs.
        """
        try:
            raw, suffix = self._suffixes.split(body)
            options = self._suffixes.options.get((rules, suffix))
            if options is None:
                options = self._read_options(body, raw, suffix, rules)
            if options is None:
                return None
            if len(raw) > FEW:
                items = self._read_many(raw, rules)
            else:
                items = self.read_items(self._decode_items(raw), raw)
        except NOT_JSON:
            return None
        if items is None:
            return None
        if len(items.raw) > rules.max_inputs:
            raise too_many(rules.max_inputs)
        return ParsedBody(
            items=items, options=options.shared, alone_by=options.alone_by
        )

    def _read_options(
        self, body: bytes, raw: bytes, suffix: bytes, rules: MemberRules
    ) -> Options | None:
        """Return the options in *body*, and remember them; None if it is ambiguous."""
        check_members(suffix or body.replace(raw, b"", 1))
        if len(body) - len(raw) > MAX_OPTIONS:
            return None
        members = read_members(body)
        if members is None:
            return None
        # The items are read by themselves, and nothing is skipped twice.
        members[self.items] = b"null"
        known = self._decode(write_members(members))
        options = read_options(known, members, rules)
        self._suffixes.remember(rules, suffix, options)
        return options

    def _read_many(self, raw: bytes, rules: MemberRules) -> Items | None:
        """Return the items in a long member, of which not all may be decoded."""
        kind = look_over(raw, rules.max_inputs, self.texts)
        if kind is Kind.PLAIN:
            return self.read_items(self._decode_items(raw), raw)
        return read_ids(raw) if kind is Kind.IDS and self.has_ids else None

    def batch_body(self, items: Sequence[bytes], options: bytes) -> bytes:
        """Write `{"inputs":[…],…}`."""
        name = self.items.encode()
        return b'{"%b":[%b]%b}' % (name, b",".join(items), options)

    def split(self, body: bytes, lengths: Lengths, order: Order = None) -> list[Rows]:
        """Split the rows of *body* among the parts."""
        return self.split_rows(body, lengths, order)

    def write(self, parts: Sequence[Rows], items: Items) -> bytes:
        """Write all rows as a list, or the only row by itself."""
        return join(parts) if items.is_list else parts[0].raw[0]

    def width(self, row: bytes) -> int | None:
        """Return how many numbers the first row in *row* has."""
        return self.measure(row)

    def error_body(self, error: ProxyError) -> bytes:
        """Write `{"error","error_type"}`."""
        return tei_error_body(error)


class TruncatingBody(msgspec.Struct, kw_only=True):
    """A body that may say whether, and where, a text is cut that is too long."""

    truncate: bool | None = None
    truncation_direction: Direction = "Right"

    def __post_init__(self) -> None:
        self.truncation_direction = canonical(self.truncation_direction)


class PromptedBody(TruncatingBody, kw_only=True):
    inputs: Inputs
    prompt_name: str | None = None


class EmbedBody(PromptedBody, kw_only=True):
    normalize: bool = True
    dimensions: Size | None = None


class PredictBody(TruncatingBody, kw_only=True):
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
    if _are_sequences([value]):
        return Items(raw=[raw], lengths=[_length(value)], is_list=False)
    if not value or not _are_sequences(value):
        return None
    return Items(raw=read_elements(raw), lengths=list(map(_length, value)))


def _are_sequences(values: list[Any]) -> bool:
    if set(map(type, values)) != {list} or not set(map(len, values)) <= {1, 2}:
        return False
    return set(map(type, chain.from_iterable(values))) == {str}


def _length(texts: list[str]) -> int:
    return sum(map(len, texts))


EMBED = JSONRoute(
    path=b"/embed",
    items="inputs",
    body=EmbedBody,
    split_rows=split_arrays,
    measure=count_numbers,
)
EMBED_ALL = JSONRoute(path=b"/embed_all", items="inputs", body=PromptedBody)
EMBED_SPARSE = JSONRoute(path=b"/embed_sparse", items="inputs", body=PromptedBody)
PREDICT = JSONRoute(
    path=b"/predict",
    items="inputs",
    body=PredictBody,
    read_items=read_sequences,
    has_ids=False,
    texts=2,
)
TOKENIZE = JSONRoute(
    path=b"/tokenize", items="inputs", body=TokenizeBody, has_ids=False
)
DECODE = JSONRoute(path=b"/decode", items="ids", body=DecodeBody)
