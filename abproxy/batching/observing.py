"""
What the core tells whoever watches, and nothing of what becomes of it.

One object for each batch, and a word for what happens on the way.  The core
neither counts nor logs for a watcher, and works the same without one.
"""

from collections.abc import Sequence
from enum import StrEnum
from typing import Protocol

from msgspec import Struct

from abproxy.errors import ProxyError
from abproxy.http.messages import Response

__all__ = ["BatchSent", "BlockedBy", "Cause", "FlushReason", "Observer", "Unobserved"]

Cause = Response | ProxyError
"""Why nothing came of a part: what the upstream said, or what we have to say."""


class FlushReason(StrEnum):
    """Why a batch left when it did."""

    FULL = "full"
    """A cap was reached."""

    FREE = "free"
    """A slot was free, and nobody asked for a wait."""

    TIMER = "timer"
    """Its oldest part had waited `max_wait`, and a slot was free."""

    DRAIN = "drain"
    """The proxy is going to stop."""

    SUSPECT = "suspect"
    """It is one part, which may be what breaks the upstream."""


class BlockedBy(StrEnum):
    """What keeps a batch that is ready from leaving."""

    NOTHING = "nothing"
    """None is ready, or nothing keeps it."""

    SLOT = "slot"
    """As many as may be are in flight without being full."""

    BUDGET = "budget"
    """As many items as may be are in flight."""

    UPSTREAM = "upstream"
    """The upstream takes no work at the moment."""


class BatchSent(Struct, frozen=True, kw_only=True):
    """One batch at the moment when it left."""

    route: str

    reason: FlushReason
    items: int
    size: int
    """Bytes of its items."""

    fill: float
    """How full it was, by the cap that it came closest to; 1 is full."""

    waits_s: Sequence[float]
    """How long each of its parts had waited."""

    in_flight: int
    """How many batches were in flight when it had left, itself among them."""

    lanes_left: int
    """How many lanes had somebody waiting when it had left."""

    is_personal: bool
    """Whether it went with credentials of a client's own."""

    @property
    def parts(self) -> int:
        """How many calls, or parts of large ones, shared it."""
        return len(self.waits_s)


class Observer(Protocol):
    """Whoever watches batches come and go."""

    def left(self, departure: BatchSent) -> None:
        """A batch has left."""

    def came_back(self, departure: BatchSent, took_s: float | None) -> None:
        """Its trip is over; the upstream answered after *took_s*, or did not."""

    def isolates(self) -> None:
        """A refused batch is sent again as halves, to find the bad call."""

    def sends_again(self) -> None:
        """A batch whose connection broke is sent again."""

    def puts_back(self, cause: Cause) -> None:
        """The upstream took no work: a batch waits on."""

    def is_kept_by(self, obstacle: BlockedBy) -> None:
        """Something else than before keeps batches from leaving."""


class Unobserved:
    """Nobody watches."""

    def left(self, departure: BatchSent) -> None:
        """Note nothing."""

    def came_back(self, departure: BatchSent, took_s: float | None) -> None:
        """Note nothing."""

    def isolates(self) -> None:
        """Note nothing."""

    def sends_again(self) -> None:
        """Note nothing."""

    def puts_back(self, cause: Cause) -> None:
        """Note nothing."""

    def is_kept_by(self, obstacle: BlockedBy) -> None:
        """Note nothing."""
