"""
The connections of Twisted's agent to the upstream.

How long they are kept unused, and which responses are no HTTP to us although
Twisted takes them for it.
"""

import re
from collections.abc import Sequence
from typing import Any

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionClosed
from twisted.internet.interfaces import (
    IHandshakeListener,
    IReactorTime,
    ISSLTransport,
)
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from twisted.web._newclient import (
    STATUS,
    HTTP11ClientProtocol,
    HTTPClientParser,
    ParseError,
    ResponseFailed,
)
from twisted.web.client import HTTPConnectionPool, _HTTP11ClientFactory
from twisted.web.http import SWITCHING
from twisted.web.iweb import IResponse
from zope.interface import implementer

from abproxy.errors import CannotConnect, HandshakeFailed

__all__ = [
    "IDLE_S",
    "SPEAKS_TLS",
    "IdleLimit",
    "ResponseParser",
    "is_alert",
    "make_pool",
    "why_lost",
    "without_named",
]

IDLE_S = 4.0
"""
How long an unused connection is kept at first, in seconds.

uvicorn and Node close theirs after 5 s, and nearly all others later.  The second
is for the way there, and for a process that is busy when it is over.
"""

LONGEST_S = 60.0
"""How long it is kept at most, whatever the upstream promises."""

SHORTEST_S = 0.5
"""How long it is kept at least, also after a restart that closed a young one."""

FORGET_AFTER_S = 600.0
"""For how long it counts that the upstream has closed one earlier."""

_TIMEOUT = re.compile(rb"(?:^|[,;\s])timeout\s*=\s*\"?(\d{1,9})", re.IGNORECASE)


@define(eq=False)
class IdleLimit:
    """
    The time for which a connection may be idle before the upstream closes it.

    The upstream may say so (`Keep-Alive: timeout=5`), or show it by closing one.
    """

    clock: IReactorTime = field(repr=False)
    at_first_s: float = IDLE_S
    """The limit as long as nothing else is known."""

    seconds: float = field(init=False)
    """The limit in force."""

    forget_at: float = field(init=False, default=float("inf"))
    """When what was shown is to be forgotten."""

    _told_s: float = field(init=False)
    _longest_s: float = field(init=False)
    _shown_s: float = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.seconds = self._told_s = self.at_first_s
        self._longest_s = self._shown_s = max(LONGEST_S, self.at_first_s)

    def apply(self, line: bytes) -> None:
        """Apply the value of a `Keep-Alive` line."""
        timeout = _TIMEOUT.search(line)
        if timeout is not None:
            told_s = float(timeout[1])
            # A second for the way, or half of what there is.
            self._told_s = max(told_s - 1, told_s / 2)
            self._settle()

    def closed_after(self, idle_s: float) -> None:
        """Lower the limit: the upstream has closed a connection unused for *idle_s*."""
        if idle_s < self.seconds:
            self._shown_s = max(SHORTEST_S, idle_s * 0.75)
            self.forget_at = self.clock.seconds() + FORGET_AFTER_S
            self._settle()

    def forget(self) -> None:
        """Forget such closed connections: a restart may have closed them."""
        self._shown_s, self.forget_at = self._longest_s, float("inf")
        self._settle()

    def _settle(self) -> None:
        self.seconds = min(self._told_s, self._shown_s, self._longest_s)


class ResponseParser(HTTPClientParser):
    """Reads one response, and refuses what others may read in another way."""

    def statusReceived(self, status: bytes) -> None:
        """Refuse a status that has not three digits: `099` would become 99."""
        super().statusReceived(status)
        if not _STATUS.fullmatch(status.split(b" ", 2)[1]):
            raise ParseError("a status has three digits", status)

    def allHeadersReceived(self) -> None:
        """Refuse what would end HTTP on this connection, and two framings."""
        told = self.connHeaders
        if self.response.code == SWITCHING:
            raise ParseError("another protocol, which was not asked for", b"101")
        if told.hasHeader(b"Content-Length") and told.hasHeader(b"Transfer-Encoding"):
            raise ParseError("a length and chunks", b"Transfer-Encoding")
        super().allHeadersReceived()


_STATUS = re.compile(rb"[1-9][0-9]{2}")


def is_alert(data: bytes) -> bool:
    """Return whether a response that begins with *data* is an alert of TLS."""
    return data.startswith(b"\x15\x03")


BROKEN_OFF = "cannot reach the inference server: it closes while TLS is agreed on"
SPEAKS_TLS = (
    "the inference server speaks TLS there: "
    "INFERENCE_SERVICE_URL should begin with https://"
)


@implementer(IHandshakeListener)
class _Connection(HTTP11ClientProtocol):
    """
    A connection that takes off a response what is about the connection alone.

    Twisted takes off `Connection`, but not the lines that it names, and later on
    nothing tells which these are (RFC 9110, section 7.6.1).
    """

    idle_since: float | None = None
    """When it came back to the pool; None if it is in use, or closed by us."""

    limit: IdleLimit | None = None
    """What is learned of how long it may be idle, once it has been in the pool."""

    keep_alive: Sequence[bytes] = ()
    """What the last response has said of that."""

    has_agreed: bool = False
    """Whether the handshake is over, if there is TLS."""

    def handshakeCompleted(self) -> None:  # noqa: N802
        """Note that the handshake is over."""
        self.has_agreed = True

    def request(self, request: Any) -> Deferred[IResponse]:
        """Send *request*; fires with the response when its head is here."""
        self.idle_since = None
        response: Deferred[IResponse] = super().request(request)
        parser: Any = self._parser
        if parser is None:
            return response
        # Twisted has no place to name another; nothing has been read by it yet.
        parser.__class__ = ResponseParser
        return response.addCallback(self._heed, parser)

    def _heed(self, response: IResponse, parser: Any) -> IResponse:
        self.keep_alive = parser.connHeaders.getRawHeaders(b"Keep-Alive", [])
        return without_named(response, parser)

    def dataReceived(self, data: bytes) -> None:
        """Add a piece to the response, unless it is no HTTP at all."""
        parser: Any = self._parser
        if parser is not None and parser.state == STATUS and is_alert(data):
            self._giveUp(Failure(HandshakeFailed(SPEAKS_TLS)))
        else:
            super().dataReceived(data)

    def _giveUp(self, reason: Failure) -> None:  # noqa: N802
        """
        Close the connection, as what has come is no response.

        While the request is still being sent Twisted would forget it: nothing tells
        who waits for the response, and a bug is logged when they have waited enough.
        """
        if self._state != "TRANSMITTING":
            super()._giveUp(reason)
            return
        waiting: Any = self._finishedRequest
        request: Any = self._currentRequest
        transport: Any = self.transport
        response: Any = self._responseDeferred
        self._state = "GENERATION_FAILED"
        response.addErrback(lambda _: None)
        super()._giveUp(reason)
        request.stopWriting()
        transport.abortConnection()
        waiting.errback(Failure(ResponseFailed([reason])))

    def connectionLost(self, reason: Any = connectionDone) -> None:
        """Note that it is closed: by the upstream, if it was in the pool."""
        if self.idle_since is not None and self.limit is not None:
            self.limit.closed_after(self.limit.clock.seconds() - self.idle_since)
        super().connectionLost(why_lost(self, reason))


def why_lost(connection: Any, reason: Failure) -> Failure:
    """Return why *connection* is lost: one that TLS was not agreed on was none."""
    is_tls = ISSLTransport.providedBy(connection.transport)
    if is_tls and not connection.has_agreed and reason.check(ConnectionClosed):
        return Failure(CannotConnect(BROKEN_OFF))
    return reason


def without_named(response: IResponse, parser: Any) -> IResponse:
    """Remove from *response* the lines that its `Connection` names."""
    lines = parser.connHeaders.getRawHeaders(b"Connection", [])
    named = {token.strip().lower() for line in lines for token in line.split(b",")}
    for name, _ in list(response.headers.getAllRawHeaders()):
        if name.lower() in named:
            response.headers.removeHeader(name)
    return response


class _Connections(_HTTP11ClientFactory):
    """Makes connections, of which the log says nothing."""

    noisy = False

    def buildProtocol(self, addr: Any) -> _Connection:  # noqa: ARG002, N802
        """Return a new connection."""
        return _Connection(self._quiescentCallback)


class _Pool(HTTPConnectionPool):
    """A pool of such connections."""

    cachedConnectionTimeout: Any  # noqa: N815
    _factory = _Connections

    def __init__(self, reactor: Any, keep_alive_s: float) -> None:
        super().__init__(reactor)
        self.limit = IdleLimit(reactor, keep_alive_s)

    def _putConnection(self, key: Any, connection: _Connection) -> None:  # noqa: N802
        now = connection.idle_since = self._reactor.seconds()
        connection.limit = self.limit
        for line in connection.keep_alive:
            self.limit.apply(line)
        if now >= self.limit.forget_at:
            self.limit.forget()
        self.cachedConnectionTimeout = self.limit.seconds
        super()._putConnection(key, connection)

    def _removeConnection(self, key: Any, connection: _Connection) -> None:  # noqa: N802
        connection.idle_since = None
        super()._removeConnection(key, connection)

    def closeCachedConnections(self) -> Deferred[None]:  # noqa: N802
        """Close all that are not in use; fires when they are closed."""
        for connections in self._connections.values():
            for connection in connections:
                connection.idle_since = None
        closed: Deferred[None] = super().closeCachedConnections()
        return closed


def make_pool(
    reactor: Any, max_connections: int, keep_alive_s: float = IDLE_S
) -> HTTPConnectionPool:
    """
    Return the pool that keeps connections open between batches.

    A pool never queues and keeps two connections by default; ours keeps as
    many as can be busy at once.
    """
    pool = _Pool(reactor, keep_alive_s)
    pool.maxPersistentPerHost = max_connections
    # A request without a body Twisted sends again if its connection was just
    # closing; batches are sent again by us, knowingly.
    pool.retryAutomatically = True
    return pool
