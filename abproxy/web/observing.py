"""
What the door tells whoever watches: requests that begin and end, and refusals.

The door neither counts nor logs for a watcher, and works the same without one.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

from attrs import frozen

from abproxy.errors import ProxyError

if TYPE_CHECKING:
    from abproxy.web.request import DoorRequest

__all__ = ["DoorObserver", "Several", "Unwatched"]


class DoorObserver(Protocol):
    """Whoever watches requests come and go."""

    def began(self, request: "DoorRequest") -> None:
        """An answer is owed."""

    def ended(self, request: "DoorRequest", *, gone: bool) -> None:
        """It was given; or the client has *gone* before it was complete."""

    def answered_with(self, error: ProxyError) -> None:
        """An answer is not the upstream's but our own."""


class Unwatched:
    """Nobody watches."""

    def began(self, request: "DoorRequest") -> None:
        """Note nothing."""

    def ended(self, request: "DoorRequest", *, gone: bool) -> None:
        """Note nothing."""

    def answered_with(self, error: ProxyError) -> None:
        """Note nothing."""


@frozen
class Several:
    """All who watch the door."""

    observers: Sequence[DoorObserver]

    def began(self, request: "DoorRequest") -> None:
        """Tell each of them."""
        for observer in self.observers:
            observer.began(request)

    def ended(self, request: "DoorRequest", *, gone: bool) -> None:
        """Tell each of them."""
        for observer in self.observers:
            observer.ended(request, gone=gone)

    def answered_with(self, error: ProxyError) -> None:
        """Tell each of them."""
        for observer in self.observers:
            observer.answered_with(error)
