"""
JSON text as serde_json reads it: the same texts refused, at the same column.

Bytes become strings and numbers here and nothing more; which value belongs
where is decided in `shapes`.
The messages and the rules for columns are those of serde_json's slice reader:
an error *at* a byte counts that byte, an error *after* a value does not.
"""

import json
import math
import re
from typing import NoReturn

from attrs import define, field

__all__ = ("BadText", "Cursor")

_SPACE = re.compile(rb"[ \t\n\r]*")
_PLAIN = re.compile(rb'[^"\\\x00-\x1f]*')
_STRING = re.compile(
    rb'"(?:[^"\\\x00-\x1f]++|\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4}))*+"', re.DOTALL
)
_NUMBER = re.compile(rb"-?(?:0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?")
_ID = rb"[ \t\n\r]*(?:0|[1-9][0-9]{0,18})[ \t\n\r]*"
_IDS = re.compile(rb"\[%b(?:,%b)*+\]" % (_ID, _ID))
_INCOMPLETE = re.compile(rb"-?(?:0|[1-9][0-9]*)?(?:\.[0-9]*)?(?:[eE][+-]?)?")
_LONE = re.compile("[\ud800-\udfff]")
_NOTHING = -1
_HEX_DIGITS = 4
_LONGEST_INTEGER = 20
"""Digits of 2^64 - 1; a longer integer is a float to serde."""


class BadText(ValueError):
    """The text is not JSON."""


@define(kw_only=True, eq=False)
class Cursor:
    """A place in a JSON text."""

    text: bytes
    index: int = field(init=False, default=0)

    def peek(self) -> int:
        """The next byte that is not white space, or -1 at the end."""
        self.index = _SPACE.match(self.text, self.index).end()  # type: ignore[union-attr]
        return self.text[self.index] if self.index < len(self.text) else _NOTHING

    def where(self) -> str:
        """The place after what was read, as serde words it."""
        return self._place(self.index)

    def refuse_next(self, problem: str) -> NoReturn:
        """Refuse the text because of the byte that comes next."""
        at = self._place(min(len(self.text), self.index + 1))
        raise BadText(f"{problem} at {at}")

    def refuse(self, problem: str) -> NoReturn:
        """Refuse the text because of what was just read."""
        raise BadText(f"{problem} at {self.where()}")

    def expect_more(self, what: str) -> int:
        """The next byte; the text must not end inside *what*."""
        byte = self.peek()
        if byte == _NOTHING:
            self.refuse_next(f"EOF while parsing {what}")
        return byte

    def word(self, word: bytes) -> None:
        """Read `true`, `false` or `null`, of which the first letter is known."""
        for expected in word:
            if self.index == len(self.text):
                self.refuse("EOF while parsing a value")
            self.index += 1
            if self.text[self.index - 1] != expected:
                self.refuse("expected ident")

    def string(self) -> str:
        """Read a string, of which the opening quote is known."""
        found = _STRING.match(self.text, self.index)
        if not found:
            self._refuse_string()
        self.index = found.end()
        try:
            text = found.group().decode()
        except UnicodeDecodeError:
            self.refuse("invalid unicode code point")
        return self._unescaped(text) if "\\" in text else text[1:-1]

    def ids(self) -> list[int] | None:
        """Read a list of token ids in one go, if that is what begins here."""
        found = _IDS.match(self.text, self.index)
        if not found:
            return None
        self.index = found.end()
        ids: list[int] = json.loads(found.group())
        return ids

    def number(self) -> int | float:
        """Read a number, of which the first byte is known."""
        found = _NUMBER.match(self.text, self.index)
        if not found or self._goes_on_wrongly(found):
            self._refuse_number()
        self.index = found.end()
        return self._integer(found) if not any(found.groups()) else self._float(found)

    def _unescaped(self, text: str) -> str:
        value: str = json.loads(text)
        if _LONE.search(value):
            self.refuse("lone leading surrogate in hex escape")
        return value

    def _integer(self, found: re.Match[bytes]) -> int | float:
        digits = found.group()
        if len(digits.lstrip(b"-")) > _LONGEST_INTEGER:
            return self._float(found)
        value = int(digits)
        plain = -(2**63) <= value < 2**64 and digits != b"-0"
        return value if plain else float(value)

    def _float(self, found: re.Match[bytes]) -> float:
        value = float(found.group())
        if math.isinf(value):
            self.refuse("number out of range")
        return value

    def _goes_on_wrongly(self, found: re.Match[bytes]) -> bool:
        """A number may not go on with a digit (01), a point (1.) or an e (1e)."""
        rest = self.text[found.end() : found.end() + 1]
        if found.group(2):
            return False
        return rest in (b"e", b"E") or (
            not found.group(1) and (rest == b"." or rest.isdigit())
        )

    def _refuse_number(self) -> NoReturn:
        found = _INCOMPLETE.match(self.text, self.index)
        self.index = found.end()  # type: ignore[union-attr]
        if self.index == len(self.text):
            self.refuse_next("EOF while parsing a value")
        self.refuse_next("invalid number")

    def _refuse_string(self) -> NoReturn:
        """Find what is wrong with the string that starts here."""
        self.index += 1
        while True:
            self.index = _PLAIN.match(self.text, self.index).end()  # type: ignore[union-attr]
            if self.index == len(self.text):
                self.refuse("EOF while parsing a string")
            self.index += 1
            if self.text[self.index - 1] != ord("\\"):
                self.refuse(_CONTROL)
            self._check_escape()

    def _check_escape(self) -> None:
        letter = self.text[self.index : self.index + 1]
        self.index += 1
        hexadecimal = self.text[self.index : self.index + _HEX_DIGITS]
        if not letter or (letter == b"u" and len(hexadecimal) < _HEX_DIGITS):
            self.index = len(self.text)
            self.refuse("EOF while parsing a string")
        if letter == b"u":
            self.index += _HEX_DIGITS
        known = letter in _ESCAPES and (letter != b"u" or _is_hex(hexadecimal))
        if not known:
            self.refuse("invalid escape")

    def _place(self, index: int) -> str:
        line_start = self.text.rfind(b"\n", 0, index) + 1
        line = 1 + self.text.count(b"\n", 0, line_start)
        return f"line {line} column {index - line_start}"


_CONTROL = "control character (\\u0000-\\u001F) found while parsing a string"
_ESCAPES = frozenset([b'"', b"\\", b"/", b"b", b"f", b"n", b"r", b"t", b"u"])


def _is_hex(digits: bytes) -> bool:
    return re.fullmatch(rb"[0-9a-fA-F]{4}", digits) is not None
