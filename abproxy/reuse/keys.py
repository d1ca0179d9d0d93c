"""
Under which key the row of an item is kept.

It covers everything on which the row depends, and who may see it: the model, the
route and its options, the header lines that reach the upstream but for credentials
of ours, perhaps the client, and the item byte for byte.
"""

from collections.abc import Sequence
from hashlib import blake2b

import msgspec
from attrs import define, field

from abproxy.dialects.call import Call, LaneKey
from abproxy.http.messages import HeaderList

__all__ = ["Keys", "key_of"]

VERSION = b"1"
"""Of the form of keys and entries: others are never found."""

MOST_PREFIXES = 1024
"""So many are remembered; then all are forgotten, as some never repeat."""

LARGEST_LANE = 8 << 10
"""The prefix of a larger lane is made anew: clients decide how large theirs are."""

LENGTH = 32


@define(kw_only=True, eq=False)
class Keys:
    """Makes keys, for one model."""

    epoch: Sequence[str]
    """What identifies the model, and how it computes."""

    by_client: bool
    """Whether rows are kept for each client by itself."""

    are_ours: bool
    """Whether the credentials in a lane are those of the proxy."""

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
