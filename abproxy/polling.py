"""
Events go straight to their connections.

Around every event Twisted puts a context that says which connection it is
about, for lines that are written to its old log meanwhile: 1 to 2 µs each time,
which is felt where a call costs 30.  Our own lines say themselves what they are
about.  This is the one place that knows how Twisted's epoll reactor looks
inside; another reactor, or one that looks in another way, is left as it is.
"""

from typing import Any

__all__ = ["poll_directly"]

try:
    from twisted.internet.epollreactor import EPollReactor
except ImportError:
    _KNOWN: tuple[type, ...] = ()
    """This system has no epoll."""
else:
    _KNOWN = (EPollReactor,)

FOREVER_S = -1.0

_PARTS = ("_poller", "_selectables", "_doReadOrWrite", "doIteration")


def poll_directly(reactor: Any) -> None:
    """Let *reactor* hand events on without a context around each."""
    if not _looks_as_known(reactor):
        return
    poll, connections = reactor._poller.poll, reactor._selectables  # noqa: SLF001
    read_or_write = reactor._doReadOrWrite  # noqa: SLF001

    def wait(timeout_s: float | None) -> None:
        longest_s = FOREVER_S if timeout_s is None else timeout_s
        for number, event in poll(longest_s, len(connections)):
            # What came before it may have closed the connection.
            if number in connections:
                read_or_write(connections[number], number, event)

    reactor.doIteration = wait


def _looks_as_known(reactor: Any) -> bool:
    return type(reactor) in _KNOWN and all(hasattr(reactor, part) for part in _PARTS)
