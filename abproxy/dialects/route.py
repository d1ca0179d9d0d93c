"""
The shape that all batched routes of text-embeddings-inference (TEI) share.

A body is an object with one member for the items and others for options; an
answer is a list with one row for each item.
"""

from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from attrs import field, frozen

from abproxy.dialects.call import Items, Reading, Slice
from abproxy.dialects.inputs import read_inputs
from abproxy.dialects.members import read_members
from abproxy.dialects.options import spell_options
from abproxy.dialects.rows import cut_values, deal, join
from abproxy.errors import ProxyError, tei_error_body

__all__ = ["TeiRoute"]


@frozen(kw_only=True, eq=False)
class TeiRoute:
    """The dialect of one TEI route whose answer is a list with a row per item."""

    path: bytes

    items: str
    """The name of the member that holds the items."""

    body: type[msgspec.Struct]
    """What is plainly understood; its defaults are the upstream's."""

    read_items: Callable[[Any, bytes], Items | None] = read_inputs
    """List the items in the decoded and the spelled member."""

    cut_rows: Callable[[bytes, int], list[bytes]] = cut_values
    """Cut an answer into so many rows."""

    has_usage: bool = False
    """Whether an answer tells how many tokens it cost."""

    _decode: Callable[[bytes], msgspec.Struct] = field(init=False)

    @_decode.default
    def _make_decode(self) -> Callable[[bytes], msgspec.Struct]:
        return msgspec.json.Decoder(self.body).decode

    def read(self, body: bytes) -> Reading | None:
        """Understand *body*; None for all that TEI might see in another way."""
        try:
            known = self._decode(body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return None
        members = read_members(body)
        if members is None:
            return None
        items = self.read_items(getattr(known, self.items), members[self.items])
        if items is None:
            return None
        return Reading(items=items, options=spell_options(known, members))

    def batch_body(self, items: Sequence[bytes], options: bytes) -> bytes:
        """Write `{"inputs":[…],…}`."""
        name = self.items.encode()
        return b'{"%b":[%b]%b}' % (name, b",".join(items), options)

    def cut(
        self,
        body: bytes,
        lengths: Sequence[Sequence[int]],
        order: Sequence[int] | None = None,
    ) -> list[Slice]:
        """Deal the rows of *body* out to the parts."""
        rows = self.cut_rows(body, sum(map(len, lengths)))
        return deal(rows, lengths, order)

    def write(self, slices: Sequence[Slice], *, is_list: bool) -> bytes:
        """Write all rows as a list, or the only row by itself."""
        return join(slices) if is_list else slices[0].rows[0]

    def error_body(self, error: ProxyError) -> bytes:
        """Write `{"error","error_type"}`."""
        return tei_error_body(error)
