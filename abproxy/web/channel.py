"""One connection of a client: what it may send, and how it ends."""

from collections.abc import Callable
from typing import Any, Protocol

from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import ITCPTransport
from twisted.protocols.tls import TLSMemoryBIOProtocol
from twisted.python.failure import Failure
from twisted.web.http import HTTPChannel

from abproxy.errors import HeadersTooLarge, ProxyError, RequestTimeout
from abproxy.http.messages import Response, reason_of
from abproxy.web.observing import RequestObserver
from abproxy.web.request import ProxyRequest, Rules, without_origin
from abproxy.web.request_id import named, new_name

__all__ = ["GONE", "IDLE_S", "LINGER_S", "House", "ProxyChannel"]

MAX_HEAD_BYTES = 64 << 10
"""The longest head of a request: long tokens and cookies fit."""

IDLE_S = 75
"""
How long a connection may be silent between requests, in seconds.

Longer than the pools of common clients keep one: the client should be the one
to close, or its next request may meet a connection that is just closing.
"""

LINGER_S = 5
"""How long who is refused may still send, in seconds, before the connection is cut."""

GONE = Failure(ConnectionDone())


class House(Rules, Protocol):
    """What a connection has to know of the door."""

    reactor: Any
    patience_s: float

    looked_at: float
    """When connections were last looked at, which is done often enough."""

    observer: RequestObserver
    refusal: Callable[[ProxyError, bytes], Response]

    def channel_made(self, channel: "ProxyChannel") -> None:
        """A connection has come."""

    def channel_lost(self, channel: "ProxyChannel") -> None:
        """A connection has gone."""


class ProxyChannel(HTTPChannel):
    """One connection of a client."""

    site: House

    totalHeadersSize = MAX_LENGTH = MAX_HEAD_BYTES  # noqa: N815

    waits_since: float | None = None
    """Since when a request is arriving; None while its bytes are in no hurry."""

    quiet_since: float | None = None
    """Since when nothing is asked and nothing is owed."""

    is_surplus = False
    """Whether it is one connection too many."""

    _discards = False

    @property
    def command(self) -> bytes:
        """The method of the request whose head is complete."""
        return bytes(self._command)

    @property
    def target(self) -> bytes:
        """Path and query of that request."""
        return without_origin(self._path)

    @property
    def version(self) -> bytes:
        """The HTTP version of that request."""
        return bytes(self._version)

    def connectionMade(self) -> None:
        """Count the connection in."""
        super().connectionMade()
        self.site.channel_made(self)
        self.note_quiet()

    def connectionLost(self, reason: Failure = GONE) -> None:
        """Count the connection out."""
        super().connectionLost(reason)
        self.site.channel_lost(self)

    def headerReceived(self, line: bytes) -> bool:
        """Take in a header line; a length of thousands of digits is no length."""
        try:
            return bool(super().headerReceived(line))
        except ValueError:
            self.refuse_head()
            return False

    def lineLengthExceeded(self, line: bytes) -> None:  # noqa: ARG002, N802
        """Say that a head is too long, where Twisted would just hang up."""
        self.refuse(HeadersTooLarge(f"a head may have {MAX_HEAD_BYTES} bytes at most"))

    def allContentReceived(self) -> None:
        """Note the end of a body, unless it was refused and the client was told."""
        if not self._discards:
            super().allContentReceived()

    def refuse_head(self) -> None:
        """Answer 400 and hang up, as Twisted does to what is no HTTP."""
        self._respondToBadRequestAndDisconnect()

    def refuse(self, error: ProxyError) -> None:
        """
        Answer with *error* and hang up, without waiting for what still comes.

        A connection closed while the client still sends is reset, and the
        reset may overtake the answer.  So the rest is read for a while and
        thrown away.
        """
        target = without_origin(getattr(self, "_path", b""))
        name = self.requests[0].name() if self.requests else new_name()
        reply = named(self.site.refusal(error, target), name)
        self.site.observer.answered_with(error)
        self._discards = True
        self.setTimeout(LINGER_S)
        self.writeSequence(_closing(reply))
        transport: Any = self.transport
        if isinstance(transport, TLSMemoryBIOProtocol):
            super().loseConnection()  # which reads on until the client ends as well
        elif ITCPTransport.providedBy(transport):
            transport.loseWriteConnection()
        else:
            self.loseConnection()

    def loseConnection(self) -> None:  # noqa: N802
        """
        Close when all is written.

        Under TLS a client is told so, and has to answer; one that keeps the
        connection for later does not look, and is not waited for.
        """
        super().loseConnection()
        transport: Any = self.transport
        if isinstance(transport, TLSMemoryBIOProtocol):
            below: Any = transport.transport
            below.loseConnection()

    def dataReceived(self, data: bytes) -> None:
        """Take in what the client sends, unless it was told to stop."""
        if self._discards:
            return
        if not self.requests:
            self.note_arriving()
        super().dataReceived(data)

    def requestDone(self, request: ProxyRequest) -> None:  # noqa: N802
        """Go on with the next request, part of which may be here already."""
        if self.has_more:
            self.note_arriving()
        else:
            self.note_quiet()
        super().requestDone(request)

    @property
    def has_more(self) -> bool:
        """Whether something of the next request is here already."""
        return any(self._dataBuffer)

    @property
    def is_busy(self) -> bool:
        """Whether an answer is owed, or Twisted has begun to read a request."""
        return bool(self.requests)

    def note_arriving(self) -> None:
        """Note that a request begins to arrive, if none did yet."""
        self.quiet_since = None
        if self.waits_since is None:
            self.waits_since = self.site.reactor.seconds()

    def note_quiet(self) -> None:
        """Note that nothing is asked and nothing is owed."""
        self.quiet_since = self.site.looked_at

    def is_slow(self, now: float) -> bool:
        """Whether the request takes too long to arrive."""
        since = self.waits_since
        return since is not None and now - since >= self.site.patience_s

    def refuse_if_slow(self, now: float) -> None:
        """Hang up if the request takes too long to arrive, or none comes."""
        if self._discards:
            return
        if self.quiet_since is not None and now - self.quiet_since >= IDLE_S:
            self.quiet_since = None
            self.timeoutConnection()
        if not self.is_slow(now):
            return
        if self.requests and self.requests[0].startedWriting:
            self.forceAbortClient()  # its answer was all there is to say
        else:
            self.refuse(
                RequestTimeout(f"no request within {self.site.patience_s:g} seconds")
            )


def _closing(reply: Response) -> list[bytes]:
    lines = [
        b"HTTP/1.1 %d %b" % (reply.status, reason_of(reply.status)),
        *(b"%b: %b" % line for line in reply.headers),
        b"Content-Length: %d" % len(reply.body),
        b"Connection: close",
    ]
    return [b"\r\n".join(lines), b"\r\n\r\n", reply.body]
