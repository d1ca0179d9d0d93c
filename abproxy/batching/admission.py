"""
Admission: how much may wait, in all and of one client, and no more.

What queues up is counted apart from the unsent rests of large calls: a rest costs
memory, and is counted in bytes, but takes no place in the queue from other calls.

No client gets more than it leaves free: of k clients that want as much as they can
get, the next one still finds a share of 1 / 2^k, so that none crowds out another.
"""

from collections.abc import Sequence
from math import ceil

from attrs import define, evolve, field
from twisted.internet.interfaces import IReactorTime

from abproxy.batching.concurrency import Rate
from abproxy.batching.joined import Collected, LargeCall
from abproxy.batching.part import Caps, Part
from abproxy.errors import CallTooLarge, ClientQueueFull, QueueFull

__all__ = ["Admission", "Waiting"]

MAX_RETRY_AFTER_S = 300
"""
The longest time after which a caller is told to try again, in seconds.

By then what waits now has been answered, or has waited for `CALL_TIMEOUT`.
"""

PARTS = 4
"""How many parts fit into the queue at least, if each is as large as it may be."""


@define(eq=False)
class Waiting:
    """Counts of what waits, of all clients or of one."""

    items: int = 0
    size: int = 0
    """Items that have queued up, and their bytes."""

    rest_items: int = 0
    rest_size: int = 0
    """What has not queued up yet of large calls."""

    next_turns: list[float] = field(factory=lambda: [0.0, 0.0], init=False)
    """Where the next part of one client is queued up, and the next bulk one."""


@define(kw_only=True, eq=False)
class Admission(Waiting):
    """Counts what waits, and refuses what there is no room for."""

    clock: IReactorTime = field(repr=False)
    max_items: int
    max_size: int

    max_items_of_one: int | None = None
    """Items that one client may have waiting, the rests of its calls among them."""

    of_clients: dict[bytes, Waiting] = field(factory=dict, init=False, repr=False)
    """The share of each client of which anything waits."""

    kept: int = field(default=0, init=False)
    """Places whose next owner is the rest of the same call."""

    queued: int = field(default=0, init=False)
    """How many parts are in lanes: calls, or the next parts of large ones."""

    collected: Collected = field(factory=Collected, init=False, repr=False)
    """The rows of large calls that have left in part."""

    _leaving: Rate = field(init=False, repr=False)
    """How many bytes leave."""

    def __attrs_post_init__(self) -> None:
        self._leaving = Rate(self.clock)

    @property
    def is_full(self) -> bool:
        """Return whether a client with nothing waiting is refused one input."""
        return bool(self.items) and self.items + 2 > self.max_items

    def fit(self, caps: Caps) -> Caps:
        """Return *caps* for a part that queues up, so that several find room."""
        most = self._most_in_part
        return caps if caps.items <= most else evolve(caps, items=most)

    @property
    def _most_in_part(self) -> int:
        return max(self.max_items // PARTS, 1)

    def admit(
        self,
        client: bytes,
        items: int,
        size: int,
        *,
        rest_items: int = 0,
        rest_size: int = 0,
    ) -> None:
        """
        Count a call of *client* as waiting, or refuse it.

        Args:
            client: who sent it.
            items: how many items queue up now.
            size: their bytes.
            rest_items: how many queue up later.
            rest_size: the bytes of these.

        Raises:
            CallTooLarge: there never is room for it.
            QueueFull: there is no room now.
            ClientQueueFull: there is none for this client now.
        """
        share = self.of_clients.get(client)
        own = share or Waiting()
        self._check_room(own, items, size, rest_size)
        if self.max_items_of_one is not None:
            self._check_client(own, items, rest_items, self.max_items_of_one)
        if not self.items:
            # How fast calls leave shows only while some wait; before that it
            # was how fast they came.
            self._leaving.begin()
        if share is None:
            self.of_clients[client] = own
        for waiting in (self, own):
            waiting.items += items
            waiting.size += size
            waiting.rest_items += rest_items
            waiting.rest_size += rest_size
        self.kept += items if rest_items else 0

    def _check_room(self, own: Waiting, items: int, size: int, rest_size: int) -> None:
        """Raise if there is no room for a call, by what its client leaves free."""
        held = size + rest_size
        if items > max(self.max_items // 2, 1):
            most = f"{self.max_items // 2} inputs, as half of MAX_WAITING_INPUTS"
            raise CallTooLarge(f"a call that is not split may have {most}")
        if held > max(self.max_size // 2, 1):
            most = f"{self.max_size // 2} bytes, as half of MAX_WAITING_BYTES"
            raise CallTooLarge(f"the inputs of a call may have {most}")
        # The rests of a client leave no room for more of its large calls, but
        # single queries of it pass.
        kept = own.size + (own.rest_size if rest_size else 0)
        items_over = own.items + 2 * items + self.items - self.max_items
        size_over = kept + 2 * held + self.size + self.rest_size - self.max_size
        too_many = items_over > 0 and self.items
        too_large = size_over > 0 and self.size + self.rest_size
        if not too_many and not too_large:
            return
        after_s = 0.0
        if too_many:
            places = items_over / (1 + own.items / self.items)
            after_s = self._places_free_after_s(places)
        if too_large:
            all_size = self.size + self.rest_size
            after_s = max(
                after_s, self._sent_after_s(size_over / (1 + kept / all_size))
            )
        raise QueueFull(
            f"{self.items} inputs are waiting already, {own.items} of them yours: "
            "try again later",
            _in_whole_seconds(after_s),
        )

    def _check_client(
        self, own: Waiting, items: int, rest_items: int, most: int
    ) -> None:
        """Raise if more than *most* items of one client would wait."""
        coming, waiting = items + rest_items, own.items + own.rest_items
        if coming > most and coming > self._most_in_part:
            raise CallTooLarge(
                f"a call may have {most} inputs: MAX_WAITING_INPUTS_PER_CLIENT"
            )
        if waiting and waiting + coming > most:
            share = min(1.0, (waiting + coming - most) / waiting)
            of_all = own.size / self.size if self.size else 1.0
            size = share * (own.size + own.rest_size) / (of_all or 1.0)
            raise ClientQueueFull(
                f"{waiting} of your inputs are waiting already: try again later",
                _in_whole_seconds(self._sent_after_s(size)),
            )

    def enter(self, part: Part) -> None:
        """Count a part that came back, and its rest, as waiting, above any limit."""
        items, size = len(part.items), part.size
        rest: LargeCall | None = part.rest_of
        own = self.of_clients.setdefault(part.call.client, Waiting())
        for waiting in (self, own):
            waiting.items += items
            waiting.size += size
            if rest is not None:
                waiting.rest_items += rest.left_items
                waiting.rest_size += rest.left_size
        self.kept += items if rest else 0
        self._leaving.count(-size)

    def advance(self, part: Part) -> None:
        """Count a part that was in the rest of its call as queued up."""
        items, size = len(part.items), part.size
        own = self.of_clients[part.call.client]
        for waiting in (self, own):
            waiting.items += items
            waiting.size += size
            waiting.rest_items -= items
            waiting.rest_size -= size
        self.kept += items if part.rest_of else 0

    def leave(self, parts: Sequence[Part]) -> None:
        """Subtract *parts* that wait no longer, each of them once."""
        items = size = 0
        for part in parts:
            part.on_cancel = None
            own = self.of_clients[part.call.client]
            own.items -= len(part.items)
            own.size -= part.size
            items += len(part.items)
            size += part.size
            self.kept -= len(part.items) if part.rest_of else 0
            self._forget_if_gone(part.call.client, own)
        self.items -= items
        self.size -= size
        self._leaving.count(size)

    def forget_rest(self, call: LargeCall) -> None:
        """Subtract the rest of a *call* that has ended."""
        client, items, size = call.call.client, call.left_items, call.left_size
        own = self.of_clients[client]
        for waiting in (self, own):
            waiting.rest_items -= items
            waiting.rest_size -= size
        self._leaving.count(size)
        self._forget_if_gone(client, own)

    def _forget_if_gone(self, client: bytes, own: Waiting) -> None:
        if not own.items and not own.rest_items:
            del self.of_clients[client]

    # When there will be room, as others leave

    def _places_free_after_s(self, places: float) -> float:
        """
        Estimate in how many seconds so many *places* in the queue are free.

        A large call keeps its place until its rest is sent: where too little else
        waits, there is room for certain when all of it has left.
        """
        passing = self.items - self.kept
        if places <= passing:
            return self._sent_after_s(self.size * places / passing)
        return self._sent_after_s(self.size + self.rest_size)

    def _sent_after_s(self, size: float) -> float:
        """Estimate in how many seconds so many bytes have left; 0 if unknown."""
        rate = self._leaving.per_second
        return size / rate if rate > 0 else 0.0


def _in_whole_seconds(seconds: float) -> int:
    # A thousandth is no reason to come back a second later.
    return min(max(ceil(seconds - 0.001), 1), MAX_RETRY_AFTER_S)
