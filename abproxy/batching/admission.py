"""
Room for so much to wait, in all and of one client, and no more.

Items and bytes of all calls that were accepted and have not left yet are
counted here, the unsent rest of large calls among them.
"""

from collections.abc import Sequence
from math import ceil

from attrs import define, field
from twisted.internet.interfaces import IReactorTime

from abproxy.batching.concurrency import Rate
from abproxy.batching.part import Part
from abproxy.errors import ClientQueueFull, QueueFull

__all__ = ["Admission"]

MAX_RETRY_AFTER_S = 60
"""The longest time after which a caller is told to try again, in seconds."""


@define(kw_only=True, eq=False)
class Admission:
    """Counts what waits, and refuses what there is no room for."""

    clock: IReactorTime = field(repr=False)
    max_items: int
    max_size: int

    max_items_of_one: int | None = None
    """Items that one client may have waiting."""

    items: int = field(default=0, init=False)
    size: int = field(default=0, init=False)
    of_clients: dict[bytes, int] = field(factory=dict, init=False, repr=False)
    _leaving: Rate = field(init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        self._leaving = Rate(self.clock)

    def admit(self, parts: list[Part]) -> None:
        """
        Count in all the *parts* of one call, or refuse them.

        While nothing waits a call of any size is accepted: a caller told to
        come back later must have a chance then.

        Raises:
            QueueFull: there is no room.
            ClientQueueFull: there is none for this client.
        """
        first, *rest = parts
        call, size = first.call, first.size
        for part in rest:
            size += part.size
        items = len(call.items.raw)
        all_items = self.items + items
        full = all_items > self.max_items or self.size + size > self.max_size
        if full and self.items:
            raise QueueFull(
                f"{self.items} inputs are waiting already: try again later",
                self.retry_after_s(items),
            )
        if self.max_items_of_one is not None:
            self._admit_client(call.client, items, self.max_items_of_one)
        self._count_in(call.client, items, size)
        for part in rest:  # the first is in its lane at once
            part.on_cancel = self._drop

    def _admit_client(self, client: bytes, items: int, most: int) -> None:
        waiting = self.of_clients.get(client, 0)
        if waiting and waiting + items > most:
            raise ClientQueueFull(
                f"{waiting} of your inputs are waiting already: try again later",
                self.retry_after_s(items),
            )

    def enter(self, part: Part) -> None:
        """Count in a part that came back, whatever the limits say."""
        self._count_in(part.call.client, len(part.items), part.size)

    def _count_in(self, client: bytes, items: int, size: int) -> None:
        if not self.items:
            # How fast calls leave shows only while some wait; before that it
            # was how fast they came.
            self._leaving.begin()
        self.items += items
        self.size += size
        self.of_clients[client] = self.of_clients.get(client, 0) + items

    def leave(self, parts: Sequence[Part]) -> None:
        """Count out, once, *parts* that wait no longer."""
        items, of_clients = 0, self.of_clients
        for part in parts:
            part.on_cancel = None
            own, client = len(part.items), part.call.client
            items += own
            self.size -= part.size
            left = of_clients[client] - own
            if left:
                of_clients[client] = left
            else:
                del of_clients[client]
        self.items -= items
        self._leaving.count(items)

    def _drop(self, part: Part) -> None:
        """Forget a part whose caller left before it was even in a queue."""
        self.leave((part,))

    def retry_after_s(self, items: int) -> int:
        """Estimate in how many seconds there is room for *items*, as others leave."""
        rate = self._leaving.per_second
        too_many = max(items, self.items + items - self.max_items)
        seconds = ceil(too_many / rate) if rate else 1
        return min(max(seconds, 1), MAX_RETRY_AFTER_S)
