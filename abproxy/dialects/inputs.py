"""
What a list of inputs may look like to text-embeddings-inference (TEI).

A body is plainly understood if it fits these types, which are TEI's own with
everything left out that TEI would refuse anyway.  Source: `enum Input` in
TEI 1.9's `router/src/http/types.rs` and the exchanges recorded from it.
"""

from typing import Annotated, Any, Literal, cast

import msgspec

from abproxy.dialects.call import Items
from abproxy.dialects.members import read_elements

__all__ = ["Direction", "Inputs", "Size", "Text", "Token", "canonical", "read_inputs"]

Text = Annotated[str, msgspec.Meta(min_length=1)]
"""An empty text is an error; alone, it fails nobody else."""

Token = Annotated[int, msgspec.Meta(ge=0, le=2**32 - 1)]
Inputs = Text | Annotated[list[Text | list[Token] | Token], msgspec.Meta(min_length=1)]
_TOKENS = {int}
Direction = Literal["Left", "left", "Right", "right"]
Size = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]


def canonical(direction: Direction) -> Direction:
    """Spell a direction in one way: `right` and `Right` are the same to TEI."""
    return cast("Direction", direction.capitalize())


def read_inputs(value: Any, spelled: bytes) -> Items | None:
    """
    List the items in a member like `inputs`; None if they are mixed up.

    A bare list of integers is ONE input that was tokenised before; in a list
    of inputs, integers have no place and no list may be empty.
    """
    if isinstance(value, str):
        return Items(raw=[spelled], lengths=[len(value)])
    kinds = set(map(type, value))
    if kinds <= _TOKENS:
        return Items(raw=[spelled], lengths=[len(value)])
    if int in kinds or not all(value):
        return None
    return Items(raw=read_elements(spelled), lengths=list(map(len, value)))
