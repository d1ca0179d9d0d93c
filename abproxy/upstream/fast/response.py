"""
One response, from its pieces.

Nearly all are plain: the head comes whole in the first piece, all readers read it
alike, and the body has one length, or comes in chunks.  All others, which could
mean one thing here and another elsewhere, are read by Twisted.
"""

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

from attrs import define, field
from msgspec import Struct
from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import ConnectionDone
from twisted.python.failure import Failure
from twisted.web._newclient import Request
from twisted.web.http import _ChunkedTransferDecoder
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IResponse
from zope.interface import implementer

from abproxy.errors import HandshakeFailed
from abproxy.http.headers import OF_ONE_HOP, group, spell
from abproxy.http.messages import HeaderList, Response
from abproxy.upstream.agent import collect, reply_of, too_long, unpacking
from abproxy.upstream.connections import (
    SPEAKS_TLS,
    ResponseParser,
    is_alert,
    without_named,
)

__all__ = ["PlainResponse", "TwistedResponse", "begin_response"]

_STATUS = re.compile(rb"HTTP/1\.1 (?!204|304)([2-9]\d\d)(?: ([^\r\n]*))?")
_TOKEN = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")


@define(eq=False)
class _Chunks:
    """A body in chunks, whose pieces go to a list."""

    pieces: list[bytes | memoryview]
    max_bytes: int
    surplus: bytes | None = field(init=False, default=None)
    """What came after the end; None before that."""

    _size: int = field(init=False, default=0)
    _decoder: _ChunkedTransferDecoder = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._decoder = _ChunkedTransferDecoder(self._take, self._end)

    def receive(self, data: bytes | memoryview) -> None:
        """Add a piece."""
        self._decoder.dataReceived(bytes(data))

    def _take(self, data: bytes) -> None:
        self._size += len(data)
        if self._size > self.max_bytes:
            raise too_long(self.max_bytes)
        self.pieces.append(data)

    def _end(self, surplus: bytes) -> None:
        self.surplus = surplus


class PlainResponse(Struct, kw_only=True):
    """A response with a plain head, of which the body is still coming in."""

    status: int
    reason: bytes

    headers: HeaderList
    """The lines that are meant for the other end, as Twisted has them."""

    head_size: int
    """Bytes of the next piece that are the head."""

    left: int
    """Bytes that are still to come, if the length is known; negative: too many."""

    chunks: _Chunks | None
    pieces: list[bytes | memoryview]

    keep_alive: bytes
    """What it says of how long its connection is kept; empty if nothing."""

    def __repr__(self) -> str:
        """Return its status, and nothing of what is in it."""
        return f"PlainResponse({self.status})"

    @property
    def may_be_followed(self) -> bool:
        """Return whether nothing has come after it that was not asked for."""
        return not (self.left if self.chunks is None else self.chunks.surplus)

    def receive(self, data: bytes) -> Response | None:
        """Add a piece; return the response if it is whole now."""
        is_new = self.head_size and self.chunks is None
        if is_new and self.head_size + self.left == len(data):
            # Nearly always: all of it has come at once.
            body, self.left = data[self.head_size :], 0
        elif self._add(data):
            body = b"".join(self.pieces)
        else:
            return None
        self.pieces.clear()
        return Response(
            status=self.status, reason=self.reason, headers=self.headers, body=body
        )

    def _add(self, data: bytes) -> bool:
        """Add a piece, and return whether it was the last."""
        piece: bytes | memoryview = data
        if self.head_size:
            # No copy: joining makes one anyway.
            piece, self.head_size = memoryview(data)[self.head_size :], 0
        if self.chunks is not None:
            self.chunks.receive(piece)
            return self.chunks.surplus is not None
        self.left -= len(piece)
        self.pieces.append(piece[: self.left] if self.left < 0 else piece)
        return self.left <= 0

    def end(self, error: Exception) -> Response:
        """Raise the *error* with which the connection ended: some is missing."""
        raise error


def begin_response(
    method: bytes, data: bytes, max_bytes: int
) -> "PlainResponse | TwistedResponse":
    """
    Begin to read the response to *method* of which *data* is the first piece.

    Raises:
        UpstreamBroken: the body would be over *max_bytes*.
        HandshakeFailed: it is no HTTP, but TLS.
    """
    # A response to HEAD has a length, but no body.
    plain = None if method == b"HEAD" else _begin_plain(data, max_bytes)
    if plain is None and is_alert(data):
        raise HandshakeFailed(SPEAKS_TLS)
    return plain or TwistedResponse(method, max_bytes)


# httptools, which parses in C, is no faster here: it calls back for each line, which
# then has to be spelled and checked as below all the same.
def _begin_plain(data: bytes, max_bytes: int) -> PlainResponse | None:
    end = data.find(b"\r\n\r\n")
    if end < 0:
        return None
    first, *lines = data[:end].split(b"\r\n")
    status = _read_status(first)
    found = None if status is None else _read_lines(lines)
    if status is None or found is None:
        return None
    headers, length, keep_alive = found
    if length is not None and length > max_bytes:
        raise too_long(max_bytes)
    pieces: list[bytes | memoryview] = []
    return PlainResponse(
        status=status[0],
        reason=status[1],
        headers=headers,
        head_size=end + 4,
        left=length or 0,
        chunks=_Chunks(pieces, max_bytes) if length is None else None,
        pieces=pieces,
        keep_alive=keep_alive,
    )


@lru_cache(100)
def _read_status(first: bytes) -> tuple[int, bytes] | None:
    """Return status and reason in the *first* line; None if it is not plain."""
    status = _STATUS.fullmatch(first)
    return (int(status[1]), status[2] or b"") if status is not None else None


def _read_lines(lines: list[bytes]) -> tuple[HeaderList, int | None, bytes] | None:
    """
    Read the lines for the other end, the length of the body, and `Keep-Alive`.

    Returns:
        None if they are not plain; a length of None if the body is in chunks.
    """
    headers = []
    length: int | None = None
    is_framed = False
    keep_alive = b""
    for line in lines:
        known = _LINES.get(line) or _read_line(line)
        if known is None:
            return None
        spelled, value = known
        if spelled not in _SPECIAL:
            headers.append(known)
        elif is_framed and spelled in _FRAMES:
            return None
        elif spelled == _LENGTH and value.isdigit() and len(value) <= MOST_DIGITS:
            length, is_framed = int(value), True
        elif spelled == _CODING and value.lower() == b"chunked":
            is_framed = True
        elif spelled == _KEEP_ALIVE:
            keep_alive = value
        elif spelled not in _LEFT_OUT and (spelled, value.lower()) != _AS_EVER:
            return None
    if not is_framed:
        return None
    repeats = len(dict(headers)) < len(headers)
    grouped = group(headers) if repeats else tuple(headers)
    return grouped, length, keep_alive


_LINES: dict[bytes, tuple[bytes, bytes]] = {}
"""Lines that were read: most of an answer are those of the one before."""

MOST_LINES, LONGEST_LINE = 1000, 128
"""So many are kept, up to so many bytes each; then all are forgotten."""


def _read_line(line: bytes) -> tuple[bytes, bytes] | None:
    """Return the name as Twisted spells it, and the value; None if it is no line."""
    name, colon, value = line.partition(b":")
    spelled = _spelled(name)
    if not colon or not spelled or b"\r" in line or b"\n" in line:
        return None
    read = spelled, value.strip()
    if len(line) <= LONGEST_LINE:
        if len(_LINES) >= MOST_LINES:
            _LINES.clear()
        _LINES[line] = read
    return read


@lru_cache(1000)
def _spelled(name: bytes) -> bytes:
    """Return *name* as Twisted spells it; empty if it is no name."""
    return spell(name) if _TOKEN.fullmatch(name) else b""


def _spelled_all(names: Iterable[bytes]) -> frozenset[bytes]:
    return frozenset(map(_spelled, names))


_KEEP_ALIVE = _spelled(b"keep-alive")
_AS_EVER = (b"Connection", b"keep-alive")

_LENGTH, _CODING = _spelled(b"content-length"), _spelled(b"transfer-encoding")
_FRAMES = frozenset({_LENGTH, _CODING})

MOST_DIGITS = 15
"""A length with more of them is no length."""

_CHANGING = _FRAMES | _spelled_all({b"connection", b"content-encoding"})
"""Lines that may change how a response is read."""

# `Trailers` is no header of HTTP's, but Twisted takes it for one.
_LEFT_OUT = _spelled_all(OF_ONE_HOP | {b"trailers"}) - _CHANGING

_SPECIAL = _CHANGING | _LEFT_OUT


HTTP_1_1 = (b"HTTP", 1, 1)


@define(eq=False)
class _Connection:
    """The connection that the parser needs: it can only be closed."""

    disconnecting: bool = False

    def pauseProducing(self) -> None:
        """Do nothing: what comes is read at once."""

    resumeProducing = pauseProducing

    def loseConnection(self) -> None:  # noqa: N802
        """Stop reading."""
        self.disconnecting = True


@define(eq=False)
class TwistedResponse:
    """
    A response that Twisted reads.

    Without a length, in parts, packed, after another that is only interim, or
    broken: the result is what treq makes of it, in its words.
    """

    method: bytes
    max_bytes: int
    _connection: _Connection = field(init=False, factory=_Connection)
    _parser: Any = field(init=False)
    _surplus: bytes | None = field(init=False, default=None)
    """What came after its end; None before that."""

    _outcome: Response | Failure | None = field(init=False, default=None)

    def __attrs_post_init__(self) -> None:
        request = Request(self.method, b"/", Headers(), None)
        self._parser = ResponseParser(request, self._over)
        self._parser.makeConnection(self._connection)
        read: Deferred[Any] = self._parser._responseDeferred  # noqa: SLF001
        read.addCallback(self._begun).addBoth(self._ended)

    @property
    def keep_alive(self) -> bytes:
        """Return the value of its `Keep-Alive` line; empty if it has none."""
        lines = self._parser.connHeaders.getRawHeaders(b"Keep-Alive", [])
        return b",".join(lines)

    @property
    def may_be_followed(self) -> bool:
        """Return whether it has an end of its own, and neither side wants to close."""
        lines = self._parser.connHeaders.getRawHeaders(b"Connection", [])
        closes = b"close" in b",".join(lines).lower()
        return (
            self._surplus == b""
            and not closes
            and self._parser.response.version == HTTP_1_1
        )

    def receive(self, data: bytes) -> Response | None:
        """Add a piece; return the response if it is whole now."""
        self._parser.dataReceived(data)
        if self._surplus is not None:
            self._parser.connectionLost(Failure(ConnectionDone()))
        if self._outcome is None and self._connection.disconnecting:
            raise ConnectionDone
        return self._take_outcome()

    def end(self, error: Exception) -> Response:
        """Return the response now that the connection has ended: some end so."""
        self._parser.connectionLost(Failure(error))
        response = self._take_outcome()
        if response is None:
            raise error
        return response

    def _begun(self, response: IResponse) -> Deferred[Response]:
        without_named(response, self._parser)
        return _unpacking(response).addCallback(self._collect)

    def _collect(self, response: IResponse) -> Deferred[Response]:
        body = collect(response, self.max_bytes)
        return body.addCallback(lambda whole: reply_of(response, whole))

    def _over(self, surplus: bytes) -> None:
        self._surplus = surplus

    def _ended(self, outcome: Response | Failure) -> None:
        self._outcome = outcome

    def _take_outcome(self) -> Response | None:
        # Let go at once: parser and response hold on to each other.
        outcome, self._outcome = self._outcome, None
        if isinstance(outcome, Failure):
            outcome.raiseException()
        return outcome


@implementer(IAgent)
@define(eq=False)
class _Answered:
    """Has the response before the request."""

    response: IResponse

    def request(self, *_: Any) -> Deferred[IResponse]:
        return succeed(self.response)


def _unpacking(response: IResponse) -> Deferred[IResponse]:
    """Unpack *response* if it is packed, as treq does."""
    return unpacking(_Answered(response)).request(b"GET", b"/")
