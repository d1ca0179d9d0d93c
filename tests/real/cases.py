"""The calls that are asked: good ones, and such as a server may refuse."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from attrs import frozen

from real.asking import Call

TOPICS = (
    "how bread rises overnight",
    "the tides of the North Sea",
    "a proof that there are infinitely many primes",
    "Wie wird das Wetter morgen in Köln?",
    "repairing the gearbox of an old tractor",
    'she said "no" \\ and left\nwithout a word',
    "😀 emoji, naïve café, 東京の天気",
    "interest rates and the price of houses",
    "<script>alert('x')</script> & friends",
    "the migration of Arctic terns",
)
TOO_LONG = "a b c d " * 300
"""More tokens than the model takes."""

GOOD = 32
"""Good calls that are asked at once."""

LARGE = 70
"""Inputs in a call that is larger than a batch may be."""


@frozen(kw_only=True)
class Dialect:
    """How one kind of route is asked."""

    path: str
    member: str
    """Where the inputs are."""

    fixed: Mapping[str, Any]
    """What every body has besides."""

    header: Mapping[str, str]
    most_texts: int = 3
    """Texts in a good call, where the server takes no more."""

    def call(self, name: str, inputs: Any, **more: Any) -> Call:
        """Ask for *inputs*; a member of *more* that is ... is left out."""
        body = {self.member: inputs, **self.fixed, **more}
        kept = {key: value for key, value in body.items() if value is not ...}
        return self.raw(name, json.dumps(kept).encode())

    def raw(self, name: str, body: bytes, **header: str) -> Call:
        """Send *body* as it stands."""
        named = {key.replace("_", "-"): value for key, value in header.items()}
        lines = {"Content-Type": "application/json", **self.header, **named}
        return Call(name=name, path=self.path, body=body, header=lines)


def openai(
    model: str,
    path: str = "/v1/embeddings",
    header: Mapping[str, str] | None = None,
    **more: Any,
) -> Dialect:
    """Ask as OpenAI's clients do."""
    fixed = {"model": model}
    return Dialect(path=path, member="input", fixed=fixed, header=header or {}, **more)


def tei(path: str) -> Dialect:
    """Ask as clients of text-embeddings-inference do."""
    return Dialect(path=path, member="inputs", fixed={}, header={})


def good(dialect: Dialect, count: int = GOOD) -> list[Call]:
    """Make calls that every server answers, of one to three texts."""
    return [_good(dialect, number) for number in range(count)]


def _good(dialect: Dialect, number: int) -> Call:
    several = 1 + number % 4 // 2 + number % 8 // 7
    texts = [_text(number, at) for at in range(min(several, dialect.most_texts))]
    inputs = texts[0] if number % 2 == 0 and len(texts) == 1 else texts
    return dialect.call(f"good {number}", inputs)


def _text(number: int, at: int) -> str:
    topic = TOPICS[(number + 3 * at) % len(TOPICS)]
    return f"{topic}, number {number}.{at}" + " and so on" * (number % 5)


def special(dialect: Dialect) -> list[Call]:
    """Make calls that a server may refuse, or answer in a way of its own."""
    call, raw = dialect.call, dialect.raw
    text = "a text among others"
    found = [
        call("empty text", ""),
        call("empty text in a list", [text, ""]),
        call("blank text", "   "),
        call("too long a text", TOO_LONG),
        call("too long a text in a list", [text, TOO_LONG]),
        call("a number", 5),
        call("a number in a list", [text, 5]),
        call("null", None),
        call("null in a list", [text, None]),
        call("an object", {"a": 1}),
        call("an object in a list", [text, {"a": 1}]),
        call("an empty list", []),
        call("a list in a list", [[text]]),
        call("no inputs", ...),
        call("token ids", [101, 2054, 102]),
        call("lists of token ids", [[101, 2054, 102], [101, 102]]),
        call("an unknown token id", [[999999999]]),
        call("NUL in a text", "a\0b"),
        call("half a character", "\ud800"),
        call("an unknown member", text, unknown=True),
        call("an unknown member with a list", text, unknown=[1, 2]),
        raw("bad JSON", b'{"' + dialect.member.encode() + b'": ["a",'),
        raw("not JSON", b"hello"),
        raw("an empty body", b""),
        raw("bad UTF-8", b'{"' + dialect.member.encode() + b'": "\xff\xfe"}'),
        raw(
            "another content type",
            call("", text).body or b"",
            Content_Type="text/plain",
        ),
    ]
    if "Authorization" in dialect.header:
        body = call("", text).body or b""
        found.append(raw("another key", body, Authorization="Bearer sk-another"))
        found.append(raw("no key", body, Authorization=""))
    return found + (_special_to_openai(dialect) if dialect.member == "input" else [])


def _special_to_openai(dialect: Dialect) -> list[Call]:
    call, text = dialect.call, "a text among others"
    return [
        call("an unknown model", text, model="no-such-model"),
        call("no model", text, model=...),
        call("a model that is a number", text, model=5),
        call("base64", text, encoding_format="base64"),
        call("another format", text, encoding_format="wrong"),
        call("dimensions", text, dimensions=8),
        call("no dimensions", text, dimensions=0),
        call("less than no dimensions", text, dimensions=-1),
        call("dimensions in words", text, dimensions="many"),
        call("too many dimensions", text, dimensions=100000),
        call("a user", text, user="somebody"),
    ]


def large(dialect: Dialect) -> list[Call]:
    """Make calls with more inputs than a batch may have, good ones and bad."""
    texts = [_text(number, 5) for number in range(LARGE)]
    bad = {47: 5, 48: TOO_LONG, 49: ""}
    names = {47: "a number", 48: "too long a text", 49: "an empty text"}
    return [
        dialect.call(f"{LARGE} texts", texts),
        *(
            dialect.call(
                f"{names[at]} among {LARGE} texts",
                [*texts[:at], value, *texts[at + 1 :]],
            )
            for at, value in bad.items()
        ),
    ]


def elsewhere(dialect: Dialect, paths: Sequence[str] = ()) -> list[Call]:
    """Ask other routes, and this one with other methods."""
    header = dict(dialect.header)
    return [
        Call(name="GET", path=dialect.path, method="GET", header=header),
        Call(name="PUT", path=dialect.path, method="PUT", body=b"{}", header=header),
        Call(name="no such path", path="/no/such/path", method="GET", header=header),
        *(
            Call(name=f"GET {path}", path=path, method="GET", header=header)
            for path in paths
        ),
    ]
