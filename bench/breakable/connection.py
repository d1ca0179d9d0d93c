"""
One connection of a client: HTTP/1.1 as plainly as it can be written.

Written by hand, because no HTTP library lets one stop in the middle of a head.
Bodies need a `Content-Length`.
"""

from typing import Any, Protocol

from attrs import define, field
from twisted.internet import protocol
from twisted.internet.interfaces import IDelayedCall
from twisted.python.failure import Failure

from bench.breakable.messages import Delivery, Request
from bench.breakable.work import Task

__all__ = ["Connection", "Server"]

END = b"\r\n\r\n"


class Server(Protocol):
    """What answers."""

    def opened(self, connection: "Connection") -> None:
        """Note a new connection."""

    def asked(self, connection: "Connection", request: Request) -> None:
        """A whole request is here."""

    def kept(self, connection: "Connection") -> None:
        """An answer is on its way, and another request may come."""

    def lost(self, connection: "Connection") -> None:
        """The connection is no more."""


@define(eq=False)
class Connection(protocol.Protocol):
    """One request after the other."""

    server: Server
    transport: Any = field(init=False, default=None)
    task: Task | None = field(init=False, default=None)
    """What is computed for it at the moment."""

    is_busy: bool = field(init=False, default=False)
    """Whether an answer is owed."""

    asked: bytes = field(init=False, default=b"", repr=False)
    """The body of the last request."""

    timer: IDelayedCall | None = field(init=False, default=None)
    """When a gateway in between will answer, if nothing else does before."""

    patience: IDelayedCall | None = field(init=False, default=None)
    """When it will have been idle for too long."""

    _received: bytearray = field(init=False, factory=bytearray)

    def connectionMade(self) -> None:  # noqa: D102
        self.server.opened(self)

    def dataReceived(self, data: bytes) -> None:  # noqa: D102
        self._received += data
        self._read_on()

    def connectionLost(self, reason: Failure = protocol.connectionDone) -> None:  # noqa: ARG002, D102
        self._be_idle_no_more()
        self.server.lost(self)

    def deliver(self, delivery: Delivery) -> None:
        """Send what is left of an answer."""
        if delivery.data:
            self.transport.write(delivery.data)
        if delivery.then == "stall":
            return
        self.is_busy = False
        if delivery.then == "close":
            self.transport.loseConnection()
        else:
            self.server.kept(self)
            self._read_on()

    def cut(self) -> None:
        """Reset the connection, whatever is owed."""
        self.is_busy = False
        self.transport.abortConnection()

    def _be_idle_no_more(self) -> None:
        if self.patience is not None and self.patience.active():
            self.patience.cancel()

    def _read_on(self) -> None:
        if self.is_busy:
            return
        head, end, rest = bytes(self._received).partition(END)
        if not end:
            return
        first, *lines = head.split(b"\r\n")
        pairs = (line.partition(b":") for line in lines)
        headers = {name.strip().lower(): value.strip() for name, _, value in pairs}
        length = int(headers.get(b"content-length", b"0"))
        if len(rest) < length:
            return
        self._received = bytearray(rest[length:])
        self.is_busy = True
        self._be_idle_no_more()
        method, path, _version = first.split(b" ", 2)
        path, _, _query = path.partition(b"?")
        request = Request(method=method, path=path, headers=headers, body=rest[:length])
        self.asked = request.body
        self.server.asked(self, request)
