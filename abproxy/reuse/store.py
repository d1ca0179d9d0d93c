"""
A store in memory, bounded in bytes, that a single scan does not empty.

The eviction is S3-FIFO (Yang, Zhang, Qiu, Yue and Vigfusson, "FIFO queues are all
you need for cache eviction", SOSP 2023): what is new waits in a small queue, and
only what is asked for again moves to the main one; a key that was dropped lately
goes there at once.  Most texts of an import are never asked for again, and they do
not push out the queries that are, as they would in an LRU.  A hit is one look-up and
moves nothing.
"""

from collections import deque
from typing import Generic, TypeVar

from attrs import define, field

__all__ = ["OVERHEAD", "Store"]

OVERHEAD = 400
"""Bytes that an entry takes besides its value: its key, objects, places in queues."""

SMALL = 10
"""The small queue holds one part in so many."""

MOST_HITS = 3
"""So many hits of an entry are counted: each keeps it for one more round."""

_Value = TypeVar("_Value")


@define(eq=False)
class _Entry(Generic[_Value]):
    value: _Value
    size: int
    expires_at: float
    hits: int = 0
    is_main: bool = False


@define(kw_only=True, eq=False)
class Store(Generic[_Value]):
    """Values by key, of which those are kept that are asked for again."""

    max_size: int
    """In bytes, with everything that an entry takes."""

    size: int = field(default=0, init=False)
    _entries: dict[bytes, _Entry[_Value]] = field(init=False, factory=dict, repr=False)
    _small: deque[bytes] = field(init=False, factory=deque, repr=False)
    _main: deque[bytes] = field(init=False, factory=deque, repr=False)
    _ghosts: deque[bytes] = field(init=False, factory=deque, repr=False)
    _dropped: set[bytes] = field(init=False, factory=set, repr=False)
    _small_size: int = field(default=0, init=False)

    def __len__(self) -> int:
        """Return how many values there are, expired ones among them."""
        return len(self._entries)

    def get(self, key: bytes, now: float) -> _Value | None:
        """Return the value of *key*, if there is one that has not expired."""
        entry = self._entries.get(key)
        if entry is None or entry.expires_at <= now:
            return None
        if entry.hits < MOST_HITS:
            entry.hits += 1
        return entry.value

    def put(self, key: bytes, value: _Value, size: int, expires_at: float) -> None:
        """Store *value*, which has *size* bytes, unless it alone is too large."""
        size += OVERHEAD
        if size * SMALL > self.max_size:
            return
        entry = self._entries.get(key)
        if entry is not None:
            self._resize(entry, size)
            entry.value, entry.expires_at = value, expires_at
        else:
            self._insert(key, _Entry(value, size, expires_at))
        while self.size > self.max_size:
            self._evict()

    def clear(self) -> None:
        """Remove all entries."""
        self._entries.clear()
        for queue in (self._small, self._main, self._ghosts):
            queue.clear()
        self._dropped.clear()
        self.size = self._small_size = 0

    def _insert(self, key: bytes, entry: _Entry[_Value]) -> None:
        entry.is_main = key in self._dropped
        self._entries[key] = entry
        (self._main if entry.is_main else self._small).append(key)
        self.size += entry.size
        if not entry.is_main:
            self._small_size += entry.size

    def _resize(self, entry: _Entry[_Value], size: int) -> None:
        grown = size - entry.size
        entry.size = size
        self.size += grown
        if not entry.is_main:
            self._small_size += grown

    def _evict(self) -> None:
        """Drop an entry, or move one on so that another can be dropped."""
        if self._small_size * SMALL >= self.max_size or not self._main:
            self._evict_small()
        else:
            self._evict_main()

    def _evict_small(self) -> None:
        key = self._small.popleft()
        entry = self._entries[key]
        self._small_size -= entry.size
        if entry.hits:
            entry.hits, entry.is_main = 0, True
            self._main.append(key)
        else:
            self._drop(key, entry)
            self._remember(key)

    def _evict_main(self) -> None:
        key = self._main.popleft()
        entry = self._entries[key]
        if entry.hits:
            entry.hits -= 1
            self._main.append(key)
        else:
            self._drop(key, entry)

    def _drop(self, key: bytes, entry: _Entry[_Value]) -> None:
        del self._entries[key]
        self.size -= entry.size

    def _remember(self, key: bytes) -> None:
        """Remember a key that was dropped, of as many as there are entries."""
        self._ghosts.append(key)
        self._dropped.add(key)
        while len(self._ghosts) > len(self._entries) + 1:
            self._dropped.discard(self._ghosts.popleft())
