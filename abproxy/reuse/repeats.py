"""
Counts inputs that are asked for again, which tells whether a cache would help.

Only one item in so many is looked at, chosen by its hash, so that all calls with that
item are.  The hashes of the last ones are kept, and no text.
"""

from attrs import define, field

__all__ = ["NOT_SAMPLED", "Repeats"]

NOT_SAMPLED = 31
"""An item counts if these bits of its hash are zero: one in 32."""

MOST = 4096
"""So many hashes are kept twice: a repeat is seen among the last 130,000 items."""


@define(eq=False)
class Repeats:
    """The items that were asked for lately, out of those that are looked at."""

    _seen: set[int] = field(init=False, factory=set, repr=False)
    _before: set[int] = field(init=False, factory=set, repr=False)

    def note(self, item: int) -> bool:
        """Note one item by its hash, and return whether it was noted before."""
        is_repeated = item in self._seen or item in self._before
        if len(self._seen) >= MOST:
            self._before, self._seen = self._seen, set()
        self._seen.add(item)
        return is_repeated
