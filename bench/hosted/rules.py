"""The rules of an account at a hosted API."""

from collections.abc import Sequence

from attrs import define, field

__all__ = ["Account", "Bucket"]

MINUTE_S = 60.0

Lines = Sequence[tuple[bytes, bytes]]


@define(eq=False)
class Bucket:
    """What is allowed in a minute of one thing, and comes back little by little."""

    limit: float
    steps: bool = False
    """Whether all of it comes back at once, at each full minute."""

    left: float = field(init=False)
    _at: float = field(init=False, default=0.0)

    def __attrs_post_init__(self) -> None:
        self.left = self.limit

    def look(self, now: float) -> None:
        """Add what has come back."""
        if self.steps:
            if now // MINUTE_S > self._at // MINUTE_S:
                self.left = self.limit
        else:
            back = (now - self._at) * self.limit / MINUTE_S
            self.left = min(self.limit, self.left + back)
        self._at = now

    @property
    def reset_s(self) -> float:
        """Return how long it takes until all of it is left again."""
        if self.steps:
            return MINUTE_S - self._at % MINUTE_S
        return (self.limit - self.left) * MINUTE_S / self.limit

    def free_after_s(self, amount: float) -> float:
        """Return in how many seconds *amount* is left."""
        lacks = amount - self.left
        if lacks <= 0:
            return 0.0
        return self.reset_s if self.steps else lacks * MINUTE_S / self.limit


@define(eq=False)
class Account:
    """What one account may have in a minute, and what it has had."""

    requests: Bucket
    tokens: Bucket

    taken: int = field(init=False, default=0)
    refused: int = field(init=False, default=0)
    tokens_taken: float = field(init=False, default=0.0)

    @classmethod
    def of(cls, requests: float, tokens: float, *, steps: bool = False) -> "Account":
        """Return one with so many requests and tokens in a minute."""
        return cls(Bucket(requests, steps), Bucket(tokens, steps))

    def ask(self, tokens: float, now: float) -> tuple[int, Lines]:
        """Take one request with so many *tokens*; return status and header lines."""
        both = ((self.requests, 1.0), (self.tokens, tokens))
        for bucket, _ in both:
            bucket.look(now)
        after_s = max(bucket.free_after_s(amount) for bucket, amount in both)
        if after_s > 0:
            self.refused += 1
            asked = (
                (b"Retry-After", b"%d" % max(1, -int(-after_s // 1))),
                (b"retry-after-ms", b"%d" % (after_s * 1000 + 1)),
            )
            return 429, (*asked, *self.lines())
        for bucket, amount in both:
            bucket.left -= amount
        self.taken += 1
        self.tokens_taken += tokens
        return 200, self.lines()

    def lines(self) -> Lines:
        """Return what an answer states."""
        both = ((b"requests", self.requests), (b"tokens", self.tokens))
        return [
            line
            for name, bucket in both
            for line in (
                (b"x-ratelimit-limit-" + name, b"%d" % bucket.limit),
                (b"x-ratelimit-remaining-" + name, b"%d" % bucket.left),
                (b"x-ratelimit-reset-" + name, _duration(bucket.reset_s)),
            )
        ]


def _duration(seconds: float) -> bytes:
    """Write a time as Go does, and so OpenAI: `120ms`, `1.5s`, `6m0s`."""
    if seconds < 1:
        return b"%dms" % round(seconds * 1000)
    minutes, rest = divmod(round(seconds, 3), MINUTE_S)
    return (b"%dm" % minutes if minutes else b"") + f"{rest:g}s".encode()
