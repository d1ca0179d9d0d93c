"""The rows that were computed before by any of several proxies."""

from typing import ClassVar

from attrs import define
from msgspec import DecodeError
from twisted.internet.defer import Deferred

from abproxy.dialects.call import Call, PartResult
from abproxy.reuse.cache import Cache
from abproxy.reuse.entry import Keys, key_of, unpack
from abproxy.reuse.redis import RedisStore

__all__ = ["SharedCache"]

MOST_ITEMS = 1000
"""A call of more is not looked up: it would hold up all others on the connection."""


@define(kw_only=True, eq=False)
class SharedCache(Cache):
    """Answers from a store that several proxies share, and computes the rest."""

    store: RedisStore
    source: ClassVar[str] = "shared_cache"

    def submit(self, call: Call) -> Deferred[list[PartResult]]:
        """Compute all of *call* if the store is away, or for a call that is large."""
        if self.store.is_away or len(call.items.raw) > MOST_ITEMS:
            return self.compute(call)
        return super().submit(call)

    def _answer(self, call: Call) -> Deferred[list[PartResult]]:
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
            return await self._compute_all(call)
        return await self._complete(call, known)

    def _put(self, entries: dict[bytes, bytes]) -> None:
        if not self.store.is_away:
            self.store.put(entries, self.ttl_s)


def _read(call: Call, packed: bytes | None, keys: Keys) -> PartResult | None:
    """Return the result in an entry; None if it cannot be read."""
    if packed is None:
        return None
    try:
        return unpack(call.lane_key.dialect, packed, keys)
    except (DecodeError, ValueError, UnicodeDecodeError):
        return None
