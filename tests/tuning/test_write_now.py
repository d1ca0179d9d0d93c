"""Writing in the same turn, where nothing stands in the way."""

import socket
from collections.abc import Iterator
from typing import Any

import pytest
from attrs import define, field
from twisted.internet.protocol import Protocol
from twisted.internet.tcp import Server
from twisted.internet.testing import MemoryReactorClock, StringTransport

from abproxy.tuning import AT_ONCE, has_unsent, write_later, write_now

MUCH = b"x" * (8 << 20)


@define
class Line:
    """A connection of ours, and the other end of it."""

    reactor: Any = field(factory=MemoryReactorClock)
    ours: Any = field(init=False)
    theirs: socket.socket = field(init=False)

    def __attrs_post_init__(self) -> None:
        """Connect."""
        here, self.theirs = socket.socketpair()
        here.setblocking(False)
        self.theirs.setblocking(False)
        nobody: Any = None
        self.ours = Server(here, Protocol(), ("", 0), nobody, 0, self.reactor)

    @property
    def waits_for_room(self) -> bool:
        """Whether the kernel is to say when there is room."""
        return self.ours in self.reactor.getWriters()

    def turn(self) -> None:
        """Let the reactor write what waits."""
        self.ours.doWrite()

    def read(self) -> bytes:
        """Say what has arrived."""
        read = bytearray()
        while True:
            try:
                piece = self.theirs.recv(1 << 20)
            except BlockingIOError:
                return bytes(read)
            if not piece:
                return bytes(read)
            read += piece


@pytest.fixture
def line() -> Iterator[Line]:
    """Open a connection, and close it."""
    line = Line()
    yield line
    line.ours.socket.close()
    line.theirs.close()


def test_what_is_written_at_once_is_there_in_the_same_turn(line: Line) -> None:
    """And nothing is left to do."""
    write_now(line.ours, b"hello")

    assert line.read() == b"hello"
    assert not line.waits_for_room


def test_what_is_written_later_is_there_in_the_next_turn(line: Line) -> None:
    """This is how Twisted does it."""
    write_later(line.ours, b"hello")

    early = line.read()
    line.turn()

    assert early == b""
    assert line.read() == b"hello"


def test_nothing_overtakes_what_waits_already(line: Line) -> None:
    """What was written first arrives first."""
    write_later(line.ours, b"first ")

    write_now(line.ours, b"second")
    line.turn()

    assert line.read() == b"first second"


def test_what_finds_no_room_waits_for_it(line: Line) -> None:
    """A client that reads slowly gets every byte, in order."""
    write_now(line.ours, MUCH)
    write_now(line.ours, b" end")

    read = line.read()
    while line.waits_for_room:
        line.turn()
        read += line.read()

    assert read == MUCH + b" end"


def test_who_has_hung_up_is_noticed_as_ever(line: Line) -> None:
    """Writing to them raises nothing; Twisted says so in its own time."""
    line.theirs.close()
    write_now(line.ours, b"hello")

    assert line.waits_for_room
    assert isinstance(line.ours.doWrite(), Exception)


@pytest.mark.parametrize("ending", ["loseConnection", "loseWriteConnection"])
def test_nothing_is_written_after_the_last_word(line: Line, ending: str) -> None:
    """A connection that is being closed takes what it took before, and no more."""
    write_later(line.ours, b"last")
    getattr(line.ours, ending)()

    write_now(line.ours, b"too late")
    line.turn()

    assert line.read().startswith(b"last")
    assert not line.waits_for_room


def test_an_aborted_connection_takes_nothing(line: Line) -> None:
    """Nobody wants to hear any more."""
    line.ours.abortConnection()

    write_now(line.ours, b"too late")

    assert line.read() == b""


def test_whatever_is_no_plain_connection_is_written_to_as_usual() -> None:
    """It may encrypt, or be a test's own."""
    transport = StringTransport()

    write_now(transport, b"hello")

    assert transport.value() == b"hello"


def test_what_the_socket_has_not_taken_is_unsent(line: Line) -> None:
    """Until it has, to the last byte."""
    before = has_unsent(line.ours)
    write_now(line.ours, MUCH)
    meanwhile = has_unsent(line.ours)
    while line.waits_for_room:
        line.read()
        line.turn()

    assert (before, meanwhile, has_unsent(line.ours)) == (False, True, False)


def test_of_others_nobody_knows_what_is_unsent() -> None:
    """They are taken at their word."""
    transport = StringTransport()
    transport.write(b"hello")

    assert not has_unsent(transport)


def test_megabytes_wait_as_they_are(line: Line) -> None:
    """The most of them would be left, and a copy of that takes as much again."""
    answer = b"x" * (AT_ONCE + 1)

    write_now(line.ours, answer)

    assert line.read() == b""
    line.turn()
    assert line.ours.dataBuffer is answer
