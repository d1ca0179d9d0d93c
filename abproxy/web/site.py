"""All connections of clients: how many, how long, and how they end together."""

from collections.abc import Callable
from typing import Any, Protocol

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.python.failure import Failure
from twisted.web.resource import IResource
from twisted.web.server import Site

from abproxy.errors import ProxyError
from abproxy.http.messages import Response
from abproxy.web.admin import Operations
from abproxy.web.channel import LINGER_S, ProxyChannel
from abproxy.web.express import FastPath
from abproxy.web.express_channel import FastChannel
from abproxy.web.observing import RequestInfo, RequestObserver, Unwatched
from abproxy.web.request import ProxyRequest

__all__ = ["ProxySite", "ServerLimits"]

MOST_SURPLUS = 50
"""Connections over the limit that are told so; more are closed without a word."""

PATROL_S = 1.0
"""How often slow requests are looked for, in seconds."""


@frozen(kw_only=True)
class ServerLimits:
    """What clients may ask of the door."""

    max_body_bytes: int
    """The largest body of a request."""

    max_connections: int = 10_000
    """Connections that are served; a surplus one is told so and closed."""

    request_timeout_s: float = 60.0
    """How long a request may take to arrive; relayed bodies take their time."""


class Owed(RequestInfo, Protocol):
    """A request that is owed an answer."""

    began_at: float

    def end_connection(self) -> None:
        """Let this answer be the last on its connection."""


class ProxySite(Site):
    """
    All connections, and what the door needs to know of a request's head.

    Args:
        resource: who answers.
        is_batched: whether a method and target are for a batched route.
        refusal: the answer to a target that says what is wrong.
        limits: what clients may ask of the door.
        reactor: the clock for timeouts.
    """

    noisy = False
    protocol = ProxyChannel  # type: ignore[assignment]

    def __init__(
        self,
        resource: IResource,
        *,
        is_batched: Callable[[bytes, bytes], bool],
        refusal: Callable[[ProxyError, bytes], Response],
        limits: ServerLimits,
        reactor: Any,
    ) -> None:
        super().__init__(
            resource,
            requestFactory=ProxyRequest,
            parsePOSTFormSubmission=False,
            timeout=None,  # one patrol for all costs less than a timer for each
            reactor=reactor,
        )
        self.express: FastPath | None = None
        self.is_batched = is_batched
        self.refusal = refusal
        self.max_body_bytes = limits.max_body_bytes
        self.max_connections = limits.max_connections
        self.observer: RequestObserver = Unwatched()
        self.operations = Operations(pages={})
        self.patience_s = limits.request_timeout_s
        self.channels: set[ProxyChannel] = set()
        self.requests: set[Owed] = set()
        self.is_draining = False
        self._drained: Deferred[None] | None = None
        self._patrol: IDelayedCall | None = None
        self._next_step: IDelayedCall | None = None
        self._closes_idle = False
        self.looked_at = reactor.seconds()

    def buildProtocol(self, addr: Any) -> Any:  # noqa: N802
        """Let a client in, if only to be told that there is no room."""
        if len(self.channels) >= self.max_connections + MOST_SURPLUS:
            return None
        return super().buildProtocol(addr)

    def acceptableProtocols(self) -> list[bytes]:  # noqa: N802
        """
        Say what is spoken under TLS, the best first.

        Twisted's own site adds HTTP/2 where it can, which our connections cannot.
        """
        return [b"http/1.1", b"http/1.0"]

    def open_express(self, express: FastPath) -> None:
        """Let plain calls take the express way."""
        express.largest_body = min(express.largest_body, self.max_body_bytes)
        self.express = express
        self.protocol = FastChannel

    def drain(self, idle_s: float = 0.0) -> Deferred[None]:
        """
        Answer what is open, close each connection after its answer.

        Fires when every connection is closed.  Connections without a request
        stay open for *idle_s*, as their clients may be just sending the next
        one, and are closed then as soon as nothing is left to answer.
        """
        self.is_draining = True
        for request in self.requests:
            request.end_connection()
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

    def opened(self, request: ProxyRequest) -> None:
        """Owe *request* an answer until it is finished."""
        self.begin(request)
        request.notifyFinish().addBoth(self._closed, request)

    def begin(self, request: Owed) -> None:
        """Owe *request* an answer."""
        request.began_at = self.reactor.seconds()
        self.requests.add(request)
        self.observer.began(request)
        if self.is_draining:
            request.end_connection()

    def end(self, request: Owed, *, gone: bool) -> None:
        """Owe *request* nothing more: it is answered, or its client has *gone*."""
        self.requests.discard(request)
        self.observer.ended(request, gone=gone)
        if self.is_draining:
            # In the next turn: what a client has sent meanwhile is read first.
            self.reactor.callLater(0, self.close_if_quiet)

    def _closed(self, reason: object, request: ProxyRequest) -> None:
        self.end(request, gone=isinstance(reason, Failure))

    def channel_made(self, channel: ProxyChannel) -> None:
        """Count a connection in."""
        channel.is_surplus = len(self.channels) >= self.max_connections
        if channel.is_surplus:
            channel.setTimeout(LINGER_S)
        self.channels.add(channel)
        if self._patrol is None:
            self.looked_at = self.reactor.seconds()
            self._patrol = self.reactor.callLater(PATROL_S, self._look_for_the_slow)

    def channel_lost(self, channel: ProxyChannel) -> None:
        """Count a connection out."""
        self.channels.discard(channel)
        if not self.channels and self._patrol is not None:
            self._patrol.cancel()
            self._patrol = None
        self._note_if_drained()
        if channel.is_busy:
            # An idle one that goes makes nothing quieter, and all of them may
            # be going just now.
            self.close_if_quiet()

    def _look_for_the_slow(self) -> None:
        """One timer for all connections: a timer for each request costs time."""
        self._patrol = self.reactor.callLater(PATROL_S, self._look_for_the_slow)
        now = self.looked_at = self.reactor.seconds()
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
