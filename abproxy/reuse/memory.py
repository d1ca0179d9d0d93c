"""The rows that were computed before, in the memory of the proxy."""

from typing import ClassVar

from attrs import define, field
from msgspec.structs import replace
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from abproxy.dialects.call import Call, PartResult
from abproxy.http.messages import HeaderList, Response
from abproxy.reuse.cache import Cache
from abproxy.reuse.entry import Keys, key_of, unpack
from abproxy.reuse.rows import has_rows
from abproxy.reuse.store import Store

__all__ = ["MemoryCache"]

HIT = ((b"X-Cache", b"hit"),)
PARTIAL = ((b"X-Cache", b"partial"),)
MISS = ((b"X-Cache", b"miss"),)
"""How an answer says where its rows come from."""


@define(kw_only=True, eq=False)
class MemoryCache(Cache):
    """Answers from memory what it can, and lets the rest be computed."""

    clock: IReactorTime = field(repr=False)
    store: Store[bytes]

    shows: bool = True
    """Whether answers say by `X-Cache` where they come from."""

    source: ClassVar[str] = "cache"
    _marked: tuple[Response, Response] | None = field(
        init=False, default=None, repr=False
    )
    """The last answer of the upstream, and as it is marked for its callers."""

    def forget(self, keys: Keys) -> None:
        """Forget all rows, as the upstream has another model."""
        self.keys = keys
        self.store.clear()

    def _answer(self, call: Call) -> Deferred[list[PartResult]]:
        packed, items = self._look_up(call), call.items.raw
        if not packed:
            return self._compute_all(call)
        is_whole = all(item in packed for item in items)
        dialect, keys = call.lane_key.dialect, self.keys
        marks = HIT if self.shows and is_whole else ()
        known = {
            item: unpack(dialect, each, keys, marks) for item, each in packed.items()
        }
        answer = self._complete(call, known)
        return answer if is_whole else answer.addCallback(self._mark, PARTIAL)

    def _look_up(self, call: Call) -> dict[bytes, bytes]:
        """Return the entries of those items of *call* that are known."""
        prefix, now = self.keys.prefix(call), self.clock.seconds()
        packed: dict[bytes, bytes] = {}
        for item in call.items.raw:
            if item not in packed:
                entry = self.store.get(key_of(prefix, item), now)
                if entry is not None:
                    packed[item] = entry
        return packed

    def _compute_all(self, call: Call) -> Deferred[list[PartResult]]:
        return self._compute(call).addCallback(self._mark, MISS)

    def _mark(self, results: list[PartResult], mark: HeaderList) -> list[PartResult]:
        """Add the lines *mark* to good *results*: where their rows come from."""
        if not self.shows or not has_rows(results):
            return results
        first, response = results[0], results[0].response
        if self._marked is None or self._marked[0] is not response:
            lines = (*response.headers, *mark)
            self._marked = response, replace(response, headers=lines)
        return [replace(first, response=self._marked[1]), *results[1:]]

    def _put(self, entries: dict[bytes, bytes]) -> None:
        expires_at = self.clock.seconds() + self.ttl_s
        for key, packed in entries.items():
            self.store.put(key, packed, len(packed), expires_at)
