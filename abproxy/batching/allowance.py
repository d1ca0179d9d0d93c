"""
An allowance: how much of one thing, requests or tokens, may still be sent.

It knows no clock, but is told the time.  Two may limit it: the operator, who says
how much may be sent in a minute, and the upstream, which says how much is left and
until when.  What is left is spread over the time until there is more, so that
nothing has to wait for the rest of a minute; but a part of the limit may be used
at once, as after a quiet minute nothing needs to wait.
"""

from collections import deque
from math import inf

from attrs import define, field

__all__ = ["KEPT_S", "MINUTE_S", "WINDOW_S", "Allowance", "Entry"]

MINUTE_S = 60.0

WINDOW_S = 61.0
"""
The seconds in which no more is sent than in a minute is allowed.

One more than a minute has, as not all requests take equally long to get there.
"""

KEPT_S = 600.0
"""How long what the upstream states is believed at most, in seconds."""

AT_ONCE = 0.25
"""The share of a limit that may be sent without a pause after a quiet minute."""

HURRY = 1.25
"""How many times the mean rate is the fastest after that."""

RESERVE = 0.02
"""The share of a limit that is left for small amounts beside large ones."""

FREELY = 0.5
"""With more than this share left, by what the upstream says, nothing is spread."""

SLOWEST = 0.8
"""The least share of what comes back in a second that is sent in it."""

GRAIN_S = 0.05
"""What is sent within so many seconds is one entry: there are 1,220 at most."""

CLOSE = 1e-6
"""Less than this is a rounding error."""


@define(eq=False)
class Entry:
    """What was sent at about one time."""

    began_at: float
    ended_at: float
    amount: float


@define(eq=False)
class _Window:
    """What was sent within the last minute, of a limit that the operator has set."""

    limit: float
    reserve: float
    """The share of it that larger amounts than that leave."""

    _sent: deque[Entry] = field(init=False, factory=deque)
    _used: float = field(init=False, default=0.0)

    def look(self, now: float) -> None:
        """Forget what was sent longer ago."""
        while self._sent and self._sent[0].ended_at + WINDOW_S <= now:
            self._used -= self._sent.popleft().amount
        if not self._sent:
            self._used = 0.0  # without what rounding has left

    @property
    def left(self) -> float:
        """Return how much may be sent now."""
        return self.limit - self._used

    def rate(self, amount: float, now: float) -> float:
        """Return how much a second leaves something for all the time until more is."""
        mean = self.limit / WINDOW_S
        if not self._sent:
            return mean
        more_in_s = max(self._sent[0].ended_at + WINDOW_S - now, CLOSE)
        return min(max(self.left + amount, 0.0) / more_in_s, HURRY * mean)

    def fits_at(self, amount: float, now: float) -> float:
        """Return when *amount* is left; one over the limit waits for all of it."""
        reserve = self.reserve * self.limit
        larger = amount if amount <= reserve else amount + reserve
        lacks = min(larger, self.limit) - self.left
        at = now
        for entry in self._sent:
            if lacks <= CLOSE:
                break
            lacks -= entry.amount
            at = entry.ended_at + WINDOW_S
        return at

    def add(self, amount: float, now: float) -> Entry:
        """Note that *amount* was sent."""
        last = self._sent[-1] if self._sent else None
        if last is None or now - last.began_at > GRAIN_S:
            last = Entry(now, now, 0.0)
            self._sent.append(last)
        last.ended_at = now
        self.correct(last, amount)
        return last

    def correct(self, entry: Entry, more: float) -> None:
        """Note that *entry* was *more* than was thought, or less."""
        if self._sent and entry.ended_at >= self._sent[0].ended_at:
            entry.amount += more
            self._used += more


@define(eq=False)
class _Said:
    """What the upstream has said is left, and when all of it is again."""

    limit: float
    left: float
    until: float
    _at: float

    back: float
    """How much comes back in a second; 0 if all of it does at once."""

    _ends_at: float = field(init=False)

    def __attrs_post_init__(self) -> None:
        self._ends_at = self._at + KEPT_S

    def is_over(self, now: float) -> bool:
        """Return whether all of it is left again, or it was said too long ago."""
        return now >= min(self.until, self._ends_at)

    def look(self, now: float) -> None:
        """Add what has come back."""
        if self.back:
            self.left += self.back * (now - self._at)
            self.until = now + (self.limit - self.left) / self.back
        self._at = now

    def rate(self, amount: float, now: float) -> float:
        """Return how much a second leaves something for all the time until more is."""
        if self.left >= FREELY * self.limit:
            return inf
        spread = max(self.left + amount, 0.0) / max(self.until - now, CLOSE)
        return max(spread, SLOWEST * self.back)

    def fits_at(self, amount: float, now: float) -> float:
        """Return when *amount* is left; one over the limit waits for all of it."""
        lacks = min(amount, self.limit) - self.left
        if lacks <= CLOSE:
            return now
        at = min(now + lacks / self.back, self.until) if self.back else self.until
        return min(at, self._ends_at)


@define(eq=False)
class Allowance:
    """How much may still be sent of one thing."""

    amounts_differ: bool = False
    """Whether a part of what is set is left for small amounts beside large ones."""

    _window: _Window | None = field(init=False, default=None)
    _said: _Said | None = field(init=False, default=None)
    _credit: float = field(init=False, default=inf)
    """How much may leave without a pause."""

    _at: float = field(init=False, default=0.0)
    _last: float = field(init=False, default=1.0)
    """How much was sent last: the next will be about as much."""

    _in_flight: float = field(init=False, default=0.0)
    """How much of it is not answered yet."""

    @property
    def limit(self) -> float:
        """Return the lower limit of those that are known."""
        return min((each.limit for each in self._limits), default=inf)

    @property
    def _limits(self) -> list[_Window | _Said]:
        return [each for each in (self._window, self._said) if each is not None]

    def set_limit(self, limit: float | None) -> None:
        """Allow *limit* a minute from now on, and what was sent already counts."""
        if limit is None:
            self._window = None
        elif self._window is None:
            self._window = _Window(limit, RESERVE if self.amounts_differ else 0.0)
        else:
            self._window.limit = limit

    def is_limited(self, now: float) -> bool:
        """Return whether anything limits it."""
        self._look(now)
        return bool(self._limits)

    def heard(
        self, limit: float, left: float, until: float, now: float, *, refills: bool
    ) -> None:
        """
        Note what the upstream says.

        Args:
            limit: how much it allows; infinite if it does not say.
            left: what of that may still be sent, when it answered.
            until: when all of the limit is left again.
            now: the time.
            refills: whether it comes back little by little.
        """
        self._look(now)
        if limit == inf:
            limit = self._said.limit if self._said is not None else left
        limit = max(limit, left, 1.0)
        back = (limit - left) / max(until - now, CLOSE) if refills else 0.0
        left = min(left - self._in_flight, limit)
        self._said = _Said(limit, left, until, now, back)

    def free_at(self, amount: float, now: float) -> float:
        """Return when *amount* may be sent; *now* if that is now."""
        self._look(now)
        at, limits = now, self._limits
        for each in limits:
            at = max(at, each.fits_at(amount, now))
        lacks = min(amount, self._at_once) - self._credit
        if lacks > CLOSE:
            at = max(at, now + lacks / self._rate(amount, now))
        return at

    def lasts_until(self, amount: float, now: float) -> float:
        """Estimate when *amount* in all has been sent."""
        self._look(now)
        at = now
        for each in self._limits:
            free = max(min(each.left, max(self._credit, 0.0)), 0.0)
            if amount > free:
                at = max(at, now + (amount - free) * WINDOW_S / each.limit)
        return max(at, self.free_at(min(amount, self._last), now))

    def take(self, amount: float, now: float) -> Entry | None:
        """Note that *amount* is sent; to be ended when it is answered."""
        self._look(now)
        self._credit = max(self._credit - amount, 0.0)
        self._in_flight += amount
        self._last = amount
        if self._said is not None:
            self._said.left -= amount
        return self._window.add(amount, now) if self._window is not None else None

    def end(self, entry: Entry | None, guessed: float, amount: float) -> None:
        """Note that what was *guessed* to be so much is answered, and was *amount*."""
        self._in_flight -= guessed
        self._credit = min(self._credit + guessed - amount, self._at_once)
        if self._said is not None:
            self._said.left += guessed - amount
        if self._window is not None and entry is not None:
            self._window.correct(entry, amount - guessed)

    def forget(self) -> None:
        """Forget what the upstream has said."""
        self._said = None

    @property
    def _at_once(self) -> float:
        limit = self.limit
        return max(AT_ONCE * limit, 1.0) if limit < inf else inf

    def _rate(self, amount: float, now: float) -> float:
        rates = [each.rate(amount, now) for each in self._limits]
        return max(min(rates, default=inf), CLOSE)

    def _look(self, now: float) -> None:
        """Bring all up to *now*."""
        for each in self._limits:
            each.look(now)
        if self._said is not None and self._said.is_over(now):
            self._said = None
        at_once = self._at_once
        rate = self._rate(self._last, now)
        gained = rate * (now - self._at) if now > self._at else 0.0
        self._credit = min(self._credit + gained, at_once)
        self._at = now
