"""
Who runs where: what is measured has a core of its own, nothing else is on it.

With three cores or more the upstream has one of its own too; with two it
shares the other with the load.  With one core all share it: then rates say
little, and only the CPU time of a call counts.
"""

import os
from collections.abc import Sequence

from attrs import frozen

__all__ = ["Cores", "share_out", "share_out_for_many", "usable"]


@frozen(kw_only=True)
class Cores:
    """The numbers of the cores for each part."""

    proxy: Sequence[int]
    upstream: Sequence[int]
    load: Sequence[int]

    def __str__(self) -> str:
        if self.proxy == self.load:
            return "all on one core"
        if len(self.upstream) > 1:
            return "proxy and load on a core each, the server on the others"
        if self.upstream == self.load:
            return "the proxy on one core, upstream and load on another"
        return "proxy, upstream and load on a core each"


def share_out(usable: Sequence[int]) -> Cores:
    """Give each part its core out of those that are *usable*."""
    first, *others = sorted(usable)
    others = others or [first]
    return Cores(proxy=[first], upstream=[others[0]], load=[others[-1]])


def share_out_for_many(usable: Sequence[int]) -> Cores:
    """Give a server that can use many cores all that the other two leave."""
    first, *others = sorted(usable)
    return (
        Cores(proxy=[first], upstream=others[:-1], load=others[-1:])
        if len(others) > 1
        else share_out(usable)
    )


def usable() -> Sequence[int]:
    """Ask which cores this process may use."""
    return sorted(os.sched_getaffinity(0))
