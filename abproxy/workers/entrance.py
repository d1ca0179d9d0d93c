"""
The clients' port, taken before anything else, for the workers to listen on.

The foreman lets nobody in.  It lets go of the port before the workers do, so
that a client whom nobody is going to accept is refused, and not left waiting.
"""

from typing import Any

from attrs import define, field
from twisted.internet.address import IPv4Address
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP6ClientEndpoint
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.tcp import Port

from abproxy.service import shown
from abproxy.settings import SettingsError
from abproxy.web.listen import BoundSocket, make_listener

__all__ = ["SharedPort", "make_entrance"]

TCP6 = 4
"""How many members an address has there."""


@define(eq=False)
class SharedPort:
    """A TCP port that is ours, and who holds it."""

    _held: Any

    number: int = field(init=False)
    """The file that the workers inherit."""

    host: str = field(init=False)
    port: int = field(init=False)

    def __attrs_post_init__(self) -> None:
        """Look at it while it is open."""
        socket = getattr(self._held, "socket", self._held)
        self.number = socket.fileno()
        self.host, self.port, *_ = socket.getsockname()

    @property
    def address(self) -> str:
        """Where the workers answer, as one would type it."""
        return shown(IPv4Address("TCP", self.host, self.port))

    def way_in(self, reactor: Any) -> IStreamClientEndpoint:
        """Make the way that clients take."""
        kind = TCP6ClientEndpoint if ":" in self.host else TCP4ClientEndpoint
        return kind(reactor, self.host, self.port)

    def close(self) -> None:
        """Let go of it."""
        if isinstance(self._held, Port):
            self._held.stopListening()
        else:
            self._held.close()


def make_entrance(reactor: Any, ip: str, port: str) -> SharedPort:
    """
    Take the port.

    Raises:
        SettingsError: it cannot be had, or cannot be shared.
    """
    listener = make_listener(reactor, ip, port)
    if isinstance(listener, BoundSocket):
        return SharedPort(listener.socket)
    ours = listener.port
    # A file in the place of a port would go with the first worker that ends, and
    # what else stands between a socket and HTTP is not handed over with it.
    if type(ours) is Port and ours.factory is listener.doorstep:
        return SharedPort(ours)
    listener.close()
    raise SettingsError(f"WORKERS can share a TCP port, but not {port}")
