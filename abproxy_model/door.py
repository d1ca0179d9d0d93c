"""
What every answer carries and every caller must show, whatever the route.

CORS headers on all answers, the preflight, and the API key; then Klein.
"""

import hmac
from typing import Any

from klein.resource import KleinResource
from twisted.web.resource import Resource
from twisted.web.server import Request

from abproxy_model.app import Application
from abproxy_model.responses import reply

__all__ = ("Door",)

_VARY = b"origin, access-control-request-method, access-control-request-headers"
_PUBLIC = ("/", "/health", "/ping", "/metrics")
"""Open to anyone who only reads."""


class Door(Resource):
    """The root resource."""

    isLeaf = True

    def __init__(self, application: Application) -> None:
        super().__init__()
        self._klein: KleinResource = application.app.resource()
        self._routes = application.app.url_map
        key = application.settings.api_key
        self._credentials = key and f"Bearer {key}".encode()

    def render(self, request: Request) -> Any:
        """Let the caller in, or not."""
        request.responseHeaders.removeHeader(b"server")
        request.setHeader(b"vary", _VARY)
        request.setHeader(b"access-control-allow-origin", b"*")
        allowed = self._methods(request)
        if request.method == b"OPTIONS":
            return _preflight(request, allowed)
        if allowed and not self._may_enter(request):
            return reply(request, 401, b"")
        return self._klein.render(request)

    def _methods(self, request: Request) -> list[str]:
        path = request.path.decode("latin-1")
        return sorted(self._routes.bind("").allowed_methods(path))

    def _may_enter(self, request: Request) -> bool:
        reads = request.method in (b"GET", b"HEAD")
        if not self._credentials or (
            reads and request.path.decode("latin-1") in _PUBLIC
        ):
            return True
        shown = request.getHeader(b"authorization") or b""
        return hmac.compare_digest(shown, self._credentials)


def _preflight(request: Request, allowed: list[str]) -> bytes:
    request.setHeader(b"access-control-allow-methods", b"GET,POST")
    request.setHeader(b"access-control-allow-headers", b"content-type")
    if allowed:
        request.setHeader(b"allow", ",".join(allowed).encode())
    return reply(request, 200, b"")
