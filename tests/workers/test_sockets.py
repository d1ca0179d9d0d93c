"""The clients' port: held by a supervisor, accepted on by workers, for real."""

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
from twisted.internet.error import ConnectError
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import deferLater

from abproxy.errors import SettingsError
from abproxy.web.closing import close_port
from abproxy.workers.sockets import (
    ConnectionCounts,
    WorkerSocket,
    open_shared_port,
)
from support.certificates import make_certificate
from support.client import (
    LOCALHOST,
    connect,
    endpoint,
    together,
    until,
)


class Kept(Protocol):
    """A connection that is kept."""

    factory: Any

    def connectionMade(self) -> None:
        """Count in."""
        self.factory.channels.add(self)

    def connectionLost(self, reason: object = None) -> None:  # noqa: ARG002
        """Count out."""
        self.factory.channels.discard(self)


class Worker(Factory):
    """The connections of a worker."""

    protocol = Kept
    noisy = False

    def __init__(self) -> None:
        self.channels: set[Any] = set()


@define(kw_only=True)
class Workers:
    """One socket, and the workers that listen on it."""

    socket: socket.socket
    file: Path
    count: int
    all: list[Worker] = field(factory=list)
    ports: list[Any] = field(factory=list)

    @property
    def port(self) -> int:
        """Where they listen."""
        return int(self.socket.getsockname()[1])

    async def start(self, name: str, reactor: Any = reactor) -> Worker:
        """Let a worker listen."""
        worker = Worker()
        inherited = WorkerSocket(
            reactor=reactor,
            fd=self.socket.dup().detach(),
            name=name,
            counts=ConnectionCounts.at(self.file, self.count),
        )
        self.ports.append(await inherited.listen(worker))
        self.all.append(worker)
        return worker

    def accepted(self) -> int:
        """Count the connections of all."""
        return sum(len(worker.channels) for worker in self.all)


SLOW = SimpleNamespace(
    adoptStreamPort=reactor.adoptStreamPort,
    callLater=lambda _seconds, *call: reactor.callLater(0, *call),
)
"""The reactor of a machine so slow that a moment is over in each turn."""

on_each_machine = pytest.mark.parametrize(
    "machine", [reactor, SLOW], ids=["quick", "slow"]
)


@asynccontextmanager
async def shared_by(folder: Path, workers: int) -> AsyncIterator[Workers]:
    """Open a socket for so many *workers*."""
    ours = socket.create_server((LOCALHOST, 0), backlog=256)
    ours.setblocking(False)
    here = Workers(socket=ours, file=folder / "connections", count=workers)
    try:
        yield here
    finally:
        for worker in here.all:
            for connection in worker.channels:
                connection.transport.abortConnection()
        await until(lambda: not here.accepted())
        for port in here.ports:
            await close_port(reactor, port)
        ours.close()


async def clients(here: Workers, count: int) -> None:
    """Let so many more connect at once, and wait until all are accepted."""
    accepted = here.accepted() + count
    await together(connect(here.port) for _ in range(count))
    await until(lambda: here.accepted() == accepted)


@ensureDeferred
async def test_clients_at_once_are_spread_evenly(tmp_path: Path) -> None:
    """However fast they come, and whichever worker looks first."""
    async with shared_by(tmp_path, 2) as here:
        one, other = await here.start("1"), await here.start("2")

        await clients(here, 100)

        assert abs(len(one.channels) - len(other.channels)) <= 2


@on_each_machine
@ensureDeferred
async def test_a_worker_that_has_fewer_is_given_more(
    tmp_path: Path, machine: Any
) -> None:
    """A worker that begins anew catches up."""
    async with shared_by(tmp_path, 2) as here:
        counts = ConnectionCounts.at(here.file, 2)
        counts.remove("2")
        one = await here.start("1", machine)
        await clients(here, 20)

        other = await here.start("2", machine)
        await clients(here, 20)

        assert abs(len(one.channels) - len(other.channels)) <= 2


@on_each_machine
@ensureDeferred
async def test_a_worker_that_has_fewer_is_given_each_client(
    tmp_path: Path, machine: Any
) -> None:
    """That it was left one does not mean that the next is not for it."""
    async with shared_by(tmp_path, 2) as here:
        ConnectionCounts.at(here.file, 2).remove("2")
        one = await here.start("1", machine)
        await clients(here, 10)

        other = await here.start("2", machine)
        for _ in range(10):
            await clients(here, 1)

        assert (len(one.channels), len(other.channels)) == (10, 10)


@on_each_machine
@ensureDeferred
async def test_no_client_waits_for_a_worker_that_does_not_accept(
    tmp_path: Path, machine: Any
) -> None:
    """It has none, but it is busy, or it hangs."""
    async with shared_by(tmp_path, 2) as here:
        one = await here.start("1", machine)

        await clients(here, 20)

        assert len(one.channels) == 20


@ensureDeferred
async def test_clients_that_wait_when_the_port_closes_are_accepted(
    tmp_path: Path,
) -> None:
    """They are connected already for all they know."""
    async with shared_by(tmp_path, 2) as here:
        one = await here.start("1")
        [port] = here.ports
        port.stopReading()
        await together(connect(here.port) for _ in range(20))

        await close_port(reactor, here.ports.pop())

        await until(lambda: len(one.channels) == 20)


def test_workers_see_each_others_numbers(tmp_path: Path) -> None:
    """Each in its own memory."""
    ours, theirs = (
        ConnectionCounts.at(tmp_path / "c", 2),
        ConnectionCounts.at(tmp_path / "c", 2),
    )

    ours.set("1", 5)
    ours.set("2", 3)

    assert sorted(theirs.fewer(6)) == [3, 5]


def test_a_worker_that_is_not_there_has_not_the_fewest(tmp_path: Path) -> None:
    """Nothing is left to it."""
    counts = ConnectionCounts.at(tmp_path / "c", 2)
    counts.set("1", 5)

    counts.remove("2")

    assert counts.fewer(6) == [5]


# The port, before there are workers


@pytest.mark.parametrize("port", ["0", "tcp:0:interface=127.0.0.1"])
@ensureDeferred
async def test_a_port_is_held_but_no_client_is_accepted(port: str) -> None:
    """Clients wait until a worker accepts them; then it is closed."""
    shared = open_shared_port(reactor, LOCALHOST, port)

    caller = await connect(shared.port)
    shared.close()
    await deferLater(reactor, 0.01)

    assert shared.address == f"http://127.0.0.1:{shared.port}"
    with pytest.raises(ConnectError):
        await connect(shared.port)
    caller.hang_up()


def test_an_address_of_ipv6_is_shown_as_one_types_it() -> None:
    """In brackets."""
    shared = open_shared_port(reactor, "::1", "0")

    assert shared.address == f"http://[::1]:{shared.port}"
    shared.close()


def test_a_port_in_use_is_said_to_be() -> None:
    """As without workers."""
    with socket.create_server((LOCALHOST, 0)) as taken:
        port = str(taken.getsockname()[1])

        with pytest.raises(SettingsError, match="Address already in use"):
            open_shared_port(reactor, LOCALHOST, port)


@pytest.mark.filterwarnings("ignore:Passing pyOpenSSL:DeprecationWarning")
@pytest.mark.parametrize("kind", ["haproxy", "ssl"])
@ensureDeferred
async def test_what_stands_between_socket_and_http_cannot_be_shared(
    kind: str, tmp_path: Path
) -> None:
    """Workers are handed the socket alone."""
    port = endpoint(make_certificate(tmp_path))
    if kind == "haproxy":
        port = f"haproxy:{port}"

    with pytest.raises(SettingsError, match="WORKERS can share a TCP port, but not"):
        open_shared_port(reactor, LOCALHOST, port)
    await deferLater(reactor, 0.01)
