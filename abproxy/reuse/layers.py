"""
The layers between a call and its batch, as far as the settings ask for them.

Rows in memory are looked up first, then equal work in flight, then the rows of other
proxies.  Each of these layers submits what it does not know to the next one, and the
last submits to the collector.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from attrs import define, field, frozen

from abproxy.batching.collector import BatchCollector
from abproxy.errors import SettingsError
from abproxy.events import Observer
from abproxy.reuse.entry import Keys
from abproxy.reuse.inflight import InFlight
from abproxy.reuse.rows import Submit

if TYPE_CHECKING:
    from abproxy.reuse.memory import MemoryCache
    from abproxy.reuse.redis import RedisStore
    from abproxy.reuse.shared import SharedCache

__all__ = ["Layers", "Reuse", "make_layers", "make_shared_store"]


@frozen(kw_only=True)
class Reuse:
    """The layers that answer what need not be computed twice."""

    dedupe: bool
    cache_bytes: int
    cache_ttl_s: float
    keys: Keys
    shows: bool
    """Whether answers say where their rows come from."""


@define(kw_only=True, eq=False)
class Layers:
    """The layers that are in use, and the collector below them."""

    collector: BatchCollector
    submit: Submit = field(repr=False)
    """Submits a call to the first layer."""

    in_flight: InFlight | None = None
    memory: "MemoryCache | None" = None
    shared: "SharedCache | None" = None

    def learn(self, keys: Keys, *, shows: bool) -> None:
        """
        Keep rows under *keys* from now on, and forget others: the model is new.

        Args:
            keys: of the model.
            shows: whether answers say where their rows come from.
        """
        if self.in_flight is not None:
            self.in_flight.forget()
        if self.memory is not None:
            self.memory.shows = shows
            if not self.memory.keys.are(keys):
                self.memory.forget(keys)
        if self.shared is not None and not self.shared.keys.are(keys):
            self.shared.keys = keys


def make_layers(  # noqa: PLR0913
    reuse: Reuse,
    collector: BatchCollector,
    reactor: Any,
    *,
    shared: "RedisStore | None" = None,
    is_certain: Callable[[], bool],
    observer: Observer,
) -> Layers:
    """
    Return the layers above the *collector*.

    Args:
        reuse: which ones.
        collector: computes what none of them knows.
        reactor: clock and network.
        shared: remembers rows for several proxies.
        is_certain: whether the upstream is known to have the model whose rows are kept.
        observer: notified of what was not computed.
    """
    layers = Layers(collector=collector, submit=collector.submit)
    rows: dict[str, Any] = {
        "keys": reuse.keys,
        "ttl_s": reuse.cache_ttl_s,
        "is_certain": is_certain,
        "may_join": collector.may_join,
        "observer": observer,
    }
    # Layers that the settings do not ask for take no memory.
    if shared is not None:
        from abproxy.reuse.shared import SharedCache  # noqa: PLC0415

        layers.shared = SharedCache(compute=layers.submit, store=shared, **rows)
        layers.submit = layers.shared.submit
    if reuse.dedupe:
        layers.in_flight = InFlight(
            compute=layers.submit,
            is_of_collector=layers.shared is None,
            may_join=collector.may_join,
            observer=observer,
        )
        layers.submit = layers.in_flight.submit
    if reuse.cache_bytes:
        from abproxy.reuse.memory import MemoryCache  # noqa: PLC0415
        from abproxy.reuse.store import Store  # noqa: PLC0415

        layers.memory = MemoryCache(
            compute=layers.submit,
            clock=reactor,
            store=Store(max_size=reuse.cache_bytes),
            shows=reuse.shows,
            **rows,
        )
        layers.submit = layers.memory.submit
    return layers


def make_shared_store(reactor: Any, url: str) -> "RedisStore":
    """
    Return the rows that several proxies remember together, at *url*.

    Raises:
        SettingsError: a library is missing.
    """
    from abproxy.reuse.redis import (  # noqa: PLC0415
        RedisStore,
        connect,
        read_address,
    )

    try:
        client = connect(reactor, read_address(url))
    except ImportError as error:
        message = "CACHE_URL needs txredisapi: pip install 'abproxy[redis]'"
        raise SettingsError(message) from error
    return RedisStore(client=client, clock=reactor)
