"""
The HTTP server: its connections, their requests, and how they end together.

These are Twisted's Site, HTTPChannel and Request, with limits on what a client may
send, an error in words where Twisted would just hang up, and an orderly end.
"""

from collections.abc import Callable
from typing import Any

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IDelayedCall, ITCPTransport
from twisted.protocols.tls import TLSMemoryBIOProtocol
from twisted.python.failure import Failure
from twisted.web.http import HTTPChannel
from twisted.web.resource import IResource
from twisted.web.server import Site

from abproxy.errors import HeadersTooLarge, ProxyError, RequestTimeout
from abproxy.events import Observer, RequestInfo
from abproxy.http.forwarded import plain_address
from abproxy.http.headers import new_request_id, read_request_id
from abproxy.web.admin import Operations
from abproxy.web.auth import ApiKeys, Clients
from abproxy.web.replies import encode_last, error_response
from abproxy.web.request import ProxyRequest, without_origin

__all__ = [
    "GONE",
    "ProxyChannel",
    "ProxySite",
    "ServerLimits",
]

MAX_HEAD_BYTES = 64 << 10
"""The longest head of a request: long tokens and cookies fit."""

MAX_NAME_BYTES = 256
"""
The longest name of a header line: longer than any that a client has.

Twisted remembers 10,000 names for good, each as long as it came.
"""

MAX_LINES = 500
"""Header lines of a request."""

MOST_SURPLUS = 50
"""Connections over the limit that are told so; more are closed without a word."""

IDLE_S = 75
"""
How long a connection may be silent between requests, in seconds.

Longer than the pools of common clients keep one: the client should be the one
to close, or its next request may meet a connection that is just closing.
"""

LINGER_S = 5
"""How long a client that is refused may still send, before the connection is cut."""

CHECK_S = 1.0
"""How often slow requests are looked for, in seconds."""

GONE = Failure(ConnectionDone())

_BY_PEER = Clients(keys=ApiKeys(accepted=()))
"""Tells clients apart where no proxy is trusted, and no key asked for."""


class ProxyChannel(HTTPChannel):
    """One connection of a client."""

    site: "ProxySite"
    requests: list[ProxyRequest]

    totalHeadersSize = MAX_LENGTH = MAX_HEAD_BYTES  # noqa: N815
    maxHeaders = MAX_LINES  # noqa: N815

    arriving_since: float | None = None
    """Since when a request is arriving; None while its bytes may take their time."""

    idle_since: float | None = None
    """Since when the connection has been idle."""

    is_surplus = False
    """Whether it is one connection too many."""

    _discards = False
    _peer_host: str | None = None

    @property
    def peer_host(self) -> str:
        """The IP address of what has connected; empty if it has none."""
        if self._peer_host is None:
            host = str(getattr(self.getPeer(), "host", None) or "")
            self._peer_host = plain_address(host)
        return self._peer_host

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
        """Add the connection to the site's."""
        super().connectionMade()
        self.site.channel_made(self)
        self.idle_since = self.site.checked_at

    def connectionLost(self, reason: Failure = GONE) -> None:
        """Remove the connection from the site's."""
        super().connectionLost(reason)
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
        """Answer that a head is too long, where Twisted would just hang up."""
        what = "request line and headers together"
        self.refuse(HeadersTooLarge(f"{what} may have {MAX_HEAD_BYTES} bytes at most"))

    def allContentReceived(self) -> None:
        """Note the end of a body, unless it was refused and the client was told."""
        if not self._discards:
            super().allContentReceived()

    def refuse_head(self) -> None:
        """Answer 400 and hang up: it is no HTTP."""
        self._hang_up(b"HTTP/1.1 400 Bad Request\r\n\r\n")

    _respondToBadRequestAndDisconnect = refuse_head  # noqa: N815
    """What Twisted calls then."""

    def refuse(self, error: ProxyError) -> None:
        """Answer with *error* and hang up, without waiting for what still comes."""
        if self._discards:
            return
        if self.requests:
            request_id = read_request_id(self.requests[0].requestHeaders)
        else:
            request_id = new_request_id()
        target = without_origin(getattr(self, "_path", b""))
        response = error_response(error, target, request_id)
        self.site.observer.answered_with(error)
        self._hang_up(encode_last(response))

    def _hang_up(self, written: bytes) -> None:
        """
        Answer with what is *written*, and read nothing any more.

        A connection closed while the client still sends is reset, and the
        reset may overtake the answer.  So the rest is received for a while and
        thrown away.
        """
        if self._discards:
            return
        self._discards, self._buffer = True, b""
        if self.requests and self.requests[0].startedWriting:
            self.forceAbortClient()  # nothing can be added to an answer
            return
        requests, self.requests = self.requests, []
        for request in requests:
            request.connectionLost(GONE)  # it may be on its way upstream
        self.setTimeout(LINGER_S)
        self.write(written)
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
        """Read what the client sends, unless it was told to stop."""
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
            self.idle_since = self.site.checked_at
        super().requestDone(request)

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
        """Hang up if the request takes too long to arrive, or none comes."""
        if self._discards:
            return
        if self.idle_since is not None and now - self.idle_since >= IDLE_S:
            self.idle_since = None
            self.timeoutConnection()
        if not self.is_slow(now):
            return
        if self.requests and self.requests[0].startedWriting:
            self.forceAbortClient()  # nothing can be added to an answer
        else:
            patience_s = self.site.limits.request_timeout_s
            self.refuse(RequestTimeout(f"no request within {patience_s:g} seconds"))


@frozen(kw_only=True)
class ServerLimits:
    """The limits of what clients may send."""

    is_batched: Callable[[bytes, bytes], bool]
    """Whether a method and target are for a batched route."""

    max_body_bytes: int
    """The largest body of a request."""

    max_connections: int = 10_000
    """Connections that are served; a surplus one is told so and closed."""

    request_timeout_s: float = 60.0
    """How long a request may take to arrive; relayed bodies take their time."""


class ProxySite(Site):
    """
    All connections of clients at one port.

    Args:
        resource: answers the requests.
        limits: what clients may ask.
        reactor: the clock for timeouts.
        observer: what hears of requests.
        operations: our own pages.
        clients: returns what tells clients apart at the moment.
    """

    noisy = False
    protocol = ProxyChannel  # type: ignore[assignment]

    def __init__(  # noqa: PLR0913
        self,
        resource: IResource,
        *,
        limits: ServerLimits,
        reactor: Any,
        observer: Observer | None = None,
        operations: Operations | None = None,
        clients: Callable[[], Clients] = lambda: _BY_PEER,
    ) -> None:
        super().__init__(
            resource,
            requestFactory=ProxyRequest,
            parsePOSTFormSubmission=False,
            timeout=None,  # one check of all costs less than a timer for each
            reactor=reactor,
        )
        self.limits = limits
        self.observer = observer or Observer()
        self.operations = operations or Operations(pages={})
        self.clients = clients
        self.channels: set[ProxyChannel] = set()
        self.requests: set[RequestInfo] = set()
        """Those whose answers are owed."""

        self.is_draining = False
        self._drained: Deferred[None] | None = None
        self._check: IDelayedCall | None = None
        self._next_step: IDelayedCall | None = None
        self._closes_idle = False
        self.checked_at = reactor.seconds()
        """When connections were last looked at, which is done often enough."""

    def buildProtocol(self, addr: Any) -> Any:  # noqa: N802
        """Accept a connection, if only to answer that there are too many."""
        if len(self.channels) >= self.limits.max_connections + MOST_SURPLUS:
            return None
        return super().buildProtocol(addr)

    def acceptableProtocols(self) -> list[bytes]:  # noqa: N802
        """
        Return what is spoken under TLS, the best first.

        Twisted's own site adds HTTP/2 where it can, which our connections cannot.
        """
        return [b"http/1.1", b"http/1.0"]

    def announce_end(self) -> None:
        """Say in each answer from now on that its connection is closed after it."""
        self.is_draining = True
        for channel in self.channels:
            channel.end_after_answer()

    def drain(self, idle_s: float = 0.0) -> Deferred[None]:
        """
        Answer what is open, and close each connection after its answer.

        Fires when every connection is closed.  Connections without a request
        stay open for *idle_s*, as their clients may be just sending the next
        one, and are closed then as soon as nothing is left to answer.
        """
        self.announce_end()
        self._drained = Deferred()
        # In the next turn: what a client has sent meanwhile is read first.
        self._next_step = self.reactor.callLater(0, self._let_idle_stay, idle_s)
        return self._drained

    def _let_idle_stay(self, idle_s: float) -> None:
        self._next_step = None
        self._note_if_drained()
        if self._drained is not None:
            self._next_step = self.reactor.callLater(idle_s, self._close_idle)

    def _close_idle(self) -> None:
        self._next_step = None
        self._closes_idle = True
        self.close_if_quiet()

    def close_if_quiet(self) -> None:
        """Close idle connections if they need not stay and no request is open."""
        if not self._closes_idle or any(channel.is_busy for channel in self.channels):
            return
        for channel in list(self.channels):
            channel.loseConnection()
        self._note_if_drained()

    def abort(self) -> None:
        """Cut every connection, answered or not."""
        for channel in list(self.channels):
            channel.forceAbortClient()

    def begin(self, request: RequestInfo) -> None:
        """Note that *request* has to be answered."""
        request.began_at = self.reactor.seconds()
        self.requests.add(request)
        self.observer.request_began(request)

    def end(self, request: RequestInfo, *, gone: bool) -> None:
        """Note that *request* is answered, or that its client has *gone*."""
        self.requests.discard(request)
        self.observer.request_ended(request, gone=gone)
        if self._closes_idle:
            # In the next turn: what a client has sent meanwhile is read first.
            self.reactor.callLater(0, self.close_if_quiet)

    def channel_made(self, channel: ProxyChannel) -> None:
        """Add a connection."""
        channel.is_surplus = len(self.channels) >= self.limits.max_connections
        if channel.is_surplus:
            channel.setTimeout(LINGER_S)
        self.channels.add(channel)
        if self._check is None:
            self.checked_at = self.reactor.seconds()
            self._check = self.reactor.callLater(CHECK_S, self._look_for_the_slow)

    def channel_lost(self, channel: ProxyChannel) -> None:
        """Remove a connection."""
        self.channels.discard(channel)
        if not self.channels and self._check is not None:
            self._check.cancel()
            self._check = None
        self._note_if_drained()
        if channel.is_busy:
            # An idle one that goes makes nothing quieter, and all of them may
            # be going just now.
            self.close_if_quiet()

    def _look_for_the_slow(self) -> None:
        """One timer for all connections: a timer for each request costs time."""
        self._check = self.reactor.callLater(CHECK_S, self._look_for_the_slow)
        now = self.checked_at = self.reactor.seconds()
        for channel in list(self.channels):
            channel.refuse_if_slow(now)

    def _note_if_drained(self) -> None:
        if self._drained is not None and not self.channels:
            drained, self._drained = self._drained, None
            if self._next_step is not None:
                self._next_step.cancel()
                self._next_step = None
            drained.callback(None)

    def startFactory(self) -> None:
        """Open no access log, and no clock for one."""

    def stopFactory(self) -> None:
        """Close nothing."""

    def log(self, request: Any) -> None:
        """Write nothing for each request: it costs as much as the answer."""
