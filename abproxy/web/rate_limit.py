"""
Rate limit: the inputs that one client may send in a second, as a token bucket.

A bucket may go into debt, so that a call larger than the bucket is accepted when
the bucket is full; its client then waits until the debt is paid.  A bucket
that is full again is forgotten.
"""

from math import ceil

from attrs import define, field
from twisted.internet.interfaces import IReactorTime

from abproxy.errors import RateExceeded

__all__ = ["RateLimiter"]

SWEEP_S = 10.0
"""How often full buckets are looked for, in seconds."""


@define(kw_only=True, eq=False)
class RateLimiter:
    """The bucket of every client; the rate at which they fill may change."""

    clock: IReactorTime = field(repr=False)

    _full_at: dict[int, float] = field(init=False, factory=dict, repr=False)
    """
    When the bucket of each client is full again; it holds one second's worth.

    By hash, as a client's name may be long.
    """

    _swept_at: float = field(init=False, default=0.0)

    def check(self, client: bytes, inputs_per_s: float) -> None:
        """
        Raise if *client* has sent too much.

        Raises:
            RateExceeded: its bucket is in debt.
        """
        now = self.clock.seconds()
        empty_for_s = self._full_at.get(hash(client), now) - now - 1.0
        if empty_for_s > 0:
            raise RateExceeded(
                f"more than {inputs_per_s:g} inputs in a second: slow down",
                ceil(empty_for_s),
            )

    def take(self, client: bytes, inputs: int, inputs_per_s: float) -> None:
        """Remove the accepted *inputs* from the bucket of *client*."""
        now = self.clock.seconds()
        self._sweep(now)
        full_at = max(self._full_at.get(hash(client), now), now)
        self._full_at[hash(client)] = full_at + inputs / inputs_per_s

    def _sweep(self, now: float) -> None:
        if now - self._swept_at < SWEEP_S:
            return
        self._swept_at = now
        self._full_at = {who: at for who, at in self._full_at.items() if at > now}
