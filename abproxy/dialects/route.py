"""
The shape that all batched routes of text-embeddings-inference (TEI) share.

A body is an object with one member for the items and others for options; an
answer is a list with one row for each item.
"""

from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from attrs import field, frozen

from abproxy.dialects.call import Items, ParsedBody, Rows
from abproxy.dialects.frames import SuffixCache
from abproxy.dialects.inputs import read_inputs
from abproxy.dialects.members import read_members
from abproxy.dialects.options import spell_options
from abproxy.dialects.rows import Lengths, Order, deal_values, join
from abproxy.errors import ProxyError, tei_error_body

__all__ = ["JSONRoute"]


@frozen(kw_only=True, eq=False)
class JSONRoute:
    """The dialect of one TEI route whose answer is a list with a row per item."""

    path: bytes

    items: str
    """The name of the member that holds the items."""

    body: type[msgspec.Struct]
    """What is plainly understood; its defaults are the upstream's."""

    read_items: Callable[[Any, bytes], Items | None] = read_inputs
    """List the items in the decoded and the spelled member."""

    deal: Callable[[bytes, Lengths, Order], list[Rows]] = deal_values
    """Cut an answer, and deal its rows out to the parts."""

    has_usage: bool = False
    """Whether an answer tells how many tokens it cost."""

    _frames: SuffixCache = field(init=False)
    _decode: Callable[[bytes], msgspec.Struct] = field(init=False)
    _decode_items: Callable[[bytes], Any] = field(init=False)

    @_frames.default
    def _make_frames(self) -> SuffixCache:
        return SuffixCache(items=self.items)

    @_decode.default
    def _make_decode(self) -> Callable[[bytes], msgspec.Struct]:
        return msgspec.json.Decoder(self.body).decode

    @_decode_items.default
    def _make_decode_items(self) -> Callable[[bytes], Any]:
        fields = msgspec.structs.fields(self.body)
        [kind] = [each.type for each in fields if each.name == self.items]
        return msgspec.json.Decoder(kind).decode

    def read(self, body: bytes) -> ParsedBody | None:
        """Understand *body*; None for all that TEI might see in another way."""
        try:
            framed = self._frames.find(body)
            if framed is None:
                return self._read_whole(body)
            spelled, options = framed
            items = self.read_items(self._decode_items(spelled), spelled)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return None
        return None if items is None else ParsedBody(items=items, options=options)

    def _read_whole(self, body: bytes) -> ParsedBody | None:
        known = self._decode(body)
        members = read_members(body)
        if members is None:
            return None
        spelled = members[self.items]
        items = self.read_items(getattr(known, self.items), spelled)
        if items is None:
            return None
        options = spell_options(known, members)
        self._frames.remember(body, spelled, options)
        return ParsedBody(items=items, options=options)

    def batch_body(self, items: Sequence[bytes], options: bytes) -> bytes:
        """Write `{"inputs":[…],…}`."""
        name = self.items.encode()
        return b'{"%b":[%b]%b}' % (name, b",".join(items), options)

    def cut(
        self,
        body: bytes,
        lengths: Lengths,
        order: Order = None,
    ) -> list[Rows]:
        """Deal the rows of *body* out to the parts."""
        return self.deal(body, lengths, order)

    def write(self, slices: Sequence[Rows], *, is_list: bool) -> bytes:
        """Write all rows as a list, or the only row by itself."""
        return join(slices) if is_list else slices[0].raw[0]

    def error_body(self, error: ProxyError) -> bytes:
        """Write `{"error","error_type"}`."""
        return tei_error_body(error)
