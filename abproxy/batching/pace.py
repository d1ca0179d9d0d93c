"""
The pace: requests and tokens in a minute, as the account at a hosted API may have.

What is over them waits here in the queue, where batches get fuller while they wait,
and not at the upstream, which would refuse it.  The operator may set the limits of
the account; the upstream may state them in its answers, for each model by itself,
and those are believed until the time that it states.  Queries go first; of ten
requests bulk has one, if any of it waits.

Without limits it does nothing but to look for them in the answers to shared requests.
"""

import re
from collections.abc import Callable, Hashable, Iterable
from math import ceil, inf
from typing import NamedTuple

from attrs import define, evolve, field
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from abproxy.batching.account import NO_RATES, Account, Accounts, Rates
from abproxy.batching.allowance import KEPT_S, WINDOW_S
from abproxy.batching.lane import Lane
from abproxy.batching.part import Caps
from abproxy.batching.queue import Queue
from abproxy.batching.stated import TOKENS, Stated, pause_stated_s, read_stated
from abproxy.dialects.call import Call, LaneKey
from abproxy.errors import AccountUsedUp
from abproxy.http.messages import NO_ROOM, Response, Send, UpstreamRequest
from abproxy.timer import Timer

__all__ = ["Pace"]

PATIENCE_S = WINDOW_S
"""The longest that a call waits for its account, unless the operator has set it."""

PARTS = 30
"""
So many requests the tokens of a minute are enough for, or more.

Where tokens are what is short, larger requests would only be further apart.
"""

BULK_SHARE = 10
"""Of so many requests at least one is for bulk, if any of it waits."""

SHORTEST_S = 0.001
"""The shortest time after which is looked again, in seconds."""

OK = 200

_MODEL = re.compile(rb',"model":("(?:[^"\\]|\\.)*")')
_USED = re.compile(rb'"(?:total_tokens|prompt_tokens|input_tokens)"\s*:\s*(\d{1,12})')
_COMPUTED = b"x-compute-tokens"
"""How text-embeddings-inference says it."""

_ENDS = 600
"""Bytes at either end of an answer in which its usage stands."""


class _Ahead(NamedTuple):
    """What leaves before a call, and with it."""

    requests: int
    size: int
    """Bytes of items."""

    def plus(self, other: "_Ahead") -> "_Ahead":
        """Return both together."""
        return _Ahead(self.requests + other.requests, self.size + other.size)

    def times(self, number: int) -> "_Ahead":
        """Return so many times as much."""
        return _Ahead(self.requests * number, self.size * number)

    def within(self, most: "_Ahead") -> "_Ahead":
        """Return it, but no more than *most*."""
        return _Ahead(min(self.requests, most.requests), min(self.size, most.size))


@define(eq=False)
class Pace:
    """Says when the next batch may leave, by what its account may have in a minute."""

    clock: IReactorTime = field(repr=False)

    resume: Callable[[], None] = field(repr=False)
    """Called when more may be sent."""

    on_change: Callable[[], None] = field(repr=False)
    """Called when a batch may have more or less than before."""

    rates: Rates = NO_RATES
    is_active: bool = field(init=False, default=False)
    """Whether anything limits what is sent, so that all of it is counted."""

    accounts: Accounts = field(factory=Accounts, repr=False)
    """By account, model, and the hash of what clients of their own account show."""

    _of_all: Account = field(init=False, factory=Account)
    _timer: Timer = field(init=False, repr=False)
    _since_bulk: int = field(init=False, default=0)
    """How many requests have left since the last one of bulk."""

    def __attrs_post_init__(self) -> None:
        self._timer = Timer(self.clock, self.resume)
        self.use(self.rates)

    def use(self, rates: Rates) -> None:
        """Apply other *rates* from now on."""
        self.rates = rates
        self._of_all.requests.set_limit(rates.requests)
        self._of_all.tokens.set_limit(rates.tokens)
        self.is_active = rates.are_any

    def forget(self) -> None:
        """Forget what was stated: the upstream, or its model, is another."""
        if not self.rates.is_hosted:
            self.accounts.forget()
        self.is_active = self.rates.are_any

    def stop(self) -> None:
        """Leave no timer behind."""
        self._timer.cancel()

    # How much fits into one request

    def fit(self, key: LaneKey, caps: Caps) -> Caps:
        """Return what fits into a batch of one lane, of what *caps* allow."""
        account = self._account_of(key)
        most_items, most_tokens = self.rates.most_of(_model_of(key))
        items = min(caps.items, most_items or caps.items)
        of_minute = min(self.rates.tokens or inf, account.token_limit)
        requests = min(self.rates.requests or inf, account.request_limit)
        parts = max(min(PARTS, requests), 1)
        tokens = min(
            most_tokens or inf, self.rates.batch_tokens or inf, of_minute / parts
        )
        size = caps.size
        if tokens < inf:
            size = max(int(min(size, tokens / account.tokens_per_byte)), 1)
        if items == caps.items and size == caps.size:
            return caps
        return evolve(caps, items=items, size=size)

    # When it may leave

    def choose(self, lanes: Iterable[Lane]) -> Lane | None:
        """
        Return the one of *lanes* that may send its batch now, or None and wait.

        Queries go first, each in its place; but bulk is not forgotten for them.
        """
        now, next_at = self.clock.seconds(), inf
        is_turn_of_bulk = self._since_bulk >= BULK_SHARE - 1
        self._timer.cancel()
        for_all = self._of_all.next_at(now)
        of_accounts = dict[Account, float]()
        for lane in sorted(
            lanes,
            key=lambda lane: (lane.key.is_bulk is not is_turn_of_bulk, lane.priority),
        ):
            account = self._account_of(lane.key)
            at = of_accounts.get(account)
            if at is None:
                at = of_accounts[account] = max(for_all, account.next_at(now))
            if at <= now:
                # Many lanes may wait for a request; each for its own tokens.
                tokens = _next_size(lane) * account.tokens_per_byte
                at = max(each.free_at(tokens, now) for each in (account, self._of_all))
            if at <= now:
                return lane
            next_at = min(next_at, at)
        if next_at < inf:
            self._timer.set(max(next_at - now, SHORTEST_S))
        return None

    def note_left(self, key: LaneKey) -> None:
        """Note that a batch of the lane with *key* has left."""
        self._since_bulk = 0 if key.is_bulk else self._since_bulk + 1

    # What waits too long

    def admit(self, call: Call, size: int, caps: Caps, queue: Queue) -> None:
        """
        Refuse a call that would wait too long for its turn.

        Args:
            call: that is to queue up; of a large one the part that leaves first.
            size: the bytes of its items.
            caps: what fits into a batch of it.
            queue: in which others wait.

        Raises:
            AccountUsedUp: there is no turn for it within the patience.
        """
        now, account = self.clock.seconds(), self._account_of(call.lane_key)
        ahead, ahead_of_all = self._ahead_of(call, size, caps, queue)
        ratio = account.tokens_per_byte
        wait_s = -now + max(
            account.lasts_until(ahead.requests, ahead.size * ratio, now),
            self._of_all.lasts_until(
                ahead_of_all.requests, ahead_of_all.size * ratio, now
            ),
        )
        patience_s = self.rates.patience_s
        most_s = PATIENCE_S if patience_s is None else patience_s
        if wait_s > most_s:
            raise AccountUsedUp(
                f"the account at the inference server allows no more for {wait_s:.0f} "
                "seconds: try again later",
                max(1, ceil(wait_s - most_s)),
            )

    def _ahead_of(
        self, call: Call, size: int, caps: Caps, queue: Queue
    ) -> tuple["_Ahead", "_Ahead"]:
        """
        Estimate what leaves until *call* has, of its account and of all.

        Of each other client it is as much as of its own at most, by their turns.
        """
        key, account = call.lane_key, self._account_of(call.lane_key)
        items, size = min(len(call.items.raw), caps.items), min(size, caps.size)
        of_clients = queue.admission.of_clients
        mine = of_clients.get(call.client)
        own = _Ahead(1, size)
        if mine is not None:
            own = _Ahead(
                ceil(
                    max(
                        (mine.items + items) / caps.items,
                        (mine.size + size) / caps.size,
                    )
                ),
                mine.size + size,
            )
        fair = own.times(len(of_clients) + (mine is None))
        of_account = of_all = _Ahead(1, size)
        for lane in queue.lanes:
            if lane.key.is_bulk and not key.is_bulk:
                continue
            joins = lane.key == key
            requests = _requests_for(lane, joins * items, joins * size) - joins
            waits = _Ahead(requests, lane.size)
            of_all = of_all.plus(waits)
            if self._account_of(lane.key) is account:
                of_account = of_account.plus(waits)
        return of_account.within(fair), of_all.within(fair)

    def patience_s(self, asked_s: float, usual_s: float) -> float:
        """
        Return how long a refused call waits, where *asked_s* are asked for.

        It may be refused more than once, where others use the account as well.
        """
        is_of_account = self.is_active and self.rates.patience_s is None and asked_s
        return max(usual_s, PATIENCE_S) if is_of_account else usual_s

    # What is sent, and what is answered

    def send(
        self, send: Send, key: LaneKey, request: UpstreamRequest
    ) -> Deferred[Response]:
        """*Send* a *request* of one lane, count it, and heed what is answered."""
        if not self.is_active:
            return send(request).addCallback(self.look_at, key)
        size, account = len(request.body), self._account_of(key)
        tokens = size * account.tokens_per_byte
        both, now = (account, self._of_all), self.clock.seconds()
        taken = [(each, each.take(tokens, now)) for each in both]

        def ended(outcome: Response | Failure) -> Response | Failure:
            used = _used(outcome) if isinstance(outcome, Response) else None
            for each, entry in taken:
                each.end(entry, tokens, tokens if used is None else used)
            if used is not None and account.learn(size, used):
                self.on_change()
            if isinstance(outcome, Response):
                self.look_at(outcome, key, account)
            return outcome

        return send(request).addBoth(ended)

    def look_at(
        self, response: Response, key: LaneKey, account: Account | None = None
    ) -> Response:
        """Note what *response* to a request of one lane says of the limits."""
        stated = read_stated(response) if self.rates.is_one_account else []
        is_refused = response.status in NO_ROOM and self.rates.is_one_account
        if not stated and not self.is_active:
            return response
        now, account = self.clock.seconds(), account or self._account_of(key)
        if response.status == OK:
            self.accounts.computed(self._name_of(key), account)
        for each in stated:
            self._note(account, each, now)
        if is_refused:
            self._refused(account, pause_stated_s(response), stated, now)
        self.is_active = (
            self.rates.are_any
            or account.is_limited(now)
            or any(each.is_limited(now) for each in self.accounts)
        )
        return response

    def _note(self, account: Account, stated: Stated, now: float) -> None:
        """Note what is left of one thing, if it is little, or watched anyway."""
        of = account.tokens if stated.of == TOKENS else account.requests
        if not self.rates.are_any and stated.left > stated.limit / 2:
            of.forget()
            return
        shares = self.rates.shares
        of.heard(
            stated.limit / shares,
            stated.left / shares,
            now + stated.reset_s,
            now,
            refills=stated.refills and now >= account.refills_from,
        )
        if account.note_limit(stated.of, stated.limit / shares):
            self.on_change()

    def _refused(
        self, account: Account, asked_s: float, stated: list[Stated], now: float
    ) -> None:
        """Send nothing more for as long as a refusal asks for, or what it states."""
        used_up = [each for each in stated if each.left < 1]
        if any(each.refills for each in used_up):
            account.refills_from = now + KEPT_S
        until = now + min(asked_s, KEPT_S)
        account.blocked_until = max(account.blocked_until, until)

    def _account_of(self, key: LaneKey) -> Account:
        """Return what is known of the account and model of a lane."""
        return self.accounts.get(self._name_of(key))

    def _name_of(self, key: LaneKey) -> Hashable:
        of_all, client = self.rates.counts_models_together, key.is_personal
        return (
            self.rates.account,
            b"" if of_all else _model_of(key),
            hash(key.headers) if client else 0,
        )


def _model_of(key: LaneKey) -> bytes:
    """Return the name of the model that calls of a lane ask for, as it is written."""
    found = _MODEL.search(key.options)
    return found[1] if found is not None else b""


def _next_size(lane: Lane) -> float:
    """Estimate how many bytes the next batch of *lane* has."""
    caps = lane.caps
    share = min(1.0, caps.items / lane.items, caps.calls / lane.calls)
    return min(lane.size * share, caps.size)


def _requests_for(lane: Lane, items: int, size: int) -> int:
    """Return how many requests what waits takes, and *items* of *size* bytes more."""
    caps = lane.caps
    return ceil(
        max(
            (lane.items + items) / caps.items,
            (lane.calls + bool(items)) / caps.calls,
            (lane.size + size) / caps.size,
        )
    )


def _used(response: Response) -> float | None:
    """
    Return how many tokens an answer says that it has cost.

    What is said of an error counts for nothing: it may repeat what a client has sent.
    """
    if response.status != OK:
        return None
    for name, value in response.headers:
        if name.lower() == _COMPUTED and value.isdigit():
            return float(value)
    body = response.body
    found = _USED.findall(body[-_ENDS:]) or _USED.findall(body[:_ENDS])
    return float(max(map(int, found))) if found else None
