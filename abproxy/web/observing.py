"""
What the door tells whoever watches: requests that begin and end, and refusals.

The door neither counts nor logs for a watcher, and works the same without one.
"""

from collections.abc import Sequence
from typing import Any, Protocol

from attrs import frozen
from twisted.web.http_headers import Headers

from abproxy.errors import ProxyError

__all__ = ["RequestInfo", "RequestObserver", "Several", "Unwatched"]


class RequestInfo(Protocol):
    """A request, as far as it can be watched, by whichever way it came in."""

    @property
    def site(self) -> Any:
        """The door through which it came."""

    @property
    def method(self) -> bytes:
        """What is to be done."""

    @property
    def uri(self) -> bytes:
        """Path and query."""

    @property
    def path(self) -> bytes:
        """The path alone."""

    @property
    def clientproto(self) -> bytes:
        """The HTTP version."""

    @property
    def requestHeaders(self) -> Headers:  # noqa: N802
        """The header lines."""

    @property
    def code(self) -> int:
        """The status of the answer."""

    @property
    def sentLength(self) -> int:  # noqa: N802
        """Bytes of the answer's body."""

    @property
    def route(self) -> str | None:
        """The batched route that answers; None where none does."""

    @property
    def is_relayed(self) -> bool:
        """Whether it was passed on alone."""

    @property
    def began_at(self) -> float:
        """When its answer began to be owed, on the clock's scale."""

    trace: Any
    """Whoever follows it keeps a thread here."""

    def name(self) -> bytes:
        """Say how client and log know the request."""

    def getClientAddress(self) -> Any:  # noqa: N802
        """Say where it came from."""


class RequestObserver(Protocol):
    """Whoever watches requests come and go."""

    def began(self, request: RequestInfo) -> None:
        """An answer is owed."""

    def ended(self, request: RequestInfo, *, gone: bool) -> None:
        """It was given; or the client has *gone* before it was complete."""

    def answered_with(self, error: ProxyError) -> None:
        """An answer is not the upstream's but our own."""


class Unwatched:
    """Nobody watches."""

    def began(self, request: RequestInfo) -> None:
        """Note nothing."""

    def ended(self, request: RequestInfo, *, gone: bool) -> None:
        """Note nothing."""

    def answered_with(self, error: ProxyError) -> None:
        """Note nothing."""


@frozen
class Several:
    """All who watch the door."""

    observers: Sequence[RequestObserver]

    def began(self, request: RequestInfo) -> None:
        """Tell each of them."""
        for observer in self.observers:
            observer.began(request)

    def ended(self, request: RequestInfo, *, gone: bool) -> None:
        """Tell each of them."""
        for observer in self.observers:
            observer.ended(request, gone=gone)

    def answered_with(self, error: ProxyError) -> None:
        """Tell each of them."""
        for observer in self.observers:
            observer.answered_with(error)
