"""
The request and the response that are exchanged with the upstream.

Both are plain bytes.  Header names keep the spelling they came with; lines that
belong to one connection only are left out.

What is made anew for each call is a msgspec `Struct`, here and elsewhere: that
takes a tenth of the time of a frozen attrs class.
"""

from collections.abc import Callable
from http import HTTPStatus
from typing import Any

from msgspec import Struct
from twisted.internet.defer import Deferred

__all__ = [
    "GATEWAY",
    "NO_ROOM",
    "QUICK_S",
    "HeaderList",
    "Response",
    "Send",
    "UpstreamRequest",
    "reason_of",
]

NO_ROOM = frozenset({429, 503})
"""The statuses by which an upstream says that it is full."""

GATEWAY = frozenset({502, 504})
"""How a gateway says that the server behind it cannot be reached, or is too slow."""

QUICK_S = 1.0
"""A gateway that answers sooner has not waited for the server behind it."""

HeaderList = tuple[tuple[bytes, bytes], ...]
"""Header lines in order, a repeated name once for each of its values."""


class UpstreamRequest(Struct, frozen=True, kw_only=True):
    """One request for the upstream."""

    method: bytes = b"POST"

    path: bytes
    """Path and query, as on the request line."""

    headers: HeaderList
    """Credentials may be among them, so they are never printed."""

    body: bytes

    items: int = 0
    """Inputs in it, if it is for a batched route."""

    traces: tuple[Any, ...] = ()
    """The spans of its calls, of those that are traced."""

    resends: int = 0
    """How often some of its items have been sent before."""

    def __repr__(self) -> str:
        """Return method and path, and nothing of what is in it."""
        return f"UpstreamRequest({self.method!r}, {self.path!r}, items={self.items})"


class Response(Struct, frozen=True, kw_only=True, eq=False):
    """
    One whole answer of the upstream, or what a client gets of it.

    Two are equal if their bytes are, wherever they come from.
    """

    status: int

    reason: bytes

    headers: HeaderList
    """Without `Content-Length`, which is set when the reply is written."""

    body: bytes

    source: Any = None
    """Which server has given it, and in which of its generations, if that is known."""

    def __eq__(self, other: object) -> bool:
        """Compare what is sent to a client."""
        return isinstance(other, Response) and self._bytes == other._bytes

    def __hash__(self) -> int:
        """Hash what is sent to a client."""
        return hash(self._bytes)

    @property
    def _bytes(self) -> tuple[int, bytes, HeaderList, bytes]:
        return self.status, self.reason, self.headers, self.body

    def __repr__(self) -> str:
        """Return the status, and nothing of what is in it."""
        return f"Response({self.status}, {len(self.body)} bytes)"


Send = Callable[[UpstreamRequest], Deferred[Response]]
"""
Send one request to the upstream; fails with a ProxyError only.

Cancelling the Deferred closes the connection, so that the upstream may stop.
"""


def reason_of(status: int) -> bytes:
    """Return the name of *status* in RFC 9110; Twisted does not know all of them."""
    try:
        return HTTPStatus(status).phrase.encode()
    except ValueError:
        return b""
