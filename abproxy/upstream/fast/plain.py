"""
Answers that are plain: whole head in the first piece, one length, nothing odd.

These are nearly all, and every server and client reads them alike.  Whatever
could mean one thing here and another elsewhere is not plain.
"""

import re
from collections.abc import Iterable
from functools import lru_cache

from attrs import define, field
from twisted.web.http_headers import Headers

from abproxy.headers import OF_ONE_HOP
from abproxy.messages import HeaderList, Reply
from abproxy.upstream.body import too_long

__all__ = ["PlainAnswer", "begin_plain"]

_STATUS = re.compile(rb"HTTP/1\.1 (?!204|304)([2-9]\d\d)(?: (.*))?", re.DOTALL)
_TOKEN = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_LENGTH = re.compile(rb"\d{1,15}")


@define(eq=False)
class PlainAnswer:
    """A plain answer of which the body is still coming in."""

    status: int
    reason: bytes
    headers: HeaderList

    start: int
    """Where the body begins in the first piece."""

    left: int
    """Bytes that are still to come; less than 0 if too many came."""

    _pieces: list[bytes | memoryview] = field(init=False, factory=list)

    @property
    def may_be_followed(self) -> bool:
        """Whether nothing has come after it that nobody asked for."""
        return self.left == 0

    def receive(self, data: bytes) -> Reply | None:
        """Take in a piece; the reply if it is whole now."""
        piece: bytes | memoryview = data
        if self.start:
            # Joining copies it anyway.
            piece, self.start = memoryview(data)[self.start :], 0
        self.left -= len(piece)
        self._pieces.append(piece[: self.left] if self.left < 0 else piece)
        if self.left > 0:
            return None
        return Reply(
            status=self.status,
            reason=self.reason,
            headers=self.headers,
            body=b"".join(self._pieces),
        )

    def end(self, error: Exception) -> Reply:
        """Raise the *error*: some of it is missing."""
        raise error


def begin_plain(data: bytes, max_bytes: int) -> PlainAnswer | None:
    """
    Read the head of an answer of which *data* is the first piece, if it is plain.

    Raises:
        UpstreamBroken: the body would be over *max_bytes*.
    """
    end = data.find(b"\r\n\r\n")
    head = data[: max(end, 0)]
    first, *lines = head.split(b"\r\n")
    status = _STATUS.fullmatch(first)
    if status is None or not head.count(b"\r") == head.count(b"\n") == len(lines):
        return None
    found = _read_lines(lines)
    if found is None:
        return None
    headers, length = found
    if length > max_bytes:
        raise too_long(max_bytes)
    return PlainAnswer(int(status[1]), status[2] or b"", headers, end + 4, length)


def _read_lines(lines: list[bytes]) -> tuple[HeaderList, int] | None:
    """Read the lines for the other end, and the length; None if not plain."""
    headers = []
    length = b""
    for line in lines:
        name, colon, value = line.partition(b":")
        spelled = _spelled(name)
        value = value.strip()
        if not colon or not spelled:
            return None
        if spelled not in _SPECIAL:
            headers.append((spelled, value))
        elif spelled == b"Content-Length" and not length:
            length = value
        elif spelled not in _LEFT_OUT and (spelled, value.lower()) != _AS_EVER:
            return None
    return (_grouped(headers), int(length)) if _LENGTH.fullmatch(length) else None


@lru_cache(1000)
def _spelled(name: bytes) -> bytes:
    """Spell *name* as Twisted does; empty if it is no name."""
    if not _TOKEN.fullmatch(name):
        return b""
    [(spelled, _)] = Headers({name: [b""]}).getAllRawHeaders()
    return bytes(spelled)


def _spelled_all(names: Iterable[bytes]) -> frozenset[bytes]:
    return frozenset(map(_spelled, names))


_AS_EVER = (b"Connection", b"keep-alive")

_CHANGING = _spelled_all(
    {b"connection", b"content-encoding", b"content-length", b"transfer-encoding"}
)
"""Lines that may change how an answer is read."""

# `Trailers` is no header of HTTP's, but Twisted takes it for one.
_LEFT_OUT = _spelled_all(OF_ONE_HOP | {b"trailers"}) - _CHANGING

_SPECIAL = _CHANGING | _LEFT_OUT


def _grouped(lines: list[tuple[bytes, bytes]]) -> HeaderList:
    """Bring lines of one name together, as Twisted does."""
    groups: dict[bytes, list[tuple[bytes, bytes]]] = {}
    if len(dict(lines)) == len(lines):
        return tuple(lines)
    for line in lines:
        groups.setdefault(line[0], []).append(line)
    return tuple(line for group in groups.values() for line in group)
