"""
What a body may hold, counted before anything is made of it.

To skip a value costs 2 ns a byte, to make something of it a hundred times as much:
32 MB can be 8,000,000 inputs, or 15,000,000 token ids.  So long inputs are counted
by their bytes, within tenths of a second whatever they are.
"""

import re
from enum import Enum, auto

from abproxy.errors import CallTooLarge

__all__ = [
    "FEW",
    "MAX_INPUTS",
    "MAX_MEMBERS",
    "MAX_OPTIONS",
    "Kind",
    "check_members",
    "look_over",
    "too_many",
]

FEW = 100_000
"""So many values are made of a body in no time that counts."""

MAX_INPUTS = 100_000
"""Inputs of a call, unless the operator says otherwise."""

MAX_MEMBERS = 1000
"""Members that a body may have besides its inputs, those of their values included."""

MAX_OPTIONS = 1 << 20
"""Bytes of a body besides its inputs; with more it is relayed, and not read again."""

_OF_IDS = b"0123456789,[] \t\r\n"
"""All bytes of token ids, and of lists of them."""

_STRING = re.compile(rb'"[^"]*"')


class Kind(Enum):
    """The kinds of inputs, told apart by their bytes."""

    PLAIN = auto()
    """They are few enough to be decoded."""

    IDS = auto()
    """Nothing but token ids, too many to be decoded."""

    OTHER = auto()
    """No route has such inputs."""


def look_over(raw: bytes, most: int, texts: int) -> Kind:
    """
    Return what the inputs in *raw*, which is JSON, are.

    Args:
        raw: the member with the inputs.
        most: how many there may be.
        texts: how many texts one input may have.

    Raises:
        CallTooLarge: there are more than *most*.
    """
    if raw.count(b",") < FEW:
        return Kind.PLAIN
    if b'"' not in raw:
        if raw.translate(None, _OF_IDS):
            return Kind.OTHER
        _check_inputs(raw.count(b"[") - 1, most)
        return Kind.IDS
    plain = _without_escapes(raw)
    strings = plain.count(b'"') // 2
    _check_inputs(strings // texts, most)
    if texts > 1 and raw.count(b"[") <= most:
        return Kind.PLAIN  # in pairs an id is an error at once
    outside = _STRING.sub(b"", plain)
    lists = outside.count(b"[") - 1
    _check_inputs(lists + strings if texts == 1 else lists, most)
    has_few_ids = outside.count(b",") < strings + lists + FEW
    return Kind.PLAIN if has_few_ids else Kind.OTHER


def too_many(most: int) -> CallTooLarge:
    """Return the error for a call of more than *most* inputs."""
    return CallTooLarge(f"a call may have {most} inputs at most (MAX_CALL_INPUTS)")


def _check_inputs(inputs: int, most: int) -> None:
    if inputs > most:
        raise too_many(most)


def check_members(rest: bytes) -> None:
    """
    Raise if a body, of which *rest* is all but the inputs, has too many members.

    Raises:
        CallTooLarge: there are more than `MAX_MEMBERS`.
    """
    if rest.count(b":") <= MAX_MEMBERS:
        return
    plain = _without_escapes(rest)
    strings = plain.count(b'"') // 2
    if strings > FEW or _STRING.sub(b"", plain).count(b":") > MAX_MEMBERS:
        most = f"{MAX_MEMBERS} members at most besides its inputs"
        raise CallTooLarge(f"a body may have {most}")


def _without_escapes(text: bytes) -> bytes:
    """Return JSON in which each quote begins or ends a string."""
    if b"\\" not in text:
        return text
    return text.replace(b"\\\\", b"").replace(b'\\"', b"")
