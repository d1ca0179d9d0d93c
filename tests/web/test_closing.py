"""A port is closed without a connection being lost that a client believes it has."""

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from attrs import define, field
from pytest_twisted import ensureDeferred
from twisted.internet import reactor
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.error import ConnectionRefusedError as Refused
from twisted.internet.error import TimeoutError as NoAnswer
from twisted.internet.protocol import ClientCreator, Factory, Protocol
from twisted.internet.task import Clock

from abproxy.web.closing import HANDSHAKE_S, close_port
from abproxy.web.listen import BoundSocket, bind
from support.client import Caller, the_reactor, together, until


class Accepted(Protocol):
    """A connection that was accepted."""

    def connectionMade(self) -> None:
        self.factory.open.add(self)  # type: ignore[union-attr]

    def connectionLost(self, reason: Any = None) -> None:
        del reason
        self.factory.open.remove(self)  # type: ignore[union-attr]


@define(eq=False)
class Server(Factory):
    """A port, and the connections on it."""

    protocol = Accepted
    noisy = False
    port: Any = None
    address: tuple[Any, ...] = ()
    open: set[Any] = field(factory=set)

    def connect(self, timeout_s: float = 30) -> Deferred[Caller]:
        """Connect as a client."""
        creator = ClientCreator(reactor, Caller)
        host, port, *_ = self.address
        asked: Deferred[Caller] = creator.connectTCP(host, port, timeout=timeout_s)
        return asked


@asynccontextmanager
async def server(host: str = "127.0.0.1") -> AsyncIterator[Server]:
    """Listen on any port, as the proxy does."""
    here = Server()
    with bind(host, 0) as ours:
        here.address = ours.getsockname()
        listening = BoundSocket(reactor, ours)
        here.port = await listening.listen(here)
    try:
        yield here
    finally:
        await maybeDeferred(here.port.stopListening)
        for connection in list(here.open):
            connection.transport.abortConnection()
        await until(lambda: not here.open)


async def over(closing: Deferred[None], clock: Clock) -> None:
    """Let the time for the last handshakes pass, and the port be closed."""
    clock.advance(HANDSHAKE_S)
    clock.advance(0)
    await closing


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
@ensureDeferred
async def test_nobody_new_connects_while_the_port_closes(host: str) -> None:
    """Not even in the last microsecond: the kernel shakes no hands any more."""
    clock = Clock()
    async with server(host) as here:
        closing = Deferred.fromCoroutine(close_port(clock, here.port, refuses=True))

        with pytest.raises(NoAnswer):
            await here.connect(timeout_s=0.3)

        await over(closing, clock)
        with pytest.raises(Refused):
            await here.connect()
        assert not here.open


@ensureDeferred
async def test_who_has_connected_is_accepted() -> None:
    """Also if nobody looked at the port meanwhile."""
    clock = Clock()
    async with server() as here:
        here.port.stopReading()
        await together(here.connect() for _ in range(20))

        closing = Deferred.fromCoroutine(close_port(clock, here.port, refuses=True))
        await over(closing, clock)

        assert len(here.open) == 20


@ensureDeferred
async def test_who_has_connected_can_still_ask() -> None:
    """Only what begins a connection is dropped."""
    clock = Clock()
    async with server() as here:
        client = await here.connect()
        await until(lambda: here.open)
        [accepted] = here.open
        got: list[bytes] = []
        accepted.dataReceived = got.append

        closing = Deferred.fromCoroutine(close_port(clock, here.port, refuses=True))
        client.transport.write(b"a call")

        await until(lambda: got == [b"a call"])
        await over(closing, clock)


@ensureDeferred
async def test_a_port_on_which_others_listen_stays_as_it_is() -> None:
    """Who comes later is accepted by them, and does not wait for that."""
    async with server() as here:
        with here.port.socket.dup() as others:
            others.setblocking(False)  # which is one state for all who hold it
            await close_port(reactor, here.port)

            with socket.create_connection(here.address, timeout=10):
                others.accept()[0].close()


@ensureDeferred
async def test_where_the_kernel_cannot_refuse_nobody_waits() -> None:
    """The port is closed at once, as well as that can be done."""
    async with server() as here:
        ours = here.port.socket

        def refuse(*_: object) -> None:
            raise OSError

        here.port.socket = Unwilling(ours, setsockopt=refuse)
        clock = Clock()

        closing = Deferred.fromCoroutine(close_port(clock, here.port, refuses=True))
        clock.advance(0)

        await closing


class Unwilling(SimpleNamespace):
    """A socket of a system that knows no filters."""

    def __init__(self, ours: socket.socket, **others: Any) -> None:
        super().__init__(**others)
        self._ours = ours

    def __getattr__(self, name: str) -> Any:
        return getattr(self._ours, name)


@ensureDeferred
async def test_a_file_is_closed_at_once(tmp_path: Path) -> None:
    """It has no handshake that could be on its way."""
    clock = Clock()
    port = the_reactor().listenUNIX(str(tmp_path / "port"), Server())

    closing = Deferred.fromCoroutine(close_port(clock, port, refuses=True))
    clock.advance(0)

    await closing
