"""
The clients' port: the supervisor opens it, and all workers accept on it.

With sockets of their own (SO_REUSEPORT) connections that wait to be accepted
by a worker would be lost with it, and a port that another proxy has would not
be in use.  On a shared socket no worker takes waiting connections along when
it dies, and whichever has time accepts.

By itself one worker then often takes a whole crowd, as it looks first, and
keeps it as long as connections are kept.  So a worker takes one at a time, and
leaves it to those who have fewer for as long as they take any: only when a
moment has passed and none of them came, it takes one itself.
"""

import mmap
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

from attrs import define, field
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, succeed
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP6ClientEndpoint
from twisted.internet.interfaces import IListeningPort, IStreamClientEndpoint
from twisted.internet.tcp import Port

from abproxy.errors import SettingsError
from abproxy.http.openssl import TlsEndpoint
from abproxy.web.listen import PROXY_HEADER, BoundSocket, make_listener, shown
from abproxy.web.proxy_header import SpeakingForItself

__all__ = ["ConnectionCounts", "SharedPort", "WorkerSocket", "open_shared_port"]

# In the supervisor


@define(eq=False)
class SharedPort:
    """
    The open TCP port of the clients, which the supervisor does not accept on.

    It is closed before the workers close theirs, so that a client is refused
    rather than left waiting for a worker that will not accept it.
    """

    _held: Any
    has_tls: bool = False
    """Whether the workers speak TLS on it."""

    has_header: bool = False
    """Whether each connection begins with a PROXY header, which the workers read."""

    fd: int = field(init=False)
    """The file descriptor that the workers inherit."""

    host: str = field(init=False)
    port: int = field(init=False)

    def __attrs_post_init__(self) -> None:
        """Ask for the address while the socket is open."""
        socket = getattr(self._held, "socket", self._held)
        self.fd = socket.fileno()
        self.host, self.port, *_ = socket.getsockname()

    @property
    def address(self) -> str:
        """The URL where the workers answer."""
        scheme = "https" if self.has_tls else "http"
        return shown(IPv4Address("TCP", self.host, self.port), scheme)

    def endpoint(self, reactor: Any) -> IStreamClientEndpoint:
        """Return an endpoint that connects as a client would."""
        kind = TCP6ClientEndpoint if ":" in self.host else TCP4ClientEndpoint
        endpoint: IStreamClientEndpoint = kind(reactor, self.host, self.port)
        if self.has_header:
            endpoint = SpeakingForItself(endpoint)
        if not self.has_tls:
            return endpoint
        from abproxy.web.tls import Unverified  # noqa: PLC0415  large

        return TlsEndpoint(Unverified(), endpoint)

    def close(self) -> None:
        """Close the supervisor's own file descriptor."""
        if isinstance(self._held, Port):
            self._held.stopListening()
        else:
            self._held.close()


def open_shared_port(reactor: Any, ip: str, port: str) -> SharedPort:
    """
    Open the port, before anything else is done.

    Raises:
        SettingsError: it cannot be had, or cannot be shared.
    """
    listener = make_listener(reactor, ip, port)
    if isinstance(listener, BoundSocket):
        return SharedPort(listener.socket)
    has_header = port.startswith(PROXY_HEADER)
    ours = listener.port
    # A file in the place of a port would go with the first worker that ends, and
    # what else stands between a socket and HTTP is not handed over with it.
    if type(ours) is Port and ours.factory is listener.placeholder:
        return SharedPort(ours, has_header=has_header)
    listener.close()
    raise SettingsError(f"WORKERS can share a TCP port, but not {port}")


# Between the workers

SIZE = 8
"""Bytes of a number."""

NOT_RUNNING = (1 << 63) - 1
"""The count of a worker that is not there: more than any may have."""


@define(eq=False)
class ConnectionCounts:
    """
    The number of connections of each worker.

    A few numbers in a file that all workers have in memory: to write one's own
    and to read the others costs nothing.
    """

    _numbers: memoryview = field(repr=False)

    @classmethod
    def at(cls, file: Path, workers: int) -> "ConnectionCounts":
        """Share the numbers in *file*, which is made if it is not there."""
        with file.open("a+b") as stream:
            stream.truncate(workers * SIZE)
            shared = mmap.mmap(stream.fileno(), workers * SIZE)
        return cls(memoryview(shared).cast("q"))

    def set(self, name: str, connections: int) -> None:
        """Publish how many connections a worker has."""
        self._numbers[int(name) - 1] = connections

    def remove(self, name: str) -> None:
        """Leave no connection to a worker that is not running."""
        self.set(name, NOT_RUNNING)

    def fewer(self, than: int) -> list[int]:
        """Return the counts that are smaller *than* that."""
        return [number for number in self._numbers if number < than]


# In a worker

YIELD_S = 0.001
"""For how long a connection is left to the others, in seconds."""


@define(kw_only=True, eq=False)
class WorkerSocket:
    """The shared port in one worker, which inherited it."""

    reactor: Any
    fd: int
    name: str
    """The name of this worker."""

    counts: ConnectionCounts
    on_listening: Callable[[], None] = lambda: None

    def listen(self, factory: Any) -> Deferred[IListeningPort]:
        """Begin to accept clients."""
        with socket.socket(fileno=self.fd) as inherited:
            port: Any = self.reactor.adoptStreamPort(self.fd, inherited.family, factory)
        accepting = _FairAccepting(self, port, factory.channels)
        self.counts.set(self.name, 0)
        port.doRead = accepting.accept
        self.on_listening()
        return succeed(port)


@define(eq=False)
class _FairAccepting:
    """Decides when this worker accepts a connection that waits."""

    ours: WorkerSocket
    port: Any
    connections: Any
    _left_in_vain: list[int] = field(factory=list)
    """The counts of those who did not come for the last connection."""

    def accept(self) -> None:
        """Accept one connection, unless others should."""
        counts, name = self.ours.counts, self.ours.name
        has = len(self.connections)
        counts.set(name, has)
        fewer = counts.fewer(has)
        if fewer and fewer != self._left_in_vain:
            self.port.stopReading()
            self.ours.reactor.callLater(YIELD_S, self._look_again, fewer)
            return
        # By itself it would take more at once after each time that many came.
        self.port.numberAccepts = 1
        Port.doRead(self.port)
        counts.set(name, len(self.connections))
        self._left_in_vain = []

    def _look_again(self, fewer: list[int]) -> None:
        """Accept one of those that still wait, if the others took none."""
        self._left_in_vain = fewer
        # For one look, however long that takes: what comes later is left to them.
        self.ours.reactor.callLater(0, self._has_looked)
        if self.port.connected and not self.port.disconnecting:
            self.port.startReading()

    def _has_looked(self) -> None:
        self._left_in_vain = []
