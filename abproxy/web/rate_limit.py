"""
Rate limit: the inputs that one client may send in a second, as a token bucket.

A bucket holds one second's worth.  A call larger than that is accepted when the
bucket is full, and leaves it in debt: its client waits until the debt is paid.  No
debt takes longer than a minute, so a call that would is refused for good.  A bucket
that is full again is forgotten.
"""

from collections.abc import Callable
from math import ceil

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from abproxy.errors import CallTooLarge, RateExceeded

__all__ = ["RateLimiter", "SharedRate", "rate_exceeded"]

LONGEST_DEBT_S = 60
"""How long a client may have to wait for its next call, in seconds."""

MOMENT_S = 1e-6
"""A time that is none: what is left over by rounding."""

SWEEP_S = 10.0
"""How often full buckets are looked for, in seconds."""


SharedRate = Callable[[bytes, int, float], Deferred[float]]
"""
Take inputs from the bucket of a client that several proxies share.

Given the client, how many, and the rate; fires with the seconds that it has to
wait, 0 if there is room.
"""


def rate_exceeded(inputs_per_s: float, wait_s: float) -> RateExceeded:
    """Return the error for a client that has to wait for so long."""
    return RateExceeded(
        f"more than {inputs_per_s:g} inputs in a second: slow down",
        ceil(wait_s - MOMENT_S),
    )


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

    def check(self, client: bytes, inputs: int, inputs_per_s: float) -> None:
        """
        Raise if *client* may not send so many *inputs* now.

        Raises:
            RateExceeded: it has sent too much.
            CallTooLarge: it never may send so many at once.
        """
        most = max(int((1 + LONGEST_DEBT_S) * inputs_per_s), 1)
        if inputs > most:
            raise CallTooLarge(
                f"a call may have {most} inputs at most, where RATE_LIMIT is "
                f"{inputs_per_s:g} a second"
            )
        full_in_s = self._full_at.get(hash(client), 0.0) - self.clock.seconds()
        wait_s = full_in_s - max(1.0 - inputs / inputs_per_s, 0.0)
        if wait_s > MOMENT_S:
            raise rate_exceeded(inputs_per_s, wait_s)

    def take(self, client: bytes, inputs: int, inputs_per_s: float) -> None:
        """Remove the accepted *inputs* from the bucket of *client*."""
        now = self.clock.seconds()
        self._sweep(now)
        full_at = max(self._full_at.get(hash(client), now), now)
        self._full_at[hash(client)] = full_at + inputs / inputs_per_s

    def give_back(self, client: bytes, inputs: int, inputs_per_s: float) -> None:
        """Return *inputs* to the bucket of *client*, as the call is refused."""
        if hash(client) in self._full_at:
            self._full_at[hash(client)] -= inputs / inputs_per_s

    def _sweep(self, now: float) -> None:
        if now - self._swept_at < SWEEP_S:
            return
        self._swept_at = now
        self._full_at = {who: at for who, at in self._full_at.items() if at > now}
