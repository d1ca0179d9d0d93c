"""
The last batches and the last errors, for somebody who looks.

Both are short lists: the past belongs to whoever collects metrics.  Neither
holds a text that a client sent.
"""

from collections import deque
from collections.abc import Iterator
from itertools import count

from attrs import define, field, frozen

from abproxy.events import BatchSent

__all__ = ["RecentBatch", "RecentError", "RecentLog"]

BATCHES = 256
ERRORS = 50


@frozen(kw_only=True)
class RecentBatch:
    """One batch whose trip is over."""

    serial: int
    at: float
    """When it came back, in seconds since 1970."""

    route: str
    reason: str
    calls: int
    items: int
    wait_ms: float
    """How long its oldest part had waited when it left."""

    upstream_ms: float | None
    """How long the upstream took; None if it gave no good answer."""


@frozen(kw_only=True)
class RecentError:
    """One kind of error, as often as it came in a row."""

    at: float
    """When it came last."""

    reason: str
    message: str
    times: int


@define(eq=False)
class RecentLog:
    """What happened last."""

    _batches: deque[tuple[int, float, BatchSent, float | None]] = field(
        init=False, factory=lambda: deque(maxlen=BATCHES)
    )
    errors: deque[RecentError] = field(init=False, factory=lambda: deque(maxlen=ERRORS))
    _serials: Iterator[int] = field(init=False, factory=lambda: count(1))

    def batch(self, at: float, departure: BatchSent, took_s: float | None) -> None:
        """Note a batch that came back *at* this moment."""
        self._batches.append((next(self._serials), at, departure, took_s))

    def batches(self, since: int = 0) -> Iterator[RecentBatch]:
        """List the batches after a serial, the oldest first."""
        for serial, at, departure, took_s in self._batches:
            if serial > since:
                yield _written(serial, at, departure, took_s)

    def error(self, at: float, reason: str, message: str) -> None:
        """Note an error; one that repeats itself takes one line."""
        times = 1
        if self.errors and self.errors[-1].reason == reason:
            times += self.errors.pop().times
        error = RecentError(at=at, reason=reason, message=message, times=times)
        self.errors.append(error)


def _written(
    serial: int, at: float, departure: BatchSent, took_s: float | None
) -> RecentBatch:
    return RecentBatch(
        serial=serial,
        at=at,
        route=departure.route,
        reason=departure.reason.value,
        calls=departure.parts,
        items=departure.items,
        wait_ms=round(max(departure.waits_s) * 1000, 3),
        upstream_ms=None if took_s is None else round(took_s * 1000, 3),
    )
