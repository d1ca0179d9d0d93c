"""
The connections of clients and their requests, and how they end together.

This is Twisted's Site, with a limit of connections and an orderly end.
"""

import sys
from collections.abc import Callable
from typing import Any

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall
from twisted.web.resource import IResource
from twisted.web.server import Site

from abproxy.events import Observer, RequestInfo
from abproxy.web.admin import Operations
from abproxy.web.auth import ApiKeys, Clients
from abproxy.web.channel import IDLE_S, LINGER_S, ProxyChannel
from abproxy.web.memory import Memory
from abproxy.web.request import ProxyRequest, without_origin, without_prefix

__all__ = [
    "ProxySite",
    "ServerLimits",
]

MOST_SURPLUS = 50
"""Connections over the limit that are told so; more are closed without a word."""

CHECK_S = 1.0
"""How often slow requests are looked for, in seconds."""

_BY_PEER = Clients(keys=ApiKeys(accepted=()))
"""Identifies clients by address, where no proxy is trusted and no key required."""


@frozen(kw_only=True)
class ServerLimits:
    """The limits of what clients may send."""

    is_batched: Callable[[bytes, bytes], bool]
    """Whether a method and target are for a batched route."""

    check: Callable[[RequestInfo], object] = lambda _: None
    """Raises the ProxyError with which a request is refused, whatever its body is."""

    max_body_bytes: int
    """The largest body of a request."""

    max_memory_bytes: int = sys.maxsize
    """How much may be held of requests that arrive and answers that wait."""

    max_connections: int = 10_000
    """Connections that are served; a surplus one is told so and closed."""

    request_timeout_s: float = 60.0
    """How long a request may take to arrive; relayed bodies take their time."""

    keep_alive_s: float = IDLE_S
    """How long a connection may be silent between requests."""


class ProxySite(Site):
    """
    The connections of clients at one port.

    Args:
        resource: answers the requests.
        limits: what clients may ask.
        reactor: the clock for timeouts.
        observer: notified of requests.
        operations: our own pages.
        clients: returns what tells clients apart at the moment.
        prefix: what paths may begin with, if a load balancer leaves that in place.
        memory: what the connections hold, perhaps together with those of others.
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
        prefix: bytes = b"",
        memory: Memory | None = None,
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
        self.prefix = prefix
        self.memory = memory or Memory(clock=reactor)
        self.memory.max_bytes = limits.max_memory_bytes
        self.channels: set[ProxyChannel] = set()
        self.requests: set[RequestInfo] = set()
        """Those whose answers are owed."""

        self.is_draining = False
        self.is_aborted = False
        self._drained: Deferred[None] | None = None
        self._check: IDelayedCall | None = None
        self._next_step: IDelayedCall | None = None
        self._closes_idle = False
        self.checked_at = reactor.seconds()
        """When connections were last looked at, which is done often enough."""

    def local(self, target: bytes) -> bytes:
        """Return *target* as the inference server knows it."""
        return without_prefix(without_origin(target), self.prefix)

    def set_limits(self, limits: ServerLimits) -> None:
        """Change the limits, from the next request or connection on."""
        self.limits = limits
        self.memory.max_bytes = limits.max_memory_bytes

    def buildProtocol(self, addr: Any) -> Any:  # noqa: N802
        """Accept a connection, if only to answer that there are too many."""
        if self.is_aborted:
            return None  # it waited in the kernel when a second signal came
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
        """Announce in each answer from now on that its connection ends after it."""
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
        """Cut every connection, answered or not, and accept none any more."""
        self.is_aborted = True
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
        """Refuse slow requests; a timer for each of them would cost time."""
        self._check = self.reactor.callLater(CHECK_S, self._look_for_the_slow)
        now = self.checked_at = self.reactor.seconds()
        for channel in list(self.channels):
            channel.refuse_if_slow(now)
        self.memory.look()

    def _note_if_drained(self) -> None:
        if self._drained is not None and not self.channels:
            drained, self._drained = self._drained, None
            if self._next_step is not None:
                self._next_step.cancel()
                self._next_step = None
            drained.callback(None)

    def startFactory(self) -> None:
        """Do nothing: there is no access log of Twisted's, and no clock for one."""

    def stopFactory(self) -> None:
        """Close nothing."""

    def log(self, request: Any) -> None:
        """Write nothing for each request: it costs as much as the answer."""
