"""
Answers that are plain: a plain head, and a body that says where it ends.

These are nearly all.  Pieces are kept as they come and joined once.
"""

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

from attrs import define, field, frozen
from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import ConnectionDone
from twisted.python.failure import Failure
from twisted.web._newclient import HTTPClientParser, ParseError, Request
from twisted.web.client import ContentDecoderAgent, GzipDecoder
from twisted.web.http import SWITCHING, _ChunkedTransferDecoder
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IResponse
from zope.interface import implementer

from abproxy.http.headers import OF_ONE_HOP, group, spell
from abproxy.http.messages import HeaderList, Response
from abproxy.upstream.agent import collect, reply_of, too_long, without_named

__all__ = [
    "PlainResponse",
    "ResponseHead",
    "TwistedResponse",
    "begin_plain",
    "read_head",
]

_STATUS = re.compile(rb"HTTP/1\.1 (?!204|304)([2-9]\d\d)(?: (.*))?", re.DOTALL)
_TOKEN = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_FRAMING = re.compile(
    rb"Content-Length:(\d{1,15})|Transfer-Encoding:chunked", re.IGNORECASE
)


@frozen
class ResponseHead:
    """A plain head."""

    status: int
    reason: bytes

    headers: HeaderList = field(repr=False)
    """The lines that are meant for the other end, as Twisted has them."""

    length: int | None
    """Bytes of the body; None if it comes in chunks."""

    end: int
    """Where the body begins in the first piece."""


def read_head(data: bytes) -> ResponseHead | None:
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
    return ResponseHead(int(status[1]), status[2] or b"", headers, length, end + 4)


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


@define(eq=False)
class WithLength:
    """A body whose length was told."""

    left: int
    """Bytes that are still to come; less than 0 if too many came."""

    pieces: list[bytes | memoryview] = field(init=False, factory=list)

    @property
    def has_surplus(self) -> bool:
        """Whether something came after its end."""
        return self.left < 0

    def receive(self, data: bytes | memoryview) -> bool:
        """Take in a piece; whether it was the last."""
        self.left -= len(data)
        self.pieces.append(data[: self.left] if self.left < 0 else data)
        return self.left <= 0


@define(eq=False)
class InChunks:
    """A body that comes in chunks."""

    max_bytes: int
    has_surplus: bool = field(init=False, default=False)
    pieces: list[bytes | memoryview] = field(init=False, factory=list)
    _size: int = field(init=False, default=0)
    _is_whole: bool = field(init=False, default=False)
    _decoder: _ChunkedTransferDecoder = field(init=False)

    def __attrs_post_init__(self) -> None:
        """Let Twisted look for the chunks."""
        self._decoder = _ChunkedTransferDecoder(self._take, self._end)

    def receive(self, data: bytes | memoryview) -> bool:
        """Take in a piece; whether it was the last."""
        self._decoder.dataReceived(bytes(data))
        return self._is_whole

    def _take(self, data: bytes) -> None:
        self._size += len(data)
        if self._size > self.max_bytes:
            raise too_long(self.max_bytes)
        self.pieces.append(data)

    def _end(self, surplus: bytes) -> None:
        self._is_whole = True
        self.has_surplus = bool(surplus)


@define(eq=False)
class PlainResponse:
    """A plain answer of which the body is still coming in."""

    head: ResponseHead
    body: WithLength | InChunks
    _is_new: bool = field(init=False, default=True)

    @property
    def may_be_followed(self) -> bool:
        """Whether nothing has come after it that nobody asked for."""
        return not self.body.has_surplus

    def receive(self, data: bytes) -> Response | None:
        """Take in a piece; the reply if it is whole now."""
        piece: bytes | memoryview = data
        if self._is_new:
            # No copy: joining makes one anyway.
            piece, self._is_new = memoryview(data)[self.head.end :], False
        if not self.body.receive(piece):
            return None
        body = b"".join(self.body.pieces)
        self.body.pieces.clear()
        return Response(
            status=self.head.status,
            reason=self.head.reason,
            headers=self.head.headers,
            body=body,
        )

    def end(self, error: Exception) -> Response:
        """Raise the *error*: some of it is missing."""
        raise error


def begin_plain(data: bytes, max_bytes: int) -> PlainResponse | None:
    """
    Begin with an answer of which *data* is the first piece, if it is plain.

    Raises:
        UpstreamBroken: the body would be over *max_bytes*.
    """
    head = read_head(data)
    if head is None:
        return None
    if head.length is None:
        return PlainResponse(head, InChunks(max_bytes))
    if head.length > max_bytes:
        raise too_long(max_bytes)
    return PlainResponse(head, WithLength(head.length))


HTTP_1_1 = (b"HTTP", 1, 1)


class _Parser(HTTPClientParser):
    """Reads one answer."""

    def allHeadersReceived(self) -> None:
        """Refuse what would end HTTP on this connection, and two framings."""
        told = self.connHeaders
        if self.response.code == SWITCHING:
            raise ParseError("nobody asked for another protocol", b"101")
        if told.hasHeader(b"Content-Length") and told.hasHeader(b"Transfer-Encoding"):
            raise ParseError("a length and chunks", b"Transfer-Encoding")
        super().allHeadersReceived()


@define(eq=False)
class _Line:
    """What the parser takes for its connection: it may only be given up."""

    disconnecting: bool = False

    def pauseProducing(self) -> None:
        """Do nothing: what comes is taken in at once."""

    resumeProducing = pauseProducing

    def loseConnection(self) -> None:  # noqa: N802
        """Remember that no more is wanted."""
        self.disconnecting = True


@define(eq=False)
class TwistedResponse:
    """One answer that Twisted reads."""

    method: bytes
    max_bytes: int
    _line: _Line = field(init=False, factory=_Line)
    _parser: Any = field(init=False)
    _surplus: bytes | None = field(init=False, default=None)
    """What came after its end; None before that."""

    _outcome: Response | Failure | None = field(init=False, default=None)

    def __attrs_post_init__(self) -> None:
        """Wait for the first piece."""
        question = Request(self.method, b"/", Headers(), None)
        self._parser = _Parser(question, self._over)
        self._parser.makeConnection(self._line)
        read: Deferred[Any] = self._parser._responseDeferred  # noqa: SLF001
        read.addCallback(self._begun).addBoth(self._ended)

    @property
    def may_be_followed(self) -> bool:
        """Whether it has an end of its own, and nobody wants to close."""
        lines = self._parser.connHeaders.getRawHeaders(b"Connection", [])
        closes = b"close" in b",".join(lines).lower()
        return (
            self._surplus == b""
            and not closes
            and self._parser.response.version == HTTP_1_1
        )

    def receive(self, data: bytes) -> Response | None:
        """Take in a piece; the reply if it is whole now."""
        self._parser.dataReceived(data)
        if self._surplus is not None:
            self._parser.connectionLost(Failure(ConnectionDone()))
        if self._outcome is None and self._line.disconnecting:
            raise ConnectionDone
        return self._reply()

    def end(self, error: Exception) -> Response:
        """Take in that the connection has ended: some answers end so."""
        self._parser.connectionLost(Failure(error))
        reply = self._reply()
        if reply is None:
            raise error
        return reply

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

    def _reply(self) -> Response | None:
        # Let go at once: parser and answer hold on to each other.
        outcome, self._outcome = self._outcome, None
        if isinstance(outcome, Failure):
            outcome.raiseException()
        return outcome


@implementer(IAgent)
@define(eq=False)
class _Answered:
    """Has the answer before it is asked."""

    response: IResponse

    def request(self, *_: Any) -> Deferred[IResponse]:
        return succeed(self.response)


def _unpacking(response: IResponse) -> Deferred[IResponse]:
    """Unpack what comes packed, as treq does."""
    agent = ContentDecoderAgent(_Answered(response), [(b"gzip", GzipDecoder)])
    unpacked: Deferred[IResponse] = agent.request(b"GET", b"/")
    return unpacked
