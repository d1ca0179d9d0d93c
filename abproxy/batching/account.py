"""
Accounts at hosted APIs: what each may have, as it is set and as it is stated.

What is stated is kept for each model of an account by itself, but where the API
limits all models together.
"""

from collections.abc import Callable, Hashable, Iterator
from math import inf

from attrs import define, field, frozen

from abproxy.batching.allowance import Allowance, Entry
from abproxy.batching.stated import TOKENS

__all__ = ["NO_RATES", "Account", "Accounts", "Rates"]

MOST_ACCOUNTS = 1000
"""Accounts and models of which is kept in mind what the upstream has stated."""

TOKENS_PER_BYTE = 1 / 3
"""
How many tokens a byte of JSON is taken for until an answer tells.

English has about a fourth of one, Chinese a third; too many means less in a batch.
"""

TELLING_BYTES = 1000
"""A smaller request says little of a large one: most of it is not its inputs."""

SLOWLY = 0.1
"""How much of the way to a lower count of tokens is gone with one answer."""

NOTABLE = 0.05
"""By how much the count has to differ so that batches are filled otherwise."""


@frozen(kw_only=True)
class Rates:
    """The limits of an account, as they are set."""

    requests: int | None = None
    tokens: int | None = None
    """Those of a minute."""

    batch_tokens: int | None = None
    """The tokens that one request may have."""

    patience_s: float | None = None
    """How long calls wait for it; without this for a minute at most."""

    is_hosted: bool = False
    """Whether the upstream is known for limits, so that each answer is looked at."""

    is_one_account: bool = True
    """Whether all servers have one account, so that what any of them states counts."""

    account: Hashable = field(default=None, repr=False)
    """Which of several accounts at one API it is, if there may be others."""

    counts_models_together: bool = False
    """Whether the limits that are stated are those of all models together."""

    most_of: Callable[[bytes], tuple[int | None, int | None]] = field(
        default=lambda _model: (None, None), repr=False
    )
    """
    Return how many inputs and tokens a request with a model may have, if known.

    The name of the model is as it is written in JSON.
    """

    shares: int = 1
    """How many workers share the account; what is set is divided already."""

    @property
    def are_any(self) -> bool:
        """Return whether the upstream is watched from the start."""
        limits = (self.requests, self.tokens, self.batch_tokens)
        return self.is_hosted or any(each is not None for each in limits)


NO_RATES = Rates()


@define(eq=False)
class Accounts:
    """
    What is known of each account and model; of those used least lately it is forgotten.

    Names that clients have made up are kept apart, so that they drive out no others:
    what has never computed anything may be one.
    """

    _good: dict[Hashable, "Account"] = field(init=False, factory=dict, repr=False)
    """Those that have computed something, the one used last at the end."""

    _others: dict[Hashable, "Account"] = field(init=False, factory=dict, repr=False)

    def __iter__(self) -> Iterator["Account"]:
        """Iterate over all of them."""
        yield from self._good.values()
        yield from self._others.values()

    def get(self, name: Hashable) -> "Account":
        """Return that of a *name*, which may be new."""
        kept = self._good if name in self._good else self._others
        return self._keep(kept, name, kept.get(name) or Account())

    def computed(self, name: Hashable, account: "Account") -> None:
        """Note that the *account* of that *name* has computed something."""
        if name not in self._good:
            self._others.pop(name, None)
            self._keep(self._good, name, account)

    def forget(self) -> None:
        """Forget all of them."""
        self._good.clear()
        self._others.clear()

    @staticmethod
    def _keep(
        kept: dict[Hashable, "Account"], name: Hashable, account: "Account"
    ) -> "Account":
        """Keep it as the one used last, and forget one if there are too many."""
        kept.pop(name, None)
        kept[name] = account
        if len(kept) > MOST_ACCOUNTS:
            del kept[next(iter(kept))]
        return account


@define(eq=False)
class Account:
    """What the upstream has stated for one model, or the operator for all."""

    requests: Allowance = field(init=False, factory=Allowance)
    tokens: Allowance = field(
        init=False, factory=lambda: Allowance(amounts_differ=True)
    )
    blocked_until: float = field(init=False, default=0.0)
    """When more may be sent, by its last refusal."""

    refills_from: float = field(init=False, default=0.0)
    """Until when only resets count, as less came back than was expected."""

    request_limit: float = field(init=False, default=inf)
    token_limit: float = field(init=False, default=inf)
    """How many it allows in all, as it has stated last."""

    tokens_per_byte: float = field(init=False, default=TOKENS_PER_BYTE)
    _in_force: float = field(init=False, default=TOKENS_PER_BYTE)
    """The count by which batches are filled."""

    def is_limited(self, now: float) -> bool:
        """Return whether anything limits it now."""
        return (
            now < self.blocked_until
            or self.requests.is_limited(now)
            or self.tokens.is_limited(now)
        )

    def next_at(self, now: float) -> float:
        """Return when a request may be sent, if there are tokens for it."""
        return max(self.requests.free_at(1, now), self.blocked_until)

    def free_at(self, tokens: float, now: float) -> float:
        """Return when a request of so many *tokens* may be sent."""
        return max(self.next_at(now), self.tokens.free_at(tokens, now))

    def lasts_until(self, requests: float, tokens: float, now: float) -> float:
        """Estimate when so many requests with so many *tokens* have been sent."""
        return max(
            self.requests.lasts_until(requests, now),
            self.tokens.lasts_until(tokens, now),
            self.blocked_until,
        )

    def take(self, tokens: float, now: float) -> Entry | None:
        """Count a request with so many *tokens*; to be ended when it is answered."""
        self.requests.take(1, now)
        return self.tokens.take(tokens, now)

    def end(self, entry: Entry | None, guessed: float, tokens: float) -> None:
        """Count as answered what was *guessed* to have so many tokens, and had them."""
        self.requests.end(None, 1, 1)
        self.tokens.end(entry, guessed, tokens)

    def note_limit(self, of: str, limit: float) -> bool:
        """Note how much it allows *of* one thing; return whether that is news."""
        known = self.token_limit if of == TOKENS else self.request_limit
        if limit in {known, inf}:
            return False
        if of == TOKENS:
            self.token_limit = limit
        else:
            self.request_limit = limit
        return True

    def learn(self, size: int, tokens: float) -> bool:
        """
        Learn from the *tokens* of a request of so many bytes.

        More per byte is believed at once, less little by little.  Return whether
        that changes how much a batch may have.
        """
        if size < TELLING_BYTES:
            return False
        seen, known = tokens / size, self.tokens_per_byte
        self.tokens_per_byte = max(seen, known + SLOWLY * (seen - known), 1e-3)
        if abs(self.tokens_per_byte - self._in_force) <= NOTABLE * self._in_force:
            return False
        self._in_force = self.tokens_per_byte
        return True
