"""
One connection of a client: what it may send, and how it is refused.

This is Twisted's HTTPChannel, with limits on what a client may send, an error in
words where Twisted would just hang up, and nothing read after that.
"""

from typing import Any

from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import ISSLTransport, ITCPTransport
from twisted.logger import Logger, LogPublisher
from twisted.python.failure import Failure
from twisted.web.http import HTTPChannel

from abproxy.errors import HeadersTooLarge, ProxyError, RequestTimeout
from abproxy.http.forwarded import plain_address
from abproxy.http.headers import new_request_id, read_request_id
from abproxy.tuning import cut_off
from abproxy.web.replies import encode_last, error_response
from abproxy.web.request import ProxyRequest

__all__ = ["GONE", "IDLE_S", "LINGER_S", "ProxyChannel"]

MAX_HEAD_BYTES = 64 << 10
"""The longest head of a request: long tokens and cookies fit."""

MAX_NAME_BYTES = 256
"""
The longest name of a header line: longer than any that a client has.

Twisted remembers 10,000 names for good, each as long as it came.
"""

MAX_LINES = 500
"""Header lines of a request."""

IDLE_S = 75
"""
How long a connection may be silent between requests by default, in seconds.

Longer than the pools of common clients keep one: the client should be the one
to close, or its next request may meet a connection that is just closing.
"""

LINGER_S = 5
"""How long a client that is refused may still send, before the connection is cut."""

GONE = Failure(ConnectionDone())


class ProxyChannel(HTTPChannel):
    """One connection of a client."""

    site: Any
    """The ProxySite that accepted it."""

    requests: list[ProxyRequest]

    # Twisted writes a line for each connection that it closes for being idle or slow:
    # anyone could fill the log by connecting.
    _log = Logger(observer=LogPublisher())

    totalHeadersSize = MAX_LENGTH = MAX_HEAD_BYTES  # noqa: N815
    maxHeaders = MAX_LINES  # noqa: N815

    arriving_since: float | None = None
    """Since when a request is arriving; None while its bytes may take their time."""

    idle_since: float | None = None
    """Since when the connection has been idle."""

    is_surplus = False
    """Whether it is one connection too many."""

    body_bytes = 0
    """How many bytes are held of the body of a request."""

    _held = 0
    """How many bytes are counted as held."""

    _discards = False
    _peer_host: str | None = None

    @property
    def peer_host(self) -> str:
        """
        Return the IP address of the peer; empty if it has none.

        What connects by way of a balancer is what that tells of it.
        """
        if self._peer_host is None:
            host = str(getattr(self.getPeer(), "host", None) or "")
            self._peer_host = plain_address(host)
        return self._peer_host

    @peer_host.setter
    def peer_host(self, host: str) -> None:
        self._peer_host = host

    @property
    def command(self) -> bytes:
        """Return the method of the request whose head is complete."""
        return bytes(self._command)

    @property
    def target(self) -> bytes:
        """Path and query of that request."""
        target: bytes = self.site.local(self._path)
        return target

    @property
    def as_sent(self) -> bytes:
        """Return the same as the client has written it."""
        return bytes(self._path)

    @property
    def version(self) -> bytes:
        """Return the HTTP version of that request."""
        return bytes(self._version)

    def connectionMade(self) -> None:
        """Add the connection to the site's."""
        super().connectionMade()
        self.site.channel_made(self)
        self.idle_since = self.site.checked_at

    def connectionLost(self, reason: Failure = GONE) -> None:
        """Remove the connection from the site's."""
        super().connectionLost(reason)
        self.site.memory.forget(self)
        self.site.channel_lost(self)

    def headerReceived(self, line: bytes) -> bool:
        """
        Read a header line; a length of thousands of digits is no length.

        What is too much is refused before Twisted sees, and remembers, the name.
        """
        name = line.partition(b":")[0]
        if len(name) > MAX_NAME_BYTES:
            most = f"the name of a header may have {MAX_NAME_BYTES} bytes at most"
            self.refuse(HeadersTooLarge(most))
            return False
        if self._receivedHeaderCount >= MAX_LINES:
            most = f"a request may have {MAX_LINES} header lines at most"
            self.refuse(HeadersTooLarge(most))
            return False
        try:
            return bool(super().headerReceived(line))
        except ValueError:
            self.refuse_head()
            return False

    def lineLengthExceeded(self, line: bytes) -> None:  # noqa: ARG002, N802
        """Answer that a head is too long, where Twisted would only close."""
        what = "request line and headers together"
        self.refuse(HeadersTooLarge(f"{what} may have {MAX_HEAD_BYTES} bytes at most"))

    def allContentReceived(self) -> None:
        """Note the end of a body, unless it was refused and the client was told."""
        if not self._discards:
            super().allContentReceived()

    def refuse_head(self) -> None:
        """Answer 400 and close the connection: it is no HTTP."""
        self._hang_up(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    _respondToBadRequestAndDisconnect = refuse_head  # noqa: N815
    """What Twisted calls then."""

    def has_arrived(self, length: int | None) -> bool:
        """Return whether a body of *length* is here already, behind its head."""
        return length is not None and length <= len(self._buffer)

    def refuse(self, error: ProxyError, request_id: bytes = b"") -> None:
        """Answer with *error* and close, without waiting for what still comes."""
        if self._discards:
            return
        if not request_id:
            request_id = self._request_id()
        target = self.site.local(getattr(self, "_path", b""))
        response = error_response(error, target, request_id)
        self.site.observer.answered_with(error)
        self._hang_up(encode_last(response))

    def _request_id(self) -> bytes:
        if self.requests:
            return read_request_id(self.requests[0].requestHeaders)
        return new_request_id()

    def _hang_up(self, written: bytes) -> None:
        """
        Answer with what is *written*, and read nothing any more.

        A connection closed while the client still sends is reset, and the
        reset may overtake the answer.  So the rest is received for a while and
        thrown away.
        """
        if self._discards:
            return
        self._discards, self._buffer, self.body_bytes = True, b"", 0
        self._dataBuffer.clear()
        self.hold(0)
        if self.requests and self.requests[0].startedWriting:
            self.forceAbortClient()  # nothing can be added to an answer
            return
        requests, self.requests = self.requests, []
        for request in requests:
            request.connectionLost(GONE)  # it may be on its way upstream
        self.setTimeout(LINGER_S)
        self.write(written)
        transport: Any = self.transport
        if ISSLTransport.providedBy(transport):
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
        is_tls = ISSLTransport.providedBy(transport)
        if is_tls:
            transport.transport.loseConnection()

    def dataReceived(self, data: bytes) -> None:
        """Read what the client sends, unless it was told to stop."""
        if self._discards:
            return
        if not self.requests:
            self.note_arriving()
        super().dataReceived(data)
        if self._held or self.body_bytes or self.has_more:
            self.count_held()

    def count_held(self) -> None:
        """Count how much of what the client has sent is held."""
        waits = len(self._buffer) + sum(map(len, self._dataBuffer))
        self.hold(self.body_bytes + self._receivedHeaderSize + waits)

    def hold(self, size: int) -> None:
        """Hold *size* bytes of requests from now on."""
        self._held = size
        self.site.memory.receive(self, size)

    @property
    def may_be_refused(self) -> bool:
        """Return whether a request is arriving, of which nothing was done yet."""
        return self.arriving_since is not None and not self._discards

    def refuse_arriving(self, error: ProxyError) -> None:
        """Refuse the request that is arriving."""
        self.refuse(error)

    def pause_reading(self) -> None:
        """Read no more of the request that is arriving."""
        self._networkProducer.pauseProducing()

    def resume_reading(self) -> None:
        """Read on, unless the client has to read first."""
        if not self._waitingForTransport and not self._handlingRequest:
            self._networkProducer.resumeProducing()

    def cut(self) -> None:
        """Close the connection at once, whatever is unsent."""
        cut_off(self.transport)

    def pauseProducing(self) -> None:
        """Pause: more was written than the client has read."""
        super().pauseProducing()
        self.site.memory.send(self)

    def resumeProducing(self) -> None:
        """Resume: the client has read what was written."""
        self.site.memory.sent(self)
        super().resumeProducing()

    def requestDone(self, request: ProxyRequest) -> None:  # noqa: N802
        """Process the next request, part of which may be here already."""
        if self.has_more:
            self.note_arriving()
        else:
            self.idle_since = self.site.checked_at
        self.body_bytes = 0
        super().requestDone(request)
        if self._held:
            self.count_held()

    @property
    def has_more(self) -> bool:
        """Return whether something of the next request is here already."""
        # Twisted keeps it in one place while a request waits for its answer, and
        # in the other while it reads.
        return any(self._dataBuffer) or bool(self._buffer)

    @property
    def is_busy(self) -> bool:
        """Return whether an answer is owed, or Twisted has begun to read a request."""
        return bool(self.requests)

    def end_after_answer(self) -> None:
        """Close the connection after the answer that is owed, and say so in it."""
        for request in self.requests:
            request.end_connection()

    def note_arriving(self) -> None:
        """Note that a request begins to arrive, if none did yet."""
        self.idle_since = None
        if self.arriving_since is None:
            self.arriving_since = self.site.reactor.seconds()

    def is_slow(self, now: float) -> bool:
        """Return whether the request takes too long to arrive."""
        since = self.arriving_since
        return since is not None and now - since >= self.site.limits.request_timeout_s

    def refuse_if_slow(self, now: float) -> None:
        """Close the connection if the request arrives too slowly, or none comes."""
        if self._discards:
            return
        most_s = self.site.limits.keep_alive_s
        if self.idle_since is not None and now - self.idle_since >= most_s:
            self.idle_since = None
            self.timeoutConnection()
        if not self.is_slow(now):
            return
        if self.requests and self.requests[0].startedWriting:
            self.forceAbortClient()  # nothing can be added to an answer
        else:
            patience_s = self.site.limits.request_timeout_s
            self.refuse(RequestTimeout(f"no request within {patience_s:g} seconds"))
