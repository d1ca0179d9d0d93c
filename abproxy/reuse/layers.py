"""
What stands between a call and its batch: memory, and equal work in flight.

Each layer submits what it does not know to the next one, and the last one is the
collector of batches.
"""

from attrs import field, frozen

from abproxy.batching.collector import BatchCollector
from abproxy.reuse.inflight import InFlight
from abproxy.reuse.keys import Keys
from abproxy.reuse.memory import MemoryCache
from abproxy.reuse.rows import Submit

__all__ = ["Layers"]


@frozen(kw_only=True)
class Layers:
    """The layers that the settings ask for, and the collector below them."""

    collector: BatchCollector
    in_flight: InFlight | None
    memory: MemoryCache | None
    submit: Submit = field(repr=False)
    """Of the first layer."""

    def learn(self, keys: Keys) -> None:
        """Keep rows under *keys* from now on, and forget others: the model is new."""
        if self.memory is not None and not self.memory.keys.are(keys):
            self.memory.forget(keys)
