"""
A reply as the bytes that go over the wire, the same that Twisted would write.

Calls that shared a batch share most lines of their answers: these are written
once for the batch.
"""

from collections.abc import Sequence

from attrs import define, field
from twisted.web.http import NO_BODY_CODES, datetimeToString
from twisted.web.http_headers import Headers

from abproxy.dialects.answer import (
    characters_of,
    counts_characters,
    is_shared,
    lines_of_all,
    timing_of,
    write_answer,
    write_body,
)
from abproxy.dialects.call import Call, Share
from abproxy.headers import spell
from abproxy.messages import HeaderList, Reply, reason_of
from abproxy.web.replying import add_lines

__all__ = ["Encoder", "Written", "encode"]

Written = tuple[bytes, int]
"""The bytes of an answer, and how many of them are its body."""

CLOSE = ((b"Connection", b"close"),)
LENGTH, DATE = b"Content-Length", b"Date"
OF_ONE = frozenset({LENGTH, b"Server-Timing", b"X-Compute-Characters"})


def encode(reply: Reply, *, closes: bool) -> Written:
    """Write *reply*, whose connection *closes* after it or is kept."""
    lines = _group((*CLOSE, *reply.headers) if closes else reply.headers)
    if all(name != DATE for name, _ in lines):
        lines = (*lines, (DATE, datetimeToString()))
    has_body = reply.status not in NO_BODY_CODES
    body = reply.body if has_body else b""
    if has_body:
        lines = (*lines, (LENGTH, b"%d" % len(body)))
    return b"%b%b\r\n%b" % (_status_line(reply), _write(lines), body), len(body)


@define(eq=False)
class Encoder:
    """Writes the answers of calls."""

    _reply: Reply | None = field(init=False, default=None, repr=False)
    """The reply to the last batch."""

    _head: bytes | None = field(init=False, default=None, repr=False)
    """What all its calls have in common; None if they are to be written one by one."""

    _counts: bool = field(init=False, default=False)
    """Whether it counts characters."""

    def answer(self, call: Call, shares: Sequence[Share], *, closes: bool) -> Written:
        """Write the answer of *call*, which is made of *shares*."""
        reply = shares[0].reply
        head = self._common_head(reply) if is_shared(shares) and not closes else None
        if head is None:
            return encode(write_answer(call, shares), closes=closes)
        body = write_body(call, shares)
        characters = b"%b: %b\r\n" % characters_of(call) if self._counts else b""
        timing, size = timing_of(shares)[1], len(body)
        lines = b"Server-Timing: %b\r\nContent-Length: %d\r\n\r\n" % (timing, size)
        return b"".join((head, characters, lines, body)), size

    def _common_head(self, reply: Reply) -> bytes | None:
        if reply is not self._reply:
            self._reply, self._head = reply, _common(reply)
            self._counts = counts_characters(reply)
        return self._head


def _common(reply: Reply) -> bytes | None:
    """Write what is common, unless lines would get into another order by it."""
    lines = _group(lines_of_all(reply))
    names = {name for name, _ in lines}
    if DATE not in names or not OF_ONE.isdisjoint(names):
        return None
    return _status_line(reply) + _write(lines)


def _group(lines: HeaderList) -> HeaderList:
    """Put lines of one name together, and spell names as Twisted does."""
    spelled = [(spell(name), value) for name, value in lines]
    values = b"".join([value for _, value in lines])
    is_plain = b"\r" not in values and b"\n" not in values
    if is_plain and len(dict(spelled)) == len(spelled):
        return tuple(spelled)
    headers = Headers()
    add_lines(headers, lines)
    grouped = headers.getAllRawHeaders()
    return tuple((name, value) for name, values in grouped for value in values)


def _write(lines: HeaderList) -> bytes:
    return b"".join([b"%b: %b\r\n" % line for line in lines])


def _status_line(reply: Reply) -> bytes:
    reason = reply.reason or reason_of(reply.status)
    return b"HTTP/1.1 %d %b\r\n" % (reply.status, reason)
