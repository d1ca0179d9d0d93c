"""
An object of which all members stay as they are, but for a few.

What stays is put together once for a batch, and the others filled in for each
answer.
"""

from collections.abc import Collection, Mapping

import msgspec
from attrs import frozen

__all__ = ["Template", "mould_of"]


@frozen
class Template:
    """An object with gaps."""

    pieces: tuple[bytes, ...]
    """What stands before, between and after the gaps."""

    gaps: tuple[str, ...]
    """The names of the members that are missing, in order."""

    def fill(self, values: Mapping[str, bytes]) -> bytes:
        """Write the object with these *values* in its gaps."""
        written = [self.pieces[0]]
        for name, piece in zip(self.gaps, self.pieces[1:], strict=True):
            written += (values[name], piece)
        return b"".join(written)


def mould_of(members: Mapping[str, msgspec.Raw], gaps: Collection[str]) -> Template:
    """Leave *gaps* in the object that has these *members*."""
    pieces, names, piece = [], [], b"{"
    for at, (name, value) in enumerate(members.items()):
        piece += b"," if at else b""
        piece += msgspec.json.encode(name) + b":"
        if name in gaps:
            pieces.append(piece)
            names.append(name)
            piece = b""
        else:
            piece += bytes(value)
    return Template((*pieces, piece + b"}"), tuple(names))
