"""
The members of a JSON object as the client's own bytes.

A value is never re-written on its way upstream, so it is found, not decoded.
An object in which a name stands twice, or is spelled with escapes, is not
plainly understood: servers differ in what they make of it.
"""

import re

import msgspec

__all__ = ["read_elements", "read_members"]

_decode_object = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_decode_array = msgspec.json.Decoder(list[msgspec.Raw]).decode
_NAME = re.compile(rb'[ \t\r\n]*"([^"\\]*)"[ \t\r\n]*:[ \t\r\n]*')
_COMMA = re.compile(rb"[ \t\r\n]*,")
_END = re.compile(rb"[ \t\r\n]*\}[ \t\r\n]*\Z")


def read_members(body: bytes) -> dict[str, bytes] | None:
    """
    Find the members of the object in *body*; None if it is not plainly one.

    The decoder keeps the last of two equal names without a word.  So its
    answer is laid over the text again: with each name used once, names and
    values account for everything between the braces.
    """
    try:
        found = {name: bytes(raw) for name, raw in _decode_object(body).items()}
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return found if _accounts_for(body, found) else None


def _accounts_for(body: bytes, found: dict[str, bytes]) -> bool:
    at = body.index(b"{") + 1
    for count, (name, value) in enumerate(found.items()):
        if count:
            comma = _COMMA.match(body, at)
            if comma is None:
                return False
            at = comma.end()
        spelled = _NAME.match(body, at)
        if spelled is None or spelled[1] != name.encode():
            return False
        at = spelled.end()
        if not body.startswith(value, at):
            return False
        at += len(value)
    return _END.match(body, at) is not None


def read_elements(array: bytes) -> list[bytes]:
    """
    Find the elements of the JSON array in *array*.

    Raises:
        ValueError: it is not an array, or not JSON.
    """
    try:
        return list(map(bytes, _decode_array(array)))
    except RecursionError as error:
        message = "nested too deep"
        raise ValueError(message) from error
