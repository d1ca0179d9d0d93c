"""
When a request that takes long is sent a second time, to another server.

That costs work, so it is off by default, and never done for more than a part of the
requests, nor of their work: when all servers are slow, it would only make them slower.
"""

from collections import deque

from attrs import define, field

__all__ = ["Hedging"]

P95 = 0.95

KEPT, ENOUGH = 200, 40
"""Answers whose times are kept, and how many tell what is long."""

PART, MOST = 0.05, 2.0
"""Of all requests how many may be sent twice, and how many may be saved up."""

MOST_WORK = 20.0
"""As how many usual requests as much work may be saved up."""


@define(eq=False)
class Hedging:
    """Says when a request is to be sent a second time, and whether it may be."""

    after: str | None = None
    """`p95`, or a number of seconds; None if never."""

    _took_s: deque[float] = field(
        init=False, factory=lambda: deque(maxlen=KEPT), repr=False
    )
    _saved: float = field(init=False, default=0.0)
    _saved_work: float = field(init=False, default=0.0)
    _usual_work: float = field(init=False, default=0.0)
    """The work of a request, lately."""

    @property
    def after_s(self) -> float | None:
        """Return after how long a request takes long; None if that is not known."""
        if self.after is None:
            return None
        if self.after != "p95":
            return float(self.after)
        if len(self._took_s) < ENOUGH:
            return None
        return sorted(self._took_s)[int(P95 * len(self._took_s))]

    def began(self, work: float) -> None:
        """Count a request that is sent for the first time, and its *work*."""
        self._usual_work += (work - self._usual_work) / KEPT
        self._saved = min(self._saved + PART, MOST)
        most = MOST_WORK * self._usual_work
        self._saved_work = min(self._saved_work + PART * work, most)

    def answered(self, took_s: float) -> None:
        """Learn from a good answer."""
        self._took_s.append(took_s)

    def may(self, work: float) -> bool:
        """Return whether one with so much *work* may be sent a second time."""
        return self._saved >= 1 and self._saved_work >= work

    def sent(self, work: float) -> None:
        """Count one that is sent a second time."""
        self._saved -= 1
        self._saved_work -= work
