"""One connection, as far as it is about sockets."""

from twisted.internet.interfaces import ITCPTransport
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from zope.interface import directlyProvides

from abproxy.tuning import write_later
from abproxy.upstream.fast.connection import (
    Connection,
    ConnectionPool,
    Exchange,
)


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


def receiving(*pieces: bytes) -> tuple[ConnectionPool, Connection]:
    """Let *pieces* of a response arrive on a connection."""
    pool = ConnectionPool(Clock(), 4)
    connection = Connection(pool, write_later, 1000)
    connection.makeConnection(StringTransport())
    connection.send(Exchange(b"POST", b"POST / HTTP/1.1\r\n\r\n"))
    for piece in pieces:
        connection.dataReceived(piece)
    return pool, connection


HEAD = b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n"


def test_what_has_come_of_a_response_is_counted() -> None:
    """As long as it is not whole, however long that takes."""
    pool, _connection = receiving(HEAD, b"abc")

    assert pool.unfinished_bytes == len(HEAD) + 3


def test_a_whole_response_is_counted_no_longer() -> None:
    """It is a call's answer now."""
    pool, _connection = receiving(HEAD, b"abc", b"def")

    assert pool.unfinished_bytes == 0


def test_half_a_response_is_not_counted_when_its_connection_is_lost() -> None:
    """Nothing is kept of it."""
    pool, connection = receiving(HEAD, b"abc")

    connection.connectionLost()

    assert pool.unfinished_bytes == 0


def test_half_a_response_is_not_counted_when_it_turns_out_to_be_none() -> None:
    """The connection is closed, and so is what it held."""
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"

    pool, _connection = receiving(head, b"3\r\nabc\r\n", b"no length\r\n")

    assert pool.unfinished_bytes == 0
