"""
Optimizations that use internals of Twisted, or settings of Python.

No other module depends on the internals of Twisted's connections and epoll
reactor for this.  If they differ from what is known, all is done as usual.
"""

import ctypes
import gc
import linecache
import re
import time
from collections.abc import Callable
from itertools import chain
from pathlib import Path
from resource import getpagesize
from typing import Any

from twisted.internet.abstract import FileDescriptor
from twisted.internet.interfaces import IReactorTime, ISSLTransport
from twisted.internet.tcp import Client, Connection, Server

try:
    from twisted.internet.epollreactor import EPollReactor
except ImportError:
    _KNOWN_REACTORS: tuple[type, ...] = ()
    """This system has no epoll."""
else:
    _KNOWN_REACTORS = (EPollReactor,)

__all__ = [
    "Write",
    "cut_off",
    "free_leftovers",
    "give_memory_back",
    "has_unsent",
    "skip_log_context",
    "tune_process",
    "unsent_bytes",
    "use_huge_pages",
    "use_monotonic_clock",
    "wall_clock",
    "write_later",
    "write_now",
]

Write = Callable[[Any, bytes], None]
"""Writes some bytes to a transport."""

_OF_A_CONNECTION = (
    "TLS",
    "_aborting",
    "_writeDisconnected",
    "_writeDisconnecting",
    "connected",
    "dataBuffer",
    "disconnecting",
)

_OF_A_REACTOR = ("_poller", "_selectables", "_doReadOrWrite", "doIteration")

_NO_LIMIT_S = -1.0

NEW_OBJECTS = 10_000
"""
New objects after which Python looks for garbage among them; its default is 700.

A batch in flight is a few hundred: they are freed before the search.
"""

AT_ONCE = 1 << 20
"""More is not sent in the same turn: the most of it would be left, and copied."""

LARGE_BLOCK = 1 << 20
"""From so many bytes on a piece of memory is the system's again once it is free."""

_M_MMAP_THRESHOLD = -3

HUGE_PAGE = 2 << 20
"""Bytes of a huge page, where there are any; elsewhere the kernel declines."""

ENOUGH = 15 / 16
"""A huge page of which less is in memory would take memory that is not used."""

_MADV_COLLAPSE = 25
"""Linux 6.1 and later: put a piece of memory into a huge page, at once."""

_MAPS = Path("/proc/self/maps")
_ANONYMOUS = re.compile(r"^(\w+)-(\w+) rw-p \w+ \S+ 0 *(?:\[heap\])?$", re.MULTILINE)


def _connections_look_as_known() -> bool:
    nowhere: Any = None
    has_list = hasattr(FileDescriptor(nowhere), "_tempDataBuffer")
    return has_list and all(hasattr(Connection, name) for name in _OF_A_CONNECTION)


_PLAIN = (Server, Client) if _connections_look_as_known() else ()
"""Connections of which we can tell that nothing is unsent."""


def write_later(transport: Any, data: bytes) -> None:
    """Write *data* as Twisted does."""
    transport.write(data)


def write_now(transport: Any, data: bytes) -> None:
    """
    Write *data* in this turn if the connection is plain TCP and has nothing unsent.

    Twisted puts the data into a buffer, waits until the kernel reports that the
    socket is writable, and writes then: two system calls and one turn more than
    needed, as the socket is nearly always writable.  Data that the socket does
    not accept, and all errors, are left to Twisted.
    """
    sent = 0
    if (
        isinstance(transport, _PLAIN)
        and len(data) <= AT_ONCE
        and transport.connected
        and not transport.TLS
        and not transport.disconnecting
        and not transport._writeDisconnecting  # noqa: SLF001
        and not transport._writeDisconnected  # noqa: SLF001
        and not transport._aborting  # noqa: SLF001
        and not transport.dataBuffer
        and not transport._tempDataBuffer  # noqa: SLF001
    ):
        try:
            sent = transport.socket.send(data)
        except OSError:
            sent = 0  # not writable, or closed: Twisted gets the same error
    if sent < len(data):
        transport.write(data[sent:])


def has_unsent(transport: Any) -> bool:
    """Return whether written data was not sent to the socket yet."""
    if isinstance(transport, _PLAIN):
        return bool(transport.dataBuffer or transport._tempDataBuffer)  # noqa: SLF001
    return ISSLTransport.providedBy(transport) and unsent_bytes(transport)[1] > 0


def unsent_bytes(transport: Any) -> tuple[int, int]:
    """
    Return how many bytes *transport* holds, and how many of them are not sent.

    What was sent of a buffer is held until nearly all of it was.  Under TLS it is
    the buffer below that fills.
    """
    below = getattr(transport, "transport", None) or transport
    later = sum(map(len, getattr(transport, "_appSendBuffer", ())))
    held = len(getattr(below, "dataBuffer", b"")) + later
    held += getattr(below, "_tempDataLen", 0)
    return held, held - getattr(below, "offset", 0)


def cut_off(transport: Any) -> None:
    """
    Close *transport* at once, and forget what was not sent.

    A closed connection may stay until the garbage collector finds it.
    """
    transport.abortConnection()
    below = getattr(transport, "transport", None) or transport
    if isinstance(below, _PLAIN):
        below.dataBuffer, below.offset = b"", 0
        below._tempDataBuffer, below._tempDataLen = [], 0  # noqa: SLF001


def skip_log_context(reactor: Any) -> None:
    """
    Make *reactor* dispatch events without a logging context around each.

    The context names the connection of an event, for lines in Twisted's old log.
    Our own lines do not need it, and it takes 1 to 2 µs each time, where a whole
    call takes 30.
    """
    if not _is_known(reactor):
        return
    poll, connections = reactor._poller.poll, reactor._selectables  # noqa: SLF001
    read_or_write = reactor._doReadOrWrite  # noqa: SLF001

    def wait(timeout_s: float | None) -> None:
        longest_s = _NO_LIMIT_S if timeout_s is None else timeout_s
        for number, event in poll(longest_s, len(connections)):
            # An earlier event may have closed the connection.
            if number in connections:
                read_or_write(connections[number], number, event)

    reactor.doIteration = wait


def _is_known(reactor: Any) -> bool:
    has_all = all(hasattr(reactor, name) for name in _OF_A_REACTOR)
    return type(reactor) in _KNOWN_REACTORS and has_all


def use_monotonic_clock(reactor: Any) -> None:
    """
    Make the timers of *reactor* independent of the time of day.

    Twisted's own clock is the time of day: set back, all that waits would wait longer
    by as much; set forward, all that is in flight would be too late.  It is to be
    called before the first timer is made; what needs a date asks for that itself.
    """
    reactor.seconds = time.monotonic


def wall_clock(clock: IReactorTime) -> Callable[[], float]:
    """Return what tells the time of day, whatever the timers of *clock* go by."""
    seconds: Callable[[], float] = clock.seconds
    return time.time if seconds is time.monotonic else seconds


def give_memory_back() -> None:
    """
    Give large pieces of memory back to the system as soon as they are free.

    The C library does so at first, but keeps pieces as large as the largest that was
    ever freed: a few bodies of some megabytes, and it holds what all of them took at
    their peak, with holes between them.  Other C libraries than glibc have no such
    setting, and need none.
    """
    set_option = getattr(ctypes.CDLL(None), "mallopt", None)
    if set_option is not None:
        set_option(_M_MMAP_THRESHOLD, LARGE_BLOCK)


def free_leftovers() -> None:
    """
    Free what imports have left behind; what is imported next takes its place.

    Of each class with slots attrs leaves the first form, and for debuggers the source
    of the methods that it has written.
    """
    linecache.clearcache()
    gc.collect()


def use_huge_pages() -> int:
    """
    Put what is in memory now into huge pages; return how many bytes that are.

    After a pause the CPU has lost where the pages of this process are, as well as
    what is in them, and looking that up again takes it a fifth of the time of a lone
    call.  Pieces with holes are left out, as stacks of threads are, so the process
    grows by some hundred kilobytes.  What the kernel declines stays as it is.
    """
    libc: Any = ctypes.CDLL(None)
    if not hasattr(libc, "madvise") or not _MAPS.exists():
        return 0
    libc.madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    maps = _MAPS.read_text()
    pages = chain.from_iterable(_pages(*each) for each in _ANONYMOUS.findall(maps))
    full = [page for page in pages if _share_in_memory(libc, page) >= ENOUGH]
    asked = [libc.madvise(page, HUGE_PAGE, _MADV_COLLAPSE) for page in full]
    return HUGE_PAGE * asked.count(0)


def _share_in_memory(libc: Any, page: int) -> float:
    """Return how much of the huge page that begins here is in memory now."""
    libc.mincore.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_void_p)
    pages = (ctypes.c_ubyte * (HUGE_PAGE // getpagesize()))()
    libc.mincore(page, HUGE_PAGE, pages)
    return sum(each & 1 for each in pages) / len(pages)


def _pages(begins: str, ends: str) -> range:
    first = -(-int(begins, 16) // HUGE_PAGE) * HUGE_PAGE
    return range(first, int(ends, 16) - HUGE_PAGE + 1, HUGE_PAGE)


def tune_process(
    reactor: Any, *, skips_log_context: bool, has_huge_pages: bool = True
) -> None:
    """
    Prepare this process for serving, once everything is imported.

    Python now and then searches all objects for unused cycles.  With everything
    imported that takes 10 to 20 ms, during which all calls wait; and none of these
    objects becomes garbage while the process runs.
    """
    if skips_log_context:
        skip_log_context(reactor)
    give_memory_back()
    free_leftovers()
    gc.freeze()
    gc.set_threshold(NEW_OBJECTS)
    if has_huge_pages:
        use_huge_pages()
