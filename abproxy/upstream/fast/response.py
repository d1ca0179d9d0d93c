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

_STATUS = re.compile(rb"HTTP/1\.1 (?!204|304)([2-9]\d\d)(?: (.*))?", re.DOTALL)
_TOKEN = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_FRAMING = re.compile(
    rb"Content-Length:(\d{1,15})|Transfer-Encoding:chunked", re.IGNORECASE
)


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
        """Leave the chunks to Twisted's decoder."""
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
        piece: bytes | memoryview = data
        if self.head_size:
            # No copy: joining makes one anyway.
            piece, self.head_size = memoryview(data)[self.head_size :], 0
        if self.chunks is not None:
            self.chunks.receive(piece)
            is_whole = self.chunks.surplus is not None
        else:
            self.left -= len(piece)
            self.pieces.append(piece[: self.left] if self.left < 0 else piece)
            is_whole = self.left <= 0
        if not is_whole:
            return None
        body = b"".join(self.pieces)
        self.pieces.clear()
        return Response(
            status=self.status, reason=self.reason, headers=self.headers, body=body
        )

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
    head = data[: max(end, 0)]
    first, *lines = head.split(b"\r\n")
    status = _STATUS.fullmatch(first)
    if status is None or not head.count(b"\r") == head.count(b"\n") == len(lines):
        return None
    found = _read_lines(lines)
    if found is None:
        return None
    headers, length, keep_alive = found
    if length is not None and length > max_bytes:
        raise too_long(max_bytes)
    pieces: list[bytes | memoryview] = []
    return PlainResponse(
        status=int(status[1]),
        reason=status[2] or b"",
        headers=headers,
        head_size=end + 4,
        left=length or 0,
        chunks=_Chunks(pieces, max_bytes) if length is None else None,
        pieces=pieces,
        keep_alive=keep_alive,
    )


def _read_lines(lines: list[bytes]) -> tuple[HeaderList, int | None, bytes] | None:
    """
    Read the lines for the other end, the length of the body, and `Keep-Alive`.

    Returns:
        None if they are not plain; a length of None if the body is in chunks.
    """
    headers = []
    framing = None
    keep_alive = b""
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
        elif spelled == _KEEP_ALIVE:
            keep_alive = value
        elif spelled not in _LEFT_OUT and (spelled, value.lower()) != _AS_EVER:
            return None
    if framing is None:
        return None
    repeats = len(dict(headers)) < len(headers)
    grouped = group(headers) if repeats else tuple(headers)
    return grouped, int(framing[1]) if framing[1] else None, keep_alive


@lru_cache(1000)
def _spelled(name: bytes) -> bytes:
    """Return *name* as Twisted spells it; empty if it is no name."""
    return spell(name) if _TOKEN.fullmatch(name) else b""


def _spelled_all(names: Iterable[bytes]) -> frozenset[bytes]:
    return frozenset(map(_spelled, names))


_KEEP_ALIVE = _spelled(b"keep-alive")
_AS_EVER = (b"Connection", b"keep-alive")

_FRAMES = _spelled_all({b"content-length", b"transfer-encoding"})

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
        """Note that no more is wanted."""
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
        """Wait for the first piece."""
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
