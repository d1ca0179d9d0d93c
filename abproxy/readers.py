"""
How the text of a setting becomes its value.

Each reader raises a ValueError that says what it expected and what it got.
"""

from collections.abc import Callable
from math import isfinite
from urllib.parse import urlsplit

__all__ = [
    "at_least",
    "key",
    "keys",
    "milliseconds",
    "one_of",
    "port",
    "rate",
    "seconds",
    "url",
    "yes_or_no",
]

MAX_PORT = 65535


def at_least(least: int) -> Callable[[str], int]:
    """Make a reader of whole numbers from *least* on."""

    def read(text: str) -> int:
        message = f"expected a whole number, {least} or more, not {text!r}"
        try:
            number = int(text)
        except ValueError:
            raise ValueError(message) from None
        if number < least:
            raise ValueError(message)
        return number

    return read


def _duration(text: str, unit: str, *, zero: bool) -> float:
    message = f"expected a number of {unit}, not {text!r}"
    try:
        number = float(text)
    except ValueError:
        raise ValueError(message) from None
    if not isfinite(number) or number < 0 or (number == 0 and not zero):
        raise ValueError(message)
    return number


def milliseconds(text: str) -> float:
    """Read a wait, which may be 0."""
    return _duration(text, "milliseconds", zero=True)


def seconds(text: str) -> float:
    """Read a timeout, which may not be 0."""
    return _duration(text, "seconds greater than 0", zero=False)


def rate(text: str) -> float:
    """Read how many in a second."""
    return _duration(text, "inputs per second greater than 0", zero=False)


def port(text: str) -> str:
    """Read a port number, or a Twisted endpoint, which has a colon."""
    if ":" in text:
        return text
    if not text.isdecimal() or int(text) > MAX_PORT:
        raise ValueError(f"expected a port from 0 to {MAX_PORT}, not {text!r}")
    return text


def url(text: str) -> str:
    """Read the base URL of a server; a slash at its end means nothing."""
    try:
        parts = urlsplit(text)
        known = parts.scheme in {"http", "https"} and bool(parts.hostname)
        known = known and parts.port != 0 and text.isascii()
        known = known and text.isprintable() and " " not in text
    except ValueError:
        known = False
    if not known:
        shown = "one with credentials" if "@" in text else repr(text)
        raise ValueError(f"expected a URL like http://host:port, not {shown}")
    if any(mark in text for mark in "@?#"):
        raise ValueError("expected a URL without user, query or fragment")
    return text.rstrip("/")


def key(text: str) -> str:
    """Read a key, which is not repeated in the message if it is none."""
    if not text.isascii() or not text.isprintable() or " " in text:
        raise ValueError("expected a key of visible ASCII characters")
    return text


def keys(text: str) -> tuple[str, ...]:
    """Read keys that are separated by commas; a text without any is a mistake."""
    read = tuple(key(word.strip()) for word in text.split(",") if word.strip())
    if not read:
        raise ValueError("expected keys, found none; to ask for none leave it empty")
    return read


def yes_or_no(text: str) -> bool:
    """Read a switch."""
    known = {"1": True, "true": True, "yes": True, "on": True}
    known |= {"0": False, "false": False, "no": False, "off": False}
    try:
        return known[text.lower()]
    except KeyError:
        raise ValueError(f"expected true or false, not {text!r}") from None


def one_of(*names: str) -> Callable[[str], str]:
    """Make a reader that knows some *names*."""

    def read(text: str) -> str:
        if text not in names:
            raise ValueError(f"expected one of {', '.join(names)}, not {text!r}")
        return text

    return read
