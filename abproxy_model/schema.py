"""
JSON text to the values a request may have, refused in serde's words.

A text that is no JSON is a 400; JSON of the wrong shape is a 422.
Both say where: the path of the value, then line and column.
Text after the value is not looked at.
"""

from collections.abc import Callable, Sequence
from typing import Any, NoReturn, TypeVar

from attrs import define, field, frozen

from abproxy_model.jsontext import BadText, Cursor

__all__ = ("BadBody", "Field", "Reader", "read")

T = TypeVar("T")
Read = Callable[["Reader"], Any]

_DEPTH = 128
_REQUIRED = object()
_SYNTAX = "Failed to parse the request body as JSON"
_DATA = "Failed to deserialize the JSON body into the target type"


class BadBody(ValueError):
    """The body is not what the route expects; answered as plain text."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class _WrongShape(Exception):
    """Well-formed JSON of the wrong shape; *placed* once it says where."""

    def __init__(self, problem: str, *, placed: bool = False) -> None:
        super().__init__(problem)
        self.placed = placed


@frozen(kw_only=True)
class Field:
    """One field of a request."""

    name: str
    read: Read
    default: Any = _REQUIRED
    in_list: bool = True
    """Whether the default also serves a request given as a list (serde's rule)."""


def read(body: bytes, name: str, fields: Sequence[Field]) -> dict[str, Any]:
    """
    The struct *name* at the beginning of *body*.

    Raises:
        BadBody: it is not there.
    """
    reader = Reader(cursor=Cursor(text=body))
    try:
        return reader.struct(name, fields)
    except BadText as error:
        raise BadBody(400, f"{_SYNTAX}: {reader.prefix()}{error}") from None
    except _WrongShape as error:
        raise BadBody(422, f"{_DATA}: {reader.prefix()}{error}") from None


@define(kw_only=True, eq=False)
class Reader:
    """Reads one body from left to right."""

    _cursor: Cursor
    _path: list[str] = field(init=False, factory=list)
    _depth: int = field(init=False, default=0)

    def prefix(self) -> str:
        """The path of the value being read, as it precedes an error."""
        if set(self._path) <= {".?"}:
            return ""
        return "".join(self._path).removeprefix(".") + ": "

    def struct(self, name: str, fields: Sequence[Field]) -> dict[str, Any]:
        """An object with *fields*, or a list of their values."""
        first = self._cursor.expect_more("a value")
        if first == ord("{"):
            return self._enclosed(lambda: self._members(fields), b"}")
        if first == ord("["):
            return self._enclosed(lambda: self._elements(name, fields), b"]")
        return self._refuse_type(f"struct {name}")

    def boolean(self) -> bool:
        """`true` or `false`."""
        first = self._cursor.expect_more("a value")
        if first not in b"tf":
            self._refuse_type("a boolean")
        return bool(self.anything())

    def string(self) -> str:
        """A string."""
        if self._cursor.expect_more("a value") != ord('"'):
            self._refuse_type("a string")
        return self._cursor.string()

    def size(self) -> int:
        """A number that is not negative and has no fraction."""
        if self._cursor.expect_more("a value") not in b"-0123456789":
            self._refuse_type("usize")
        value = self._cursor.number()
        if isinstance(value, float):
            self._refuse_shape(f"invalid type: {_described(value)}, expected usize")
        if value < 0:
            self._refuse_shape(f"invalid value: {_described(value)}, expected usize")
        return value

    def variant(self, names: Sequence[str]) -> str:
        """One of *names*; null is no name, and to serde not even a value."""
        if self._cursor.expect_more("a value") != ord('"'):
            self._cursor.refuse_next("expected value")
        value = self._cursor.string()
        if value not in names:
            self._refuse_shape(
                f"unknown variant `{value}`, expected {_alternatives(names)}"
            )
        return value

    def optional(self, read: Read) -> Any:
        """Read what *read* reads, or None for null."""
        if self._cursor.expect_more("a value") == ord("n"):
            return self.anything()
        return read(self)

    def untagged(self, name: str, accept: Callable[[Any], bool]) -> Any:
        """Any value that *accept* accepts."""
        value = self.anything()
        if not accept(value):
            raise _WrongShape(f"data did not match any variant of untagged enum {name}")
        return value

    def strings(self) -> list[str]:
        """A list of strings."""
        if self._cursor.expect_more("a value") != ord("["):
            self._refuse_type("a sequence")
        return self._enclosed(lambda: self._list(Reader.string), b"]")

    def anything(self) -> Any:
        """Any JSON value."""
        first = self._cursor.expect_more("a value")
        if first == ord('"'):
            return self._cursor.string()
        if first == ord("["):
            return self._cursor.ids() or self._enclosed(
                lambda: self._list(Reader.anything), b"]"
            )
        if first == ord("{"):
            return self._enclosed(lambda: dict(self._pairs()), b"}")
        if first in b"-0123456789":
            return self._cursor.number()
        return self._word(first)

    def _word(self, first: int) -> bool | None:
        word, value = _WORDS.get(first, (b"", None))
        if not word:
            self._cursor.refuse_next("expected value")
        self._cursor.word(word)
        return value

    def _enclosed(self, read_inside: Callable[[], T], closing: bytes) -> T:
        """
        Read what is between brackets.

        A wrong shape is placed after the closing bracket, if that comes next:
        serde looks for it before it gives up.
        """
        self._depth += 1
        if self._depth >= _DEPTH:
            self._cursor.refuse_next("recursion limit exceeded")
        self._cursor.index += 1
        try:
            value = read_inside()
        except _WrongShape as error:
            raise self._placed(error, closing) from None
        self._depth -= 1
        return value

    def _placed(self, error: _WrongShape, closing: bytes) -> _WrongShape:
        if error.placed:
            return error
        if self._cursor.peek() == closing[0] or (
            closing == b"]" and self._cursor.peek() == ord(",")
        ):
            self._cursor.index += 1
        return _WrongShape(f"{error} at {self._cursor.where()}", placed=True)

    def _members(self, fields: Sequence[Field]) -> dict[str, Any]:
        known = {each.name: each for each in fields}
        values: dict[str, Any] = {}
        for name in self._keys():
            if name in values:
                self._path.pop()
                raise _WrongShape(f"duplicate field `{name}`")
            self._colon()
            if name in known:
                values[name] = known[name].read(self)
            else:
                self.anything()
        return {each.name: _given(each, values) for each in fields}

    def _elements(self, name: str, fields: Sequence[Field]) -> dict[str, Any]:
        values: dict[str, Any] = {}
        rest = iter(fields)
        for _ in self._items():
            each = next(rest, None)
            if each is None:
                self._path.pop()
                self._cursor.refuse_next("trailing characters")
            values[each.name] = each.read(self)
        expected = f"struct {name} with {len(fields)} elements"
        for index, each in enumerate(fields):
            if each.name not in values and not each.in_list:
                # The bracket was read to see that the list ends here.
                at = self._cursor.where()
                raise _WrongShape(
                    f"invalid length {index}, expected {expected} at {at}", placed=True
                )
        return {each.name: _given(each, values) for each in fields}

    def _list(self, read: Read) -> list[Any]:
        return [read(self) for _ in self._items()]

    def _pairs(self) -> Any:
        for key in self._keys():
            self._colon()
            yield key, self.anything()

    def _items(self) -> Any:
        """Step from item to item of a list, past its closing bracket."""
        index = 0
        while self._follows(b"]", "a list", "expected `,` or `]`", first=index == 0):
            self._path.append(f"[{index}]")
            yield index
            self._path.pop()
            index += 1

    def _keys(self) -> Any:
        """Step from key to key of an object, past its closing bracket."""
        self._path.append(".?")
        first = True
        while self._follows(b"}", "an object", "expected `,` or `}`", first=first):
            if self._cursor.peek() != ord('"'):
                self._cursor.refuse_next("key must be a string")
            key = self._cursor.string()
            self._path[-1] = f".{key}"
            yield key
            self._path[-1] = ".?"
            first = False
        self._path.pop()

    def _follows(self, closing: bytes, what: str, problem: str, *, first: bool) -> bool:
        """Return whether one more item follows; if not, read the closing bracket."""
        byte = self._cursor.expect_more(what)
        if byte == closing[0]:
            self._cursor.index += 1
            return False
        if not first:
            if byte != ord(","):
                self._cursor.refuse_next(problem)
            self._cursor.index += 1
            if self._cursor.expect_more("a value") == closing[0]:
                self._cursor.refuse_next("trailing comma")
        return True

    def _colon(self) -> None:
        if self._cursor.expect_more("an object") != ord(":"):
            self._path.pop()
            self._cursor.refuse_next("expected `:`")
        self._cursor.index += 1

    def _refuse_type(self, expected: str) -> NoReturn:
        first = self._cursor.peek()
        found = {ord("["): "sequence", ord("{"): "map"}.get(first)
        described = found or _described(self.anything())
        self._refuse_shape(f"invalid type: {described}, expected {expected}")

    def _refuse_shape(self, problem: str) -> NoReturn:
        raise _WrongShape(f"{problem} at {self._cursor.where()}", placed=True)


_WORDS: dict[int, tuple[bytes, bool | None]] = {
    ord("t"): (b"true", True),
    ord("f"): (b"false", False),
    ord("n"): (b"null", None),
}


def _given(each: Field, values: dict[str, Any]) -> Any:
    value = values.get(each.name, each.default)
    if value is _REQUIRED:
        raise _WrongShape(f"missing field `{each.name}`")
    return value


def _described(value: Any) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return f"boolean `{str(value).lower()}`"
        case int():
            return f"integer `{value}`"
        case float():
            return f"floating point `{value!r}`"
    return f"string {_quoted(value)}"


def _quoted(text: str) -> str:
    """Like Rust's Debug for the characters that are met."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    for raw, shown in (("\n", "\\n"), ("\r", "\\r"), ("\t", "\\t"), ("\0", "\\0")):
        escaped = escaped.replace(raw, shown)
    return f'"{escaped}"'


def _alternatives(names: Sequence[str]) -> str:
    if len(names) == 2:  # noqa: PLR2004
        return f"`{names[0]}` or `{names[1]}`"
    return "one of " + ", ".join(f"`{name}`" for name in names)
