"""
How much may be in flight at one upstream.

The budget counts items, as TEI counts its permits.  A slot is the right to
have one batch in flight that was not full when it left.  Both are taken and
given back here and nowhere else: a leak would freeze the proxy.
"""

from typing import Protocol

from attrs import define, field

from abproxy.batching.slots import Slots

__all__ = ["Budget", "Limit", "Load"]


@define(kw_only=True, eq=False)
class Load:
    """What one batch takes of the budget."""

    items: int

    slot: bool
    """Whether it was not full when it left."""

    in_flight: int = field(default=1, init=False)
    """How many batches were in flight when it had left, itself among them."""


class Limit(Protocol):
    """How many items may be in flight, as experience teaches."""

    ceiling: int
    """Items that the upstream works on at once: its permits."""

    batch: int
    """Items in a full batch."""

    @property
    def items(self) -> int:
        """The limit now."""

    def answered(self, load: Load, took_s: float, *, full_wait: bool) -> None:
        """Learn from a batch that was answered while full ones waited, or not."""

    def refused(self) -> None:
        """Learn from a batch that the upstream had no room for."""


@define(kw_only=True, eq=False)
class Budget:
    """Items and slots in flight."""

    limit: Limit
    slots: Slots

    batches_in_flight: int = field(default=0, init=False)
    items_in_flight: int = field(default=0, init=False)
    slots_taken: int = field(default=0, init=False)

    @property
    def slot_free(self) -> bool:
        """Whether a batch that is not full may leave."""
        full = self.batches_in_flight - self.slots_taken
        return self.slots_taken < self.slots.beside(full)

    def answered(self, load: Load, took_s: float, *, full_wait: bool) -> None:
        """Learn from a batch that was answered while full ones waited, or not."""
        self.limit.answered(load, took_s, full_wait=full_wait)
        if load.slot:
            self.slots.answered(load.in_flight, took_s)

    def admits(self, items: int) -> bool:
        """
        Whether *items* more may be in flight, or as many of them as ever may.

        With nothing in flight there is always room: a batch larger than the
        whole budget would wait for ever otherwise.
        """
        most = self.limit.items
        room = most - self.items_in_flight
        return min(items, most) <= room or not self.items_in_flight

    def take(self, load: Load) -> None:
        """Account for a batch that leaves."""
        self.items_in_flight += load.items
        self.batches_in_flight += 1
        load.in_flight = self.batches_in_flight
        self.slots_taken += load.slot

    def give_back(self, load: Load) -> None:
        """Account for a batch whose trip is over."""
        self.items_in_flight -= load.items
        self.batches_in_flight -= 1
        self.slots_taken -= load.slot
