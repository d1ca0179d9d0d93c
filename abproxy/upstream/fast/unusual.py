"""
Answers that are not plain, read by Twisted itself.

Without a length, in bits, packed, after another answer that is only interim, or
broken: what comes of them is what treq makes of them, in its words.
"""

from typing import Any

from attrs import define, field
from twisted.internet.defer import Deferred, succeed
from twisted.internet.error import ConnectionDone
from twisted.python.failure import Failure
from twisted.web._newclient import HTTPClientParser, ParseError, Request
from twisted.web.client import ContentDecoderAgent, GzipDecoder
from twisted.web.http import SWITCHING
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IResponse
from zope.interface import implementer

from abproxy.http.messages import Response
from abproxy.upstream.agent import without_named
from abproxy.upstream.body import collect
from abproxy.upstream.client import reply_of

__all__ = ["TwistedResponse"]

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
