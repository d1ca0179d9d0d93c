"""
Which heads of answers are plain: those that everybody reads alike.

They come whole in the first piece, with one length, or in chunks.  Whatever
could mean one thing here and another elsewhere is not plain.
"""

import re
from collections.abc import Iterable
from functools import lru_cache

from attrs import field, frozen

from abproxy.http.headers import OF_ONE_HOP, group, spell
from abproxy.http.messages import HeaderList

__all__ = ["PlainHead", "read_head"]

_STATUS = re.compile(rb"HTTP/1\.1 (?!204|304)([2-9]\d\d)(?: (.*))?", re.DOTALL)
_TOKEN = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_FRAMING = re.compile(
    rb"Content-Length:(\d{1,15})|Transfer-Encoding:chunked", re.IGNORECASE
)


@frozen
class PlainHead:
    """A plain head."""

    status: int
    reason: bytes

    headers: HeaderList = field(repr=False)
    """The lines that are meant for the other end, as Twisted has them."""

    length: int | None
    """Bytes of the body; None if it comes in chunks."""

    end: int
    """Where the body begins in the first piece."""


def read_head(data: bytes) -> PlainHead | None:
    """Read the head of an answer of which *data* is the first piece, if plain."""
    end = data.find(b"\r\n\r\n")
    head = data[: max(end, 0)]
    first, *lines = head.split(b"\r\n")
    status = _STATUS.fullmatch(first)
    if status is None or not head.count(b"\r") == head.count(b"\n") == len(lines):
        return None
    found = _read_lines(lines)
    if found is None:
        return None
    headers, framing = found
    length = int(framing[1]) if framing[1] else None
    return PlainHead(int(status[1]), status[2] or b"", headers, length, end + 4)


def _read_lines(lines: list[bytes]) -> "tuple[HeaderList, re.Match[bytes]] | None":
    """Read the lines for the other end, and the framing; None if not plain."""
    headers = []
    framing = None
    for line in lines:
        name, colon, value = line.partition(b":")
        spelled = _spelled(name)
        value = value.strip()
        if not colon or not spelled:
            return None
        if spelled not in _SPECIAL:
            headers.append((spelled, value))
        elif spelled in _FRAMES and framing is None:
            framing = _FRAMING.fullmatch(b"%b:%b" % (spelled, value))
            if framing is None:
                return None
        elif spelled not in _LEFT_OUT and (spelled, value.lower()) != _AS_EVER:
            return None
    return framing and (group(headers), framing)


@lru_cache(1000)
def _spelled(name: bytes) -> bytes:
    """Spell *name* as Twisted does; empty if it is no name."""
    return spell(name) if _TOKEN.fullmatch(name) else b""


def _spelled_all(names: Iterable[bytes]) -> frozenset[bytes]:
    return frozenset(map(_spelled, names))


_AS_EVER = (b"Connection", b"keep-alive")

_FRAMES = _spelled_all({b"content-length", b"transfer-encoding"})

_CHANGING = _FRAMES | _spelled_all({b"connection", b"content-encoding"})
"""Lines that may change how an answer is read."""

# `Trailers` is no header of HTTP's, but Twisted takes it for one.
_LEFT_OUT = _spelled_all(OF_ONE_HOP | {b"trailers"}) - _CHANGING

_SPECIAL = _CHANGING | _LEFT_OUT
