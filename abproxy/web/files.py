"""
How many files may be open: every connection is one, on either side.

A process may open 1,024 files on most systems, and many more if it asks.  If
clients could take them all, none would be left for a connection upstream, and
everybody would get a 502.
"""

import resource
from contextlib import suppress
from typing import Any

from twisted.logger import Logger

__all__ = ["SPARE", "room_for"]

SPARE = 100
"""Files for all but connections: libraries, logs, and surplus clients."""

_log = Logger()


def room_for(connections: int, system: Any = resource) -> int:
    """
    Make room for *connections* of clients, each with one of its own upstream.

    Returns:
        How many there is room for, if the system does not allow as many.
    """
    files = _allowed(2 * connections + SPARE, system)
    room = max((files - SPARE) // 2, 1)
    if room < connections:
        _log.warn(
            "MAX_CONNECTIONS is {chosen}, but only {files} files may be open: "
            "{room} connections are served",
            chosen=connections,
            files=files,
            room=room,
        )
    return min(room, connections)


def _allowed(wanted: int, system: Any) -> int:
    """Ask for *wanted* files, and say how many the system allows."""
    soft, hard = system.getrlimit(system.RLIMIT_NOFILE)
    if soft == system.RLIM_INFINITY or soft >= wanted:
        return wanted
    most = wanted if hard == system.RLIM_INFINITY else min(wanted, hard)
    with suppress(OSError, ValueError):  # some systems have one more limit
        system.setrlimit(system.RLIMIT_NOFILE, (most, hard))
        soft = most
    return int(soft)
