"""
From the body of a call to its items and its options.

A value is never re-written on its way upstream, so it is found, not decoded.
What text-embeddings-inference (TEI) would refuse, and what servers might read
in different ways, is not parsed here: such a request is relayed as it is.
"""

import re
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import Annotated, Any, Literal, cast

import msgspec
from attrs import define, field

from abproxy.dialects.call import Items
from abproxy.dialects.members import MemberRules

__all__ = [
    "NOT_JSON",
    "Direction",
    "Inputs",
    "Options",
    "Size",
    "SuffixCache",
    "Text",
    "Token",
    "canonical",
    "read_elements",
    "read_ids",
    "read_inputs",
    "read_members",
    "read_options",
    "write_members",
]

NOT_JSON = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)
"""What msgspec raises for what is no JSON, or JSON of another type."""


# Members and elements, as the client's own bytes

_decode_object = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
_decode_array = msgspec.json.Decoder(list[msgspec.Raw]).decode
_NAME = re.compile(rb'[ \t\r\n]*"([^"\\]*)"[ \t\r\n]*:[ \t\r\n]*')
_COMMA = re.compile(rb"[ \t\r\n]*,")
_END = re.compile(rb"[ \t\r\n]*\}[ \t\r\n]*\Z")


def read_members(body: bytes) -> dict[str, bytes] | None:
    """
    Return the members of the object in *body*; None if it is ambiguous or none.

    An object in which a name stands twice, or is written with escapes, is
    ambiguous: servers differ in what they make of it.
    """
    # The decoder silently keeps the last of two equal names.  So its result is
    # laid over the text again: with each name used once, names and values
    # account for everything between the braces.
    try:
        found = {name: bytes(raw) for name, raw in _decode_object(body).items()}
    except NOT_JSON:
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
        written = _NAME.match(body, at)
        if written is None or written[1] != name.encode():
            return False
        at = written.end()
        if not body.startswith(value, at):
            return False
        at += len(value)
    return _END.match(body, at) is not None


def write_members(members: Mapping[str, bytes]) -> bytes:
    """Return an object with *members* as `read_members` has found them."""
    return b"{%b}" % b",".join(
        [b'"%b":%b' % (name.encode(), value) for name, value in members.items()]
    )


def read_elements(array: bytes) -> list[bytes]:
    """
    Return the elements of the JSON array in *array*.

    Raises:
        ValueError: it is not an array, or not JSON.
    """
    try:
        return list(map(bytes, _decode_array(array)))
    except RecursionError as error:
        message = "nested too deep"
        raise ValueError(message) from error


# Inputs: TEI's own types, with everything left out that it would refuse anyway.
# Source: `enum Input` in TEI 1.9's `router/src/http/types.rs` and the exchanges
# recorded from it.

Text = Annotated[str, msgspec.Meta(min_length=1)]
"""An empty text is an error; alone, it fails no other call."""

Token = Annotated[int, msgspec.Meta(ge=0, le=2**32 - 1)]
Inputs = Text | Annotated[list[Text | list[Token] | Token], msgspec.Meta(min_length=1)]
_TOKENS = {int}
Direction = Literal["Left", "left", "Right", "right"]
Size = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]


def canonical(direction: Direction) -> Direction:
    """Return the one spelling of a direction: `right` and `Right` are equal to TEI."""
    return cast("Direction", direction.capitalize())


def read_inputs(value: Any, raw: bytes) -> Items | None:
    """
    Return the items in a member like `inputs`; None if they are mixed up.

    A bare list of integers is ONE input that was tokenised before; in a list
    of inputs, integers have no place and no list may be empty.

    Args:
        value: the member, decoded.
        raw: the member as the client wrote it.
    """
    if isinstance(value, str):
        return Items(raw=[raw], lengths=[len(value)])
    kinds = set(map(type, value))
    if kinds <= _TOKENS:
        return Items(raw=[raw], lengths=[len(value)])
    if int in kinds or not all(value):
        return None
    return Items(raw=read_elements(raw), lengths=list(map(len, value)))


_DIGITS = bytes.maketrans(b"123456789", b"0" * 9)
_TEN_DIGITS = b"0" * 10


def read_ids(raw: bytes) -> Items | None:
    """
    Return the same of a member with nothing but token ids, without decoding them.

    It is JSON, and made of digits, commas, brackets and blanks only.  With ten
    digits an id may be none; no model has nearly as many.
    """
    if _TEN_DIGITS in raw.translate(_DIGITS):
        return None
    lists = raw.count(b"[") - 1
    if not lists:
        return Items(raw=[raw], lengths=[raw.count(b",") + 1])
    # Without ids and blanks it is `[[,,],[,]]`, where nothing is mixed or nested.
    shape = raw.translate(None, b"0123456789 \t\r\n")
    is_even = shape.startswith(b"[[") and shape.endswith(b"]]")
    if not is_even or shape.count(b"],[") != lists - 1:
        return None
    inputs = read_elements(raw)
    if not all(each[1:-1].strip() for each in inputs):
        return None
    return Items(raw=inputs, lengths=[each.count(b",") + 1 for each in inputs])


# Options: equal ones are equal bytes, so that lanes are found by comparing them


class Options(msgspec.Struct, frozen=True):
    """All members of a body but the required one, which holds the items."""

    shared: bytes
    """As they stand in a shared request."""

    alone_by: str | None
    """The member that keeps the call from being shared or split, if there is one."""


def read_options(
    known: msgspec.Struct, members: dict[str, bytes], rules: MemberRules
) -> Options:
    """
    Return the options in *members*, by the *rules* for sharing.

    Known members are written by value, and left out where they have their
    default: to the upstream absent, null and the default are one.  Unknown
    members keep the client's bytes, in the order of their names.
    """
    shared: list[bytes] = []
    alone_by = None
    for name, value, is_known in _each_option(known, members):
        if rules.is_alone(name, value, is_known=is_known):
            alone_by = alone_by or name
        if not rules.ignores(name):
            shared.append(b',"%b":%b' % (name.encode(), value))
    return Options(b"".join(shared), alone_by)


def _each_option(
    known: msgspec.Struct, members: dict[str, bytes]
) -> Iterator[tuple[str, bytes, bool]]:
    """Yield the name of each option, its value, and whether the route knows it."""
    for name, default in _defaults(type(known)):
        value = getattr(known, name)
        if value != default:
            yield name, msgspec.json.encode(value), True
    for name in sorted(members.keys() - known.__struct_fields__):
        yield name, members[name], False


@cache
def _defaults(body: type[msgspec.Struct]) -> tuple[tuple[str, Any], ...]:
    fields = msgspec.structs.fields(body)
    return tuple((each.name, each.default) for each in fields if not each.required)


# What was parsed before

MOST = 256
"""So many are remembered; then all are forgotten, as some clients never repeat."""

LONGEST = 1024
"""A suffix is remembered up to so many bytes."""

BLANK = ord(" ")


@define(kw_only=True, eq=False)
class SuffixCache:
    """
    The bytes that follow the items in bodies of one route, and their options.

    Most clients write the same body again and again with other items in it.  If
    the items come first, and what follows them was parsed before, only they are
    left to parse: after any other items the same bytes are the same options.
    """

    items: str
    """The name of the member that holds the items."""

    options: dict[tuple[MemberRules, bytes], Options] = field(
        init=False, factory=dict, repr=False
    )
    """The options by the rules in force, and the suffix."""

    _prefix: bytes = field(init=False)
    _decode: Callable[[bytes], Any] = field(init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        self._prefix = b'{"%b":' % self.items.encode()
        body = msgspec.defstruct(
            "Body", [("items", msgspec.Raw)], rename={"items": self.items}
        )
        self._decode = msgspec.json.Decoder(body).decode

    def split(self, body: bytes) -> tuple[bytes, bytes]:
        """
        Return the items in *body* as they are written, and what follows them.

        What follows is empty if the items do not come first.

        Raises:
            msgspec.DecodeError: there are none.
        """
        raw = bytes(self._decode(body).items)
        start = len(self._prefix)
        if body[start] == BLANK:
            start += 1  # as Python writes it
        if body.startswith(raw, start) and body.startswith(self._prefix):
            return raw, body[start + len(raw) :]
        return raw, b""

    def remember(self, rules: MemberRules, suffix: bytes, options: Options) -> None:
        """Remember that by the *rules* the *suffix* is these *options*."""
        if not suffix or len(suffix) > LONGEST:
            return
        if len(self.options) >= MOST:
            self.options.clear()
        self.options[rules, suffix] = options
