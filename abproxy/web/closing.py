"""
Closing a port without losing a connection.

A client is connected as soon as the kernel has shaken hands with it, and may have
sent a call by then.  When the port is closed, the kernel resets all connections
that were not accepted, those that came a microsecond ago included.  So the kernel
is told first to begin no new ones, and then those that are there are accepted.
"""

import ctypes
import socket
import struct
from contextlib import suppress
from typing import Any

from twisted.internet.defer import maybeDeferred
from twisted.internet.task import deferLater
from twisted.internet.tcp import Port

from abproxy.web.listen import BACKLOG

__all__ = ["close_port"]

HANDSHAKE_S = 0.2
"""
How long clients whose handshake has begun have to finish it, in seconds.

One way there and back, and some: a new connection that was not let in tries again
after one second (RFC 6298, 2.1), and is refused then.
"""

_SO_ATTACH_FILTER = 26
"""Of Linux, include/uapi/asm-generic/socket.h."""

_DROP_NEW = b"".join(
    struct.pack("HBBI", *instruction)
    for instruction in (
        (0x30, 0, 0, 13),  # load the byte of the TCP header with the flags
        (0x54, 0, 0, 0x12),  # keep SYN and ACK of them
        (0x15, 0, 1, 0x02),  # SYN alone begins a connection:
        (0x06, 0, 0, 0),  # drop it
        (0x06, 0, 0, 0xFFFFFFFF),  # accept all else, whole
    )
)
"""
A filter of packets (struct sock_filter of linux/filter.h).

What it sees of a TCP socket begins with the TCP header (RFC 9293, 3.1).
"""


async def close_port(reactor: Any, port: Any, *, refuses: bool = False) -> None:
    """
    Stop listening, but accept all who have connected already.

    Args:
        reactor: the clock.
        port: what listens.
        refuses: whether the kernel begins no new connections from now on; not where
            others listen on the same socket, such as systemd or another worker.
    """
    if refuses and _begin_no_connection(port):
        await deferLater(reactor, HANDSHAKE_S)
    # Twisted closes it in the next turn, with what is called here before.
    reactor.callLater(0, _accept_backlog, port)
    await maybeDeferred(port.stopListening)


def _begin_no_connection(port: Any) -> bool:
    """Have the kernel drop the packets that begin a connection, if it can."""
    if not isinstance(port, Port) or not port.connected:
        return False
    if port.addressFamily not in {socket.AF_INET, socket.AF_INET6}:
        return False
    code = ctypes.create_string_buffer(_DROP_NEW, len(_DROP_NEW))
    count = len(_DROP_NEW) // struct.calcsize("HBBI")
    program = struct.pack("HP", count, ctypes.addressof(code))
    with suppress(OSError):  # only Linux has it
        port.socket.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)
        return True
    return False


def _accept_backlog(port: Any) -> None:
    if isinstance(port, Port) and port.connected:
        # By itself it accepts no more at once than came lately.
        port.numberAccepts = BACKLOG
        Port.doRead(port)
