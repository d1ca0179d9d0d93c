"""
Messages to the service manager that has started this process, as systemd defines them.

With `Type=notify` systemd counts the service as started once it is ready, waits for
the end of a reload, and needs no package for that: a message is one datagram.
"""

import socket
import time
from collections.abc import Callable, Mapping
from contextlib import suppress

__all__ = ["READY", "STOPPING", "make_notify", "reloading"]

READY = "READY=1"
"""It serves; also sent at the end of a reload."""

STOPPING = "STOPPING=1"


def reloading() -> str:
    """Return the message that a reload begins now."""
    now = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
    return f"RELOADING=1\nMONOTONIC_USEC={now}"


def make_notify(environ: Mapping[str, str]) -> Callable[[str], None]:
    """Return what sends a message; without a service manager it does nothing."""
    address = environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return lambda _message: None
    if address.startswith("@"):
        address = "\0" + address[1:]  # Linux's abstract names

    def notify(message: str) -> None:
        # A manager that has gone, or is too busy, is no reason to fail.
        with (
            suppress(OSError),
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender,
        ):
            sender.setblocking(False)
            sender.sendto(message.encode(), address)

    return notify
