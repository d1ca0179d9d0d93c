"""The rows that were computed before by any of several proxies."""

from collections.abc import Callable

from attrs import define, field
from msgspec import DecodeError
from twisted.internet.defer import Deferred

from abproxy.dialects.call import Call, MayJoin, PartResult, may_join_all
from abproxy.events import Observer
from abproxy.reuse.entry import Keys, keep, key_of, unpack
from abproxy.reuse.redis import RedisStore
from abproxy.reuse.rows import Submit, ask_for_rest, span

__all__ = ["SharedCache"]

MOST_ITEMS = 1000
"""A call of more is not looked up: it would hold up all others on the connection."""


@define(kw_only=True, eq=False)
class SharedCache:
    """Answers from a store that several proxies share, and computes the rest."""

    compute: Submit = field(repr=False)
    store: RedisStore
    keys: Keys
    ttl_s: float
    is_certain: Callable[[], bool] = field(repr=False)
    """Whether the upstream is known to have the model whose rows are kept."""

    may_join: MayJoin = field(default=may_join_all, repr=False)
    observer: Observer = field(factory=Observer, repr=False)

    def submit(self, call: Call) -> Deferred[list[PartResult]]:
        """
        Compute what is not known of *call*; fires with its results.

        Raises:
            Overloaded: there is no room for what is to be computed.
        """
        is_plain = call.may_be_kept and not call.lane_key.serial
        if not is_plain or self.store.is_away or len(call.items.raw) > MOST_ITEMS:
            return self.compute(call)
        if not call.may_be_known or not self.is_certain():
            return self._compute(call)
        return Deferred.fromCoroutine(self._look_up(call))

    async def _look_up(self, call: Call) -> list[PartResult]:
        keys, items = self.keys, list(dict.fromkeys(call.items.raw))
        prefix = keys.prefix(call)
        found = await self.store.get([key_of(prefix, item) for item in items])
        known: dict[bytes, PartResult] = {}
        for item, packed in zip(items, found, strict=True):
            result = _read(call, packed, keys)
            if result is not None:
                known[item] = result
        if not known or self.keys is not keys:
            return await self._compute(call)
        places = [at for at, item in enumerate(call.items.raw) if item not in known]
        found_items = len(call.items.raw) - len(places)
        self.observer.reused("shared_cache", found_items, call.trace)
        if not places:
            return span(call, known)
        return await ask_for_rest(call, known, places, self._compute, self.may_join)

    def _compute(self, call: Call) -> Deferred[list[PartResult]]:
        return self.compute(call).addCallback(self._keep, call, self.keys)

    def _keep(
        self, results: list[PartResult], call: Call, keys: Keys
    ) -> list[PartResult]:
        """Store the rows of good *results*, and return these."""

        def put(entries: dict[bytes, bytes]) -> None:
            if self.keys is keys and not self.store.is_away:
                self.store.put(entries, self.ttl_s)

        return keep(call, results, keys, self.may_join, put)


def _read(call: Call, packed: bytes | None, keys: Keys) -> PartResult | None:
    """Return the result in an entry; None if it cannot be read."""
    if packed is None:
        return None
    try:
        return unpack(call.lane_key.dialect, packed, keys)
    except (DecodeError, ValueError, UnicodeDecodeError):
        return None
