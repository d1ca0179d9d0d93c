"""
Writing to a connection in the same turn, where Twisted would wait for the next.

Twisted takes what is written into a buffer, asks the kernel to say when the
socket has room, and writes then: two system calls and one turn more than it
takes when the socket has room anyway, which is nearly always.  This is the
one place that knows how a Twisted connection looks inside; where it looks in
another way, or somebody else is to write, it is written as usual.
"""

from collections.abc import Callable
from socket import socket
from typing import Any

from twisted.internet.abstract import FileDescriptor
from twisted.internet.tcp import Client, Connection, Server

__all__ = ["Write", "has_unsent", "write_at_once", "write_later"]

Write = Callable[[Any, bytes], None]
"""Write some bytes to a transport."""

_CLASS = (
    "TLS",
    "_aborting",
    "_writeDisconnected",
    "_writeDisconnecting",
    "connected",
    "dataBuffer",
    "disconnecting",
)


def _looks_as_known() -> bool:
    nowhere: Any = None
    has_list = hasattr(FileDescriptor(nowhere), "_tempDataBuffer")
    return has_list and all(hasattr(Connection, name) for name in _CLASS)


_PLAIN = (Server, Client) if _looks_as_known() else ()
"""Connections of which we know when they have nothing else to write."""


def write_later(transport: Any, data: bytes) -> None:
    """Write *data* as Twisted does."""
    transport.write(data)


def write_at_once(transport: Any, data: bytes) -> None:
    """
    Write *data* now if the connection is plain TCP and has nothing else to write.

    What the socket does not take, and whatever is wrong with it, is left to
    Twisted, which tells the protocol in its own time.
    """
    sent = _send(transport.socket, data) if _is_clear(transport) else 0
    if sent < len(data):
        transport.write(data[sent:])


def _send(line: socket, data: bytes) -> int:
    try:
        return line.send(data)
    except OSError:
        return 0  # no room, or nobody there: Twisted meets the same


def has_unsent(transport: Any) -> bool:
    """Whether something is written that the socket has not taken yet."""
    return isinstance(transport, _PLAIN) and bool(
        transport.dataBuffer or transport._tempDataBuffer  # noqa: SLF001
    )


def _is_clear(transport: Any) -> bool:
    return (
        isinstance(transport, _PLAIN)
        and bool(transport.connected)
        and not transport.TLS
        and not transport.disconnecting
        and not transport._writeDisconnecting  # noqa: SLF001
        and not transport._writeDisconnected  # noqa: SLF001
        and not transport._aborting  # noqa: SLF001
        and not has_unsent(transport)
    )
