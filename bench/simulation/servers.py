"""
Inference servers, as far as a queue in front of them can tell.

A body is items joined by commas, an item is as long as its text, and a server
answers with the body it got: so every caller can tell its own rows.  What a
server does with its work, and how long that takes, is its model's to say.
"""

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Sequence

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.python.failure import Failure

from abproxy.errors import CannotConnect, ConnectionBroken
from abproxy.http.messages import Response, UpstreamRequest
from bench.simulation.clock import VirtualClock

__all__ = [
    "DEADLY",
    "Fleet",
    "Groups",
    "Merging",
    "Model",
    "Server",
    "Work",
    "Workers",
]

DEADLY = b"deadly"
"""The text that kills a server which is mortal."""

OVERLOADED = b'{"error":"Model is overloaded","error_type":"Overloaded"}'
TOO_FAST = b'{"error":{"message":"Rate limit reached","code":"rate_limit_exceeded"}}'
REFUSES_AFTER_S = 0.0001
DIES_AFTER_S = 0.002
"""How long a server computes on a deadly text before it is gone."""

TEXT = 10
"""How long the texts are that a server's speed is given for."""


@define(eq=False)
class Work:
    """One request inside a server."""

    body: bytes
    items: Sequence[int]
    """How long each of them is."""

    done: Deferred[Response] = field(init=False)
    left: int = field(init=False)
    """Items without a result."""

    gone: bool = False

    def __attrs_post_init__(self) -> None:
        """Begin with all items, for a caller who may hang up."""
        self.left = len(self.items)
        self.done = Deferred(self._hung_up)

    def _hung_up(self, _done: Deferred[Response]) -> None:
        self.gone = True


@define(kw_only=True, eq=False)
class Model(ABC):
    """Computes; one object for one run."""

    clock: VirtualClock

    @abstractmethod
    def take(self, work: Work) -> None:
        """Begin with *work*, or let it wait."""

    @abstractmethod
    def forget(self) -> None:
        """Drop all that waits or is computed: the server has died."""

    def finish(self, works: Sequence[Work]) -> None:
        """Answer."""
        for work in works:
            if not work.gone:
                reply = Response(status=200, reason=b"", headers=(), body=work.body)
                work.done.callback(reply)


@define(kw_only=True, eq=False)
class Merging(Model):
    """Computes all that waits at once, then all that has come meanwhile."""

    fixed_s: float
    item_s: float

    _waiting: list[Work] = field(factory=list, init=False)
    _busy: bool = field(default=False, init=False)
    _life: int = field(default=0, init=False)

    def take(self, work: Work) -> None:
        """Compute now, or with the others that wait."""
        self._waiting.append(work)
        if not self._busy:
            self._start()

    def _start(self) -> None:
        works = [work for work in self._waiting if not work.gone]
        self._waiting = []
        self._busy = bool(works)
        if works:
            items = sum(len(work.items) for work in works)
            took_s = self.fixed_s + self.item_s * items
            self.clock.callLater(took_s, self._computed, works, self._life)

    def _computed(self, works: list[Work], life: int) -> None:
        if life == self._life:
            self._start()
            self.finish(works)

    def forget(self) -> None:
        """Begin a new life."""
        self._life += 1
        self._waiting, self._busy = [], False


@define(kw_only=True, eq=False)
class Workers(Model):
    """Some requests at a time, each alone on its worker."""

    at_once: int
    fixed_s: float
    item_s: float

    _waiting: deque[Work] = field(factory=deque, init=False)
    _busy: int = field(default=0, init=False)
    _life: int = field(default=0, init=False)

    def take(self, work: Work) -> None:
        """Give it to a worker, or to the queue."""
        self._waiting.append(work)
        self._start()

    def _start(self) -> None:
        while self._waiting and self._busy < self.at_once:
            work = self._waiting.popleft()
            if not work.gone:
                self._busy += 1
                took_s = self.fixed_s + self.item_s * len(work.items)
                self.clock.callLater(took_s, self._computed, work, self._life)

    def _computed(self, work: Work, life: int) -> None:
        if life == self._life:
            self._busy -= 1
            self._start()
            self.finish([work])

    def forget(self) -> None:
        """Begin a new life."""
        self._life += 1
        self._waiting.clear()
        self._busy = 0


@define(kw_only=True, eq=False)
class Groups(Model):
    """
    A few items at a time, first come first served, each padded to the longest.

    An item costs `item_s` if the longest in its group is an ordinary text.
    """

    group: int
    item_s: float

    _waiting: deque[tuple[int, Work]] = field(factory=deque, init=False)
    _busy: bool = field(default=False, init=False)
    _life: int = field(default=0, init=False)

    def take(self, work: Work) -> None:
        """Let its items queue up."""
        self._waiting.extend((length, work) for length in work.items)
        if not self._busy:
            self._start()

    def _start(self) -> None:
        group: list[tuple[int, Work]] = []
        while self._waiting and len(group) < self.group:
            length, work = self._waiting.popleft()
            if not work.gone:
                group.append((length, work))
        self._busy = bool(group)
        if group:
            longest = max(length for length, _ in group)
            took_s = self.item_s * len(group) * longest / TEXT
            works = [work for _, work in group]
            self.clock.callLater(took_s, self._computed, works, self._life)

    def _computed(self, works: list[Work], life: int) -> None:
        if life != self._life:
            return
        self._start()
        for work in works:
            work.left -= 1
            if not work.left:
                self.finish([work])

    def forget(self) -> None:
        """Begin a new life."""
        self._life += 1
        self._waiting.clear()
        self._busy = False


@define(kw_only=True, eq=False)
class Fleet(Model):
    """Several servers behind one address; each request goes to the next."""

    models: Sequence[Model]
    _next: int = field(default=0, init=False)

    def take(self, work: Work) -> None:
        """Hand it on."""
        self.models[self._next].take(work)
        self._next = (self._next + 1) % len(self.models)

    def forget(self) -> None:
        """Let all of them begin a new life."""
        for model in self.models:
            model.forget()


@define(kw_only=True, eq=False)
class Server:
    """A model behind a door with permits, which may die and start again."""

    clock: VirtualClock
    model: Model

    permits: int | None = None
    """Items that may be inside; a request that does not fit is refused."""

    restart_s: float | None = None
    """How long it is away after a deadly text; None if nothing kills it."""

    quota_per_s: float | None = None
    """Requests a second that it lets in, and as many at once; all if None."""

    _quota: float = field(default=0.0, init=False)
    _counted_at: float = field(default=0.0, init=False)

    requests: int = field(default=0, init=False)
    """Requests that were let in."""

    items: int = field(default=0, init=False)
    refusals: int = field(default=0, init=False)
    deaths: int = field(default=0, init=False)
    _inside: dict[Work, None] = field(factory=dict, init=False)
    _items_inside: int = field(default=0, init=False)
    _is_away: bool = field(default=False, init=False)

    def send(self, request: UpstreamRequest) -> Deferred[Response]:
        """Take in one request, as abproxy's way upstream does."""
        if self._is_away:
            return self._later(CannotConnect("connection refused"))
        work = Work(request.body, [len(item) for item in request.body.split(b",")])
        count = len(work.items)
        if self.permits is not None and self._items_inside + count > self.permits:
            return self._refuse(OVERLOADED)
        if self.quota_per_s is not None and not self._is_in(self.quota_per_s):
            return self._refuse(TOO_FAST)
        self.requests += 1
        self.items += count
        self._items_inside += count
        self._inside[work] = None
        work.done.addBoth(self._leaves, work)
        if self.restart_s is not None and DEADLY in request.body:
            self.clock.callLater(DIES_AFTER_S, self._die)
        else:
            self.model.take(work)
        return work.done

    def _is_in(self, per_s: float) -> bool:
        """Return whether one more request is within the quota, and count it if so."""
        now = self.clock.seconds()
        self._quota = min(self._quota + per_s * (now - self._counted_at), per_s)
        self._counted_at = now
        if self._quota < 1:
            return False
        self._quota -= 1
        return True

    def _refuse(self, body: bytes) -> Deferred[Response]:
        self.refusals += 1
        return self._later(Response(status=429, reason=b"", headers=(), body=body))

    def _later(self, outcome: Response | Exception) -> Deferred[Response]:
        done: Deferred[Response] = Deferred()
        self.clock.callLater(REFUSES_AFTER_S, _tell, done, outcome)
        return done

    def _leaves(self, outcome: object, work: Work) -> object:
        if self._inside.pop(work, 0) is None:
            self._items_inside -= len(work.items)
        return outcome

    def _die(self) -> None:
        if self._is_away or self.restart_s is None:
            return
        self.deaths += 1
        self._is_away = True
        self.model.forget()
        self.clock.callLater(self.restart_s, self._come_back)
        for work in list(self._inside):
            work.gone = True
            work.done.errback(Failure(ConnectionBroken("connection lost")))

    def _come_back(self) -> None:
        self._is_away = False


def _tell(done: Deferred[Response], outcome: Response | Exception) -> None:
    if done.called:  # its caller has hung up
        return
    if isinstance(outcome, Response):
        done.callback(outcome)
    else:
        done.errback(Failure(outcome))
