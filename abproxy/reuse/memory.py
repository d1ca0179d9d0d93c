"""
The rows that were computed before, in the memory of the proxy.

Each item is looked up by itself: a call of a hundred of which three are not known
asks for three.  Failures are never kept, nor what travels alone.
"""

from collections.abc import Callable

from attrs import define, field
from msgspec.structs import replace
from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorTime

from abproxy.dialects.call import Call, MayJoin, PartResult, may_join_all
from abproxy.events import Observer
from abproxy.http.messages import HeaderList, Response
from abproxy.reuse.entry import Keys, keep, key_of, unpack
from abproxy.reuse.rows import Submit, ask_for_rest, has_rows, span
from abproxy.reuse.store import Store

__all__ = ["MemoryCache"]

HIT = ((b"X-Cache", b"hit"),)
PARTIAL = ((b"X-Cache", b"partial"),)
MISS = ((b"X-Cache", b"miss"),)
"""How an answer says where its rows come from."""


def _certain() -> bool:
    return True


@define(kw_only=True, eq=False)
class MemoryCache:
    """Answers from memory what it can, and lets the rest be computed."""

    compute: Submit = field(repr=False)
    clock: IReactorTime = field(repr=False)
    store: Store[bytes]
    keys: Keys
    ttl_s: float
    """For how long a row is kept."""

    shows: bool = True
    """Whether answers say by `X-Cache` where they come from."""

    is_certain: Callable[[], bool] = field(default=_certain, repr=False)
    """Whether the upstream is known to have the model whose rows are kept."""

    may_join: MayJoin = field(default=may_join_all, repr=False)

    observer: Observer = field(factory=Observer, repr=False)
    _marked: tuple[Response, Response] | None = field(
        init=False, default=None, repr=False
    )
    """The last answer of the upstream, and as it is marked for its callers."""

    def submit(self, call: Call) -> Deferred[list[PartResult]]:
        """
        Compute what is not known of *call*; fires with its results.

        Raises:
            Overloaded: there is no room for what is to be computed.
        """
        if call.lane_key.serial or not call.may_be_kept:
            return self.compute(call)
        if not call.may_be_known or not self.is_certain():
            return self._compute(call)
        known, places = self._look_up(call)
        if not known:
            return self._compute(call)
        found = len(call.items.raw) - len(places)
        self.observer.reused("cache", found, call.trace)
        if not places:
            return succeed(span(call, known))
        rest = ask_for_rest(call, known, places, self._keep_computed, self.may_join)
        return rest.addCallback(self._mark, PARTIAL)

    def forget(self, keys: Keys) -> None:
        """Forget all rows, as the upstream has another model."""
        self.keys = keys
        self.store.clear()

    def _look_up(self, call: Call) -> tuple[dict[bytes, PartResult], list[int]]:
        """Return the rows that are known, and the places of those that are not."""
        keys, now = self.keys, self.clock.seconds()
        prefix = keys.prefix(call)
        packed: dict[bytes, bytes] = {}
        places: list[int] = []
        for place, item in enumerate(call.items.raw):
            if item in packed:
                continue
            entry = self.store.get(key_of(prefix, item), now)
            if entry is None:
                places.append(place)
            else:
                packed[item] = entry
        dialect = call.lane_key.dialect
        marks = HIT if self.shows and not places else ()
        known = {
            item: unpack(dialect, each, keys, marks) for item, each in packed.items()
        }
        return known, places

    def _mark(self, results: list[PartResult], mark: HeaderList) -> list[PartResult]:
        """Add the lines *mark* to good *results*: where their rows come from."""
        if not self.shows or not has_rows(results):
            return results
        first, response = results[0], results[0].response
        if self._marked is None or self._marked[0] is not response:
            lines = (*response.headers, *mark)
            self._marked = response, replace(response, headers=lines)
        return [replace(first, response=self._marked[1]), *results[1:]]

    def _compute(self, call: Call) -> Deferred[list[PartResult]]:
        return self._keep_computed(call).addCallback(self._mark, MISS)

    def _keep_computed(self, call: Call) -> Deferred[list[PartResult]]:
        keys = self.keys
        return self.compute(call).addCallback(self._keep, call, keys)

    def _keep(
        self, results: list[PartResult], call: Call, keys: Keys
    ) -> list[PartResult]:
        """Store the rows of good *results*, and return these."""

        def put(entries: dict[bytes, bytes]) -> None:
            if self.keys is keys:
                expires_at = self.clock.seconds() + self.ttl_s
                for key, packed in entries.items():
                    self.store.put(key, packed, len(packed), expires_at)

        return keep(call, results, keys, self.may_join, put)
