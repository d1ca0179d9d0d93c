"""The service manager hears when the proxy is ready, reloads, and stops."""

import re
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import ClassVar
from uuid import uuid4

import pytest
from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.logger import Logger

from abproxy.service.lifetime import Lifetime, ProcessContext
from abproxy.service.notify import READY, STOPPING, make_notify, reloading
from abproxy.service.signals import Signals
from support.processes import READY_S, STOPPED_S, TWISTD_COMMAND

RELOADING = re.compile(r"RELOADING=1\nMONOTONIC_USEC=(\d+)")


@pytest.fixture(params=["a path", "an abstract name"])
def address(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Give the address of a service manager, as systemd writes it."""
    if request.param == "a path":
        return str(tmp_path / "notify")
    return f"@abproxy-{uuid4()}"


@pytest.fixture
def manager(address: str) -> Iterator[socket.socket]:
    """Be the service manager."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ours:
        ours.bind(address.replace("@", "\0", 1))
        ours.settimeout(READY_S)
        yield ours


def _heard(manager: socket.socket) -> str:
    return manager.recv(1000).decode()


# Messages


def test_a_message_is_one_datagram(address: str, manager: socket.socket) -> None:
    """To a path, and to a name that is in no folder."""
    make_notify({"NOTIFY_SOCKET": address})(READY)

    assert _heard(manager) == "READY=1"


@pytest.mark.parametrize(
    "environ", [{}, {"NOTIFY_SOCKET": ""}, {"NOTIFY_SOCKET": "vsock:2:1"}]
)
def test_without_a_socket_that_we_know_there_are_no_messages(
    environ: dict[str, str],
) -> None:
    """As without systemd."""
    make_notify(environ)(READY)


@pytest.mark.parametrize("gone", ["/no/such/folder/notify", "@abproxy-nobody"])
def test_a_manager_that_has_gone_does_not_matter(gone: str) -> None:
    """The proxy serves nevertheless."""
    make_notify({"NOTIFY_SOCKET": gone})(READY)


def test_a_reload_has_the_time_of_the_kernel() -> None:
    """In microseconds of the clock that does not jump, as `Type=notify-reload` asks."""
    before = time.monotonic_ns() // 1000

    told = RELOADING.fullmatch(reloading())

    assert told is not None
    assert before <= int(told[1]) <= time.monotonic_ns() // 1000


# What a service says


@define(kw_only=True, eq=False)
class Service(Lifetime):
    """Starts and reloads when the test says so."""

    starting: Deferred[None] = field(factory=Deferred)
    told: list[str]
    _log: ClassVar[Logger] = Logger()

    def _listen_to_signals(self) -> None:
        pass

    async def _start(self) -> None:
        await self.starting

    async def _stop(self) -> None:
        self.told.append("ends")

    def _reload(self) -> None:
        self.told.append("reloads")


class Reactor(Clock):
    """Runs from the beginning."""

    def callWhenRunning(self, hook: Callable[[], object]) -> None:  # noqa: N802
        """Call *hook*."""
        hook()

    def stop(self) -> None:
        """Nothing of that is looked at here."""


@pytest.fixture
def service() -> Service:
    """Make a service that notes what the manager is told."""
    reactor, told = Reactor(), []
    return Service(
        reactor=reactor,
        process=ProcessContext(notify=told.append),
        signals=Signals(reactor),
        model=None,
        upstream_url="",
        told=told,
    )


def test_it_is_ready_when_it_has_started(service: Service) -> None:
    """Not before, as when a model is loaded."""
    service.startService()
    early = list(service.told)
    service.starting.callback(None)

    assert (early, service.told) == ([], [READY])


def test_it_is_not_ready_if_it_cannot_start(service: Service) -> None:
    """The manager sees it end."""
    service.startService()
    service.starting.errback(OSError("no room"))

    assert service.told == []


def test_a_reload_begins_and_ends(service: Service) -> None:
    """In between settings are read."""
    service.startService()
    service.starting.callback(None)

    service._reload_and_notify()

    [ready, begins, reloads, ends] = service.told
    assert (ready, reloads, ends) == (READY, "reloads", READY)
    assert RELOADING.fullmatch(begins)


def test_a_reload_does_not_make_it_ready(service: Service) -> None:
    """One that comes while it starts."""
    service.startService()

    service._reload_and_notify()
    early = list(service.told)
    service.starting.callback(None)

    assert READY not in early
    assert service.told[-1] == READY


def test_its_end_is_told_when_it_begins(service: Service) -> None:
    """The drain comes after that."""
    service.startService()
    service.starting.callback(None)

    service.stopService()

    assert service.told == [READY, STOPPING, "ends"]


# A real one


@pytest.mark.parametrize("options", [[], ["--workers=2"]], ids=["one", "workers"])
def test_a_real_process_tells_its_whole_life(
    address: str, manager: socket.socket, tmp_path: Path, options: list[str]
) -> None:
    """Once each, though workers start and stop as well."""
    with subprocess.Popen(  # noqa: S603
        [*TWISTD_COMMAND, "abproxy", "--port=0", *options],
        cwd=tmp_path,
        env={"PATH": "/usr/bin:/bin", "NOTIFY_SOCKET": address},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
    ) as process:
        started = _heard(manager)
        process.send_signal(signal.SIGHUP)
        reload = [_heard(manager), _heard(manager)]
        process.terminate()
        stopped = _heard(manager)
        code = process.wait(STOPPED_S)
    manager.setblocking(False)

    assert (started, stopped, code) == (READY, STOPPING, 0)
    assert RELOADING.fullmatch(reload[0])
    assert reload[1] == READY
    with pytest.raises(BlockingIOError):
        manager.recv(1000)
