"""
The connections: which are open, which are busy, and how they end.

No access log. While draining, a connection that is answering says
`Connection: close` and goes when its answer has been written. The others stay
for a moment, because a request may be on its way, and are then closed.
"""

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from twisted.web.http import HTTPChannel
from twisted.web.resource import IResource
from twisted.web.server import Site

from abproxy_model.body import BoundedRequest

__all__ = ("ModelSite",)


class _Channel(HTTPChannel):
    """A connection that its site knows of."""

    site: "ModelSite"

    def connectionMade(self) -> None:
        super().connectionMade()
        self.site.opened(self)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        super().connectionLost(reason)
        self.site.closed(self)

    def allHeadersReceived(self) -> None:
        """Say how the connection ends before the request is looked at."""
        super().allHeadersReceived()
        if self.site.draining:
            self.end()

    def abort(self) -> None:
        """Close, whatever is unanswered."""
        transport: Any = self.transport
        transport.abortConnection()

    def end(self) -> None:
        """Close after the answer that is being made, if there is one."""
        self.persistent = 0 if self.requests else 1
        for request in self.requests:
            request.responseHeaders.setRawHeaders(b"connection", [b"close"])

    def end_if_idle(self) -> None:
        """Close, unless an answer is being made."""
        if not self.requests:
            self.loseConnection()


class ModelSite(Site):
    """Makes a `_Channel` for each connection and remembers it."""

    protocol = _Channel  # type: ignore[assignment]
    noisy = False

    def __init__(self, resource: IResource) -> None:
        super().__init__(
            resource, requestFactory=BoundedRequest, parsePOSTFormSubmission=False
        )
        self.draining = False
        self._open: set[_Channel] = set()
        self._when_empty: list[Deferred[None]] = []

    def log(self, request: Any) -> None:
        """Keep no access log."""

    @property
    def connections(self) -> int:
        """How many are open."""
        return len(self._open)

    def opened(self, channel: _Channel) -> None:
        """Remember *channel*."""
        self._open.add(channel)

    def closed(self, channel: _Channel) -> None:
        """Forget *channel*."""
        self._open.discard(channel)
        if not self._open:
            waiting, self._when_empty = self._when_empty, []
            for waiter in waiting:
                waiter.callback(None)

    def drain(self) -> None:
        """Let every connection end with the answer that it is waiting for."""
        self.draining = True
        for channel in self._open:
            channel.end()

    def close_idle(self) -> None:
        """Close the connections that wait for nothing."""
        for channel in list(self._open):
            channel.end_if_idle()

    def when_empty(self) -> Deferred[None]:
        """Fires when no connection is open."""
        waiter: Deferred[None] = Deferred()
        if self._open:
            self._when_empty.append(waiter)
        else:
            waiter.callback(None)
        return waiter

    def abort(self) -> None:
        """Cut all connections."""
        for channel in list(self._open):
            channel.abort()
