"""One connection, as far as it is about sockets."""

from twisted.internet.interfaces import ITCPTransport
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from zope.interface import directlyProvides

from abproxy.tuning import write_later
from abproxy.upstream.fast.connection import Connection, ConnectionPool


class Socket(StringTransport):
    """What there is to set on a socket."""

    holds_back = True

    def setTcpNoDelay(self, enabled: bool) -> None:  # noqa: FBT001, N802
        self.holds_back = not enabled


def test_nothing_is_held_back_on_a_socket() -> None:
    """The last packet of a question would wait for the first to be acknowledged."""
    socket = Socket()
    directlyProvides(socket, ITCPTransport)

    Connection(ConnectionPool(Clock(), 4), write_later, 1000).makeConnection(socket)

    assert not socket.holds_back


def test_what_is_no_socket_has_nothing_to_set() -> None:
    """It may be one of a test's own."""
    socket = Socket()

    Connection(ConnectionPool(Clock(), 4), write_later, 1000).makeConnection(socket)

    assert socket.holds_back
