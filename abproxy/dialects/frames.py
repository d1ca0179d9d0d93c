"""
What stands around the items of a body is read once, and remembered.

Most clients write the same body again and again with other items in it.  If
the items come first, and what follows them has been read before, only they
are left to read.  What follows is remembered by its bytes: read after any
other items, the same bytes are the same options.
"""

from collections.abc import Callable
from typing import Any

import msgspec
from attrs import define, field

__all__ = ["Framed", "SuffixCache"]

MOST = 256
"""So many are remembered; then all are forgotten, as some client never repeats."""

BLANK = ord(" ")

LONGEST = 1024
"""What follows the items is remembered up to so many bytes."""

Framed = tuple[bytes, bytes]
"""The items as they are spelled, and the options."""


@define(kw_only=True, eq=False)
class SuffixCache:
    """The bodies of one route whose items come first."""

    items: str
    """The name of the member that holds the items."""

    _beginning: bytes = field(init=False)
    _decode: Callable[[bytes], Any] = field(init=False, repr=False)
    _options: dict[bytes, bytes] = field(init=False, factory=dict, repr=False)
    """What follows the items, and which options that is."""

    def __attrs_post_init__(self) -> None:
        """Know how a body begins."""
        self._beginning = b'{"%b":' % self.items.encode()
        body = msgspec.defstruct(
            "Body", [("items", msgspec.Raw)], rename={"items": self.items}
        )
        self._decode = msgspec.json.Decoder(body).decode

    def find(self, body: bytes) -> Framed | None:
        """Find items and options in *body*, if its like was remembered."""
        try:
            spelled = bytes(self._decode(body).items)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return None
        options = self._options.get(self._after(body, spelled))
        return None if options is None else (spelled, options)

    def remember(self, body: bytes, spelled: bytes, options: bytes) -> None:
        """Remember *body*, which was read: its items are *spelled* so."""
        after = self._after(body, spelled)
        if not after or len(after) > LONGEST:
            return
        if len(self._options) >= MOST:
            self._options.clear()
        self._options[after] = options

    def _after(self, body: bytes, spelled: bytes) -> bytes:
        """Say what follows the items; nothing if these do not come first."""
        start = len(self._beginning)
        if body[start] == BLANK:
            start += 1  # as Python writes it
        is_first = body.startswith(spelled, start) and body.startswith(self._beginning)
        return body[start + len(spelled) :] if is_first else b""
