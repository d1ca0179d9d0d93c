"""
What can be observed of a running proxy: an observer, and the records it is given.

What is observed neither counts nor logs for an observer, and works the same
without one.
"""

from collections.abc import Sequence
from enum import StrEnum

from msgspec import Struct

from abproxy.errors import ProxyError
from abproxy.http.messages import Response

__all__ = [
    "BatchSent",
    "BlockedBy",
    "Cause",
    "FlushReason",
    "Observer",
    "UpstreamState",
]

Cause = Response | ProxyError
"""Why a part got no rows: the upstream's reply, or an error of ours."""


class FlushReason(StrEnum):
    """Why a batch left when it did."""

    FULL = "full"
    """A cap was reached."""

    FREE = "free"
    """A slot was free, and the settings ask for no wait."""

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


class UpstreamState(StrEnum):
    """How the upstream is."""

    UNKNOWN = "unknown"
    """It was not asked yet."""

    UP = "up"
    FULL = "full"
    """It answers that it has no room (429, 503)."""

    UNREACHABLE = "unreachable"
    """It cannot be connected to."""

    FAILING = "failing"
    """Connections to it break, or its answers come too late."""

    @property
    def answers(self) -> bool:
        """Whether it gives answers, be they that it is full."""
        return self is UpstreamState.UP or self is UpstreamState.FULL


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
    """How many lanes had parts waiting when it had left."""

    is_personal: bool
    """Whether it went with credentials of a client's own."""

    @property
    def parts(self) -> int:
        """How many calls, or parts of large ones, shared it."""
        return len(self.waits_s)


class Observer:
    """Base of all observers: a subclass overrides what it wants to hear of."""

    __slots__ = ()

    def batch_sent(self, batch: BatchSent) -> None:
        """Note that a batch has left."""

    def batch_done(self, batch: BatchSent, took_s: float | None) -> None:
        """Note that a batch is over: answered after *took_s*, or not at all."""

    def batch_split(self) -> None:
        """Note that a refused batch is sent again as halves, to find the bad call."""

    def batch_resent(self) -> None:
        """Note that a batch whose connection broke is sent again."""

    def batch_requeued(self, cause: Cause) -> None:
        """Note that the upstream took no work, so that a batch waits on."""

    def blocked(self, by: BlockedBy) -> None:
        """Note that something else than before keeps batches from leaving."""
