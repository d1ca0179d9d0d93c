"""
Replies to clients: the upstream's header lines, and our framing.

Either by way of Twisted's request, or as the bytes that go over the wire, which
are the same.  Calls that shared a batch share most lines of their answers: these
are written once for the batch.
"""

import re
from collections.abc import Sequence
from functools import lru_cache

from attrs import define, field
from twisted.web.http import NO_BODY_CODES, datetimeToString
from twisted.web.http_headers import Headers
from twisted.web.server import Request

from abproxy.dialects.call import Call, Dialect, PartResult
from abproxy.dialects.openai import OPENAI
from abproxy.dialects.reply import (
    characters_of,
    counts_characters,
    error_reply,
    lines_of_all,
    timing_of,
    write_answer,
    write_body,
)
from abproxy.dialects.routes import dialect_of
from abproxy.dialects.tei import EMBED
from abproxy.errors import ModelNotFound, ProxyError, Unauthorized
from abproxy.http.headers import (
    spell,
    with_request_id,
)
from abproxy.http.messages import HeaderList, Response, reason_of

__all__ = [
    "Encoder",
    "Written",
    "encode",
    "encode_last",
    "error_response",
    "write_head",
    "write_reply",
]

Written = tuple[bytes, int]
"""The bytes of an answer, and how many of them are its body."""

CLOSE = ((b"Connection", b"close"),)
LENGTH, DATE = b"Content-Length", b"Date"
_CONTROLS = re.compile(rb"[^\t -~\x80-\xff]")
OF_OPENAI = b"/v1/"
"""What is in the paths of the OpenAI API."""

OF_ONE = frozenset({LENGTH, b"Server-Timing", b"X-Compute-Characters"})


# By way of Twisted's request


def write_head(request: Request, status: int, reason: bytes, lines: HeaderList) -> None:
    """Set status and header lines; a date is added if there is none."""
    request.setResponseCode(status, _clean(reason) or reason_of(status))
    _add_lines(request.responseHeaders, lines)
    if not request.responseHeaders.hasHeader(b"Date"):
        request.responseHeaders.addRawHeader(b"Date", datetimeToString())


def _add_lines(headers: Headers, lines: HeaderList) -> None:
    """Put *lines* behind those that are there, equal names together."""
    for name, value in lines:
        headers.addRawHeader(name, value)


def write_reply(request: Request, reply: Response) -> None:
    """
    Write a whole reply.

    With its length: Twisted would send it in chunks otherwise.
    """
    write_head(request, reply.status, reply.reason, reply.headers)
    if reply.status not in NO_BODY_CODES:
        request.setHeader(b"Content-Length", b"%d" % len(reply.body))
    request.write(reply.body)


# As bytes


def encode(reply: Response, *, closes: bool) -> Written:
    """Write *reply*, whose connection *closes* after it or is kept."""
    lines = _written((*CLOSE, *reply.headers) if closes else reply.headers)
    head = [_status_line(reply.status, reply.reason), *lines.values()]
    if DATE not in lines:
        head.append(b"%b: %b\r\n" % (DATE, datetimeToString()))
    if reply.status in NO_BODY_CODES:
        return b"".join((*head, b"\r\n")), 0
    body = reply.body
    return b"".join((*head, b"%b: %d\r\n\r\n" % (LENGTH, len(body)), body)), len(body)


@define(eq=False)
class Encoder:
    """Writes the answers of calls."""

    _reply: Response | None = field(init=False, default=None, repr=False)
    """The reply to the last batch."""

    _head: bytes | None = field(init=False, default=None, repr=False)
    """What all its answers have in common; None if each is to be written alone."""

    _counts: bool = field(init=False, default=False)
    """Whether that reply counts characters."""

    def answer(
        self, call: Call, results: Sequence[PartResult], *, closes: bool
    ) -> Written:
        """Write the answer of *call* from the *results* of its parts."""
        reply = results[0].response
        if results[0].rows is None:
            # The call was alone: the upstream's reply is its own, untouched.
            return encode(reply, closes=closes)
        head = None if closes else self._common_head(reply)
        if head is None:
            return encode(write_answer(call, results), closes=closes)
        body = write_body(call, results)
        characters = b"%b: %b\r\n" % characters_of(call) if self._counts else b""
        timing, size = timing_of(results)[1], len(body)
        lines = b"Server-Timing: %b\r\nContent-Length: %d\r\n\r\n" % (timing, size)
        return b"".join((head, characters, lines, body)), size

    def _common_head(self, reply: Response) -> bytes | None:
        if reply is not self._reply:
            self._reply, self._head = reply, _common(reply)
            self._counts = counts_characters(reply)
        return self._head


def _common(reply: Response) -> bytes | None:
    """Write what is common, unless lines would get into another order by it."""
    lines = _written(lines_of_all(reply))
    if DATE not in lines or not OF_ONE.isdisjoint(lines):
        return None
    return b"".join((_status_line(reply.status, reply.reason), *lines.values()))


def _written(lines: HeaderList) -> dict[bytes, bytes]:
    """Write *lines* as Twisted does: spelled alike, and those of one name together."""
    written: dict[bytes, bytes] = {}
    for line in lines:
        name, whole = _WRITTEN.get(line) or _write_line(*line)
        written[name] = written[name] + whole if name in written else whole
    return written


_WRITTEN: dict[tuple[bytes, bytes], tuple[bytes, bytes]] = {}
"""Lines that were written: most of an answer are those of the one before."""

MOST_LINES, LONGEST_LINE = 1000, 128
"""So many are kept, up to so many bytes each; then all are forgotten."""


def _write_line(name: bytes, value: bytes) -> tuple[bytes, bytes]:
    """Write one line; return the name as it is spelled, and the line."""
    spelled = spell(name)
    line = b"%b: %b\r\n" % (spelled, b" ".join(value.splitlines()))
    if len(line) <= LONGEST_LINE:
        if len(_WRITTEN) >= MOST_LINES:
            _WRITTEN.clear()
        _WRITTEN[name, value] = spelled, line
    return spelled, line


@lru_cache(100)
def _status_line(status: int, reason: bytes) -> bytes:
    return b"HTTP/1.1 %d %b\r\n" % (status, _clean(reason) or reason_of(status))


def _clean(reason: bytes) -> bytes:
    """Return *reason* without what would end the line for some reader."""
    return _CONTROLS.sub(b" ", reason)


# Errors for which there is no request to answer


def error_response(error: ProxyError, target: bytes, request_id: bytes) -> Response:
    """
    Return the response for *error*, as errors of the route of *target* look.

    It has the id of its request, but where TEI has the same error without a body:
    there are clients that print such a line in the place of a message.
    """
    response = error_reply(error, _dialect_of(error, target))
    if isinstance(error, Unauthorized):
        return response
    return with_request_id(response, request_id)


def _dialect_of(error: ProxyError, target: bytes) -> Dialect:
    path = target.partition(b"?")[0]
    at = path.rfind(OF_OPENAI)
    if isinstance(error, ModelNotFound) and at >= 0:
        return OPENAI
    if path.startswith(b"/models/"):
        path = path[at if at > 0 else path.rfind(b"/") :]
    return dialect_of(path, None) or EMBED


def encode_last(response: Response) -> bytes:
    """Write a *response* after which the connection is closed, its request unread."""
    lines = [
        b"HTTP/1.1 %d %b" % (response.status, reason_of(response.status)),
        *(b"%b: %b" % line for line in response.headers),
        b"Content-Length: %d" % len(response.body),
        b"Connection: close",
    ]
    return b"%b\r\n\r\n%b" % (b"\r\n".join(lines), response.body)
