"""
The HTTP server under the routes: connections, bodies, CORS and the API key.

No access log. While draining, a connection that is answering says
`Connection: close` and is closed when its answer has been written. The others
stay for a moment, because a request may be on its way, and are then closed.
"""

import hmac
from io import BytesIO
from typing import Any

from klein.resource import KleinResource
from twisted.internet.defer import Deferred
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from twisted.web.http import HTTPChannel
from twisted.web.resource import IResource, Resource
from twisted.web.server import Request, Site

from abproxy_model.app import Application
from abproxy_model.requests import MAX_BODY_BYTES
from abproxy_model.responses import reply

__all__ = ("ModelSite", "RootResource")

_VARY = b"origin, access-control-request-method, access-control-request-headers"
_PUBLIC = ("/", "/health", "/ping", "/metrics")
"""Readable without a key."""


class RootResource(Resource):
    """Puts CORS headers on every answer and checks the API key; then Klein."""

    isLeaf = True

    def __init__(self, application: Application) -> None:
        super().__init__()
        self._klein: KleinResource = application.app.resource()
        self._routes = application.app.url_map
        key = application.settings.api_key
        self._credentials = key and f"Bearer {key}".encode()

    def render(self, request: Request) -> Any:
        """Answer *request*, or refuse it."""
        request.responseHeaders.removeHeader(b"server")
        request.setHeader(b"vary", _VARY)
        request.setHeader(b"access-control-allow-origin", b"*")
        path = request.path.decode("latin-1")
        allowed = sorted(self._routes.bind("").allowed_methods(path))
        if request.method == b"OPTIONS":
            return _preflight(request, allowed)
        if allowed and not self._is_authorized(request, path):
            return reply(request, 401, b"")
        return self._klein.render(request)

    def _is_authorized(self, request: Request, path: str) -> bool:
        reads = request.method in (b"GET", b"HEAD")
        if not self._credentials or (reads and path in _PUBLIC):
            return True
        shown = request.getHeader(b"authorization") or b""
        return hmac.compare_digest(shown, self._credentials)


def _preflight(request: Request, allowed: list[str]) -> bytes:
    request.setHeader(b"access-control-allow-methods", b"GET,POST")
    request.setHeader(b"access-control-allow-headers", b"content-type")
    if allowed:
        request.setHeader(b"allow", ",".join(allowed).encode())
    return reply(request, 200, b"")


class _BoundedRequest(Request):
    """A request that never keeps more than one byte too many, and never on disk."""

    def gotLength(self, length: int | None) -> None:  # noqa: ARG002
        """Keep the body in memory, whatever its length."""
        self.content = BytesIO()

    def handleContentChunk(self, data: bytes) -> None:
        """Keep what is within the limit, and one byte to tell that there was more."""
        content: Any = self.content
        content.write(data[: MAX_BODY_BYTES + 1 - content.tell()])


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
        """Set how the connection ends, before the request is processed."""
        super().allHeadersReceived()
        if self.site.draining:
            self.end()

    def end(self) -> None:
        """Close after the answer that is being made, if there is one."""
        self.persistent = 0 if self.requests else 1
        for request in self.requests:
            request.responseHeaders.setRawHeaders(b"connection", [b"close"])


class ModelSite(Site):
    """The open connections, and how they are closed."""

    protocol = _Channel  # type: ignore[assignment]
    noisy = False

    def __init__(self, resource: IResource) -> None:
        super().__init__(
            resource, requestFactory=_BoundedRequest, parsePOSTFormSubmission=False
        )
        self.draining = False
        self._open: set[_Channel] = set()
        self._when_empty: list[Deferred[None]] = []

    def log(self, request: Any) -> None:
        """Keep no access log."""

    @property
    def connections(self) -> int:
        """The number of open connections."""
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
        """Close each connection after the answer that is being made there."""
        self.draining = True
        for channel in self._open:
            channel.end()

    def close_idle(self) -> None:
        """Close the connections that wait for nothing."""
        for channel in list(self._open):
            if not channel.requests:
                channel.loseConnection()

    def when_empty(self) -> Deferred[None]:
        """Fires when no connection is open."""
        waiter: Deferred[None] = Deferred()
        if self._open:
            self._when_empty.append(waiter)
        else:
            waiter.callback(None)
        return waiter

    def abort(self) -> None:
        """Close all connections, whatever is unanswered."""
        for channel in list(self._open):
            transport: Any = channel.transport
            transport.abortConnection()
