"""SIGTERM to real processes that others stand ready to replace."""

import os
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from signal import SIGTERM
from typing import Any

import pytest
from attrs import define, field
from pytest_twisted import ensureDeferred
from twisted.internet.error import ConnectError, ConnectionClosed

from bench.breakable import Traits
from support.client import LOCALHOST, Caller, connect, sleep, together, until
from support.processes import AT_ONCE, TWISTD_COMMAND, Daemon, daemon
from support.upstream import breakable

DELAYED = "--drain-delay=0.5"
CLIENTS = 32

HANDED_OVER = """
import os, sys
os.dup2(int(sys.argv[1]), 3)
passed = {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": "1", "LISTEN_FDNAMES": "a"}
os.environ.update(passed)
os.execv(sys.argv[2], sys.argv[2:])
"""
"""What systemd does with the socket of a unit."""


@define(eq=False)
class Balancer:
    """Sends calls over kept connections to the first proxy that is ready."""

    ports: list[int]
    """Those of all proxies, the preferred one first."""

    answers: list[int] = field(factory=list)
    lost: int = 0
    _is_over: bool = False

    async def run(self) -> None:
        """Call with many clients, and look at readiness, until it is enough."""
        clients = (self._call_on_and_on(f"client {at}") for at in range(CLIENTS))
        await together([*clients, self._look()])

    def stop(self) -> None:
        """Let the last calls be answered."""
        self._is_over = True

    async def _look(self) -> None:
        """Leave a proxy that is not ready, as a health check does."""
        while not self._is_over:
            asking = await connect(self.ports[0], closes=True)
            answer = await asking.get("/-/ready")
            asking.hang_up()
            if answer.status != 200 and len(self.ports) > 1:
                self.ports.pop(0)
            await sleep(0.05)

    async def _call_on_and_on(self, name: str) -> None:
        while not self._is_over:
            try:
                caller = await connect(self.ports[0])
            except ConnectError:
                self.lost += 1
                return
            while caller.is_open and not self._is_over:
                await self._call(caller, name)
            caller.hang_up()

    async def _call(self, caller: Caller, text: str) -> None:
        try:
            answer = await caller.embed(text)
        except ConnectionClosed:
            self.lost += 1
            return
        self.answers.append(answer.status)
        if answer.header("Connection") == "close":
            caller.hang_up()
            await until(lambda: not caller.is_open)


@asynccontextmanager
async def balancing(*daemons: Daemon) -> AsyncIterator[Balancer]:
    """Put load on the first proxy, and wait for the end of all clients."""
    balancer = Balancer([each.port for each in daemons])
    running = together([balancer.run()])
    await until(lambda: len(balancer.answers) > 10 * CLIENTS)
    yield balancer
    balancer.stop()
    await running


@pytest.mark.parametrize(
    "options",
    [(), ("--workers=2",), ("--operations-port=0",)],
    ids=["one process", "workers", "operations port"],
)
@ensureDeferred
async def test_a_restart_behind_a_balancer_loses_no_call(
    tmp_path: Path, options: tuple[str, ...]
) -> None:
    """Its clients keep connections, and its health check sees the end coming."""
    folders = tmp_path / "old", tmp_path / "new"
    for folder in folders:
        folder.mkdir()
    async with (
        breakable(Traits()) as upstream,
        daemon(folders[0], upstream, DELAYED, *options) as old,
        daemon(folders[1], upstream, DELAYED, *options) as new,
        balancing(old, new) as balancer,
    ):
        old.process.send_signal(SIGTERM)
        await until(lambda: old.process.poll() is not None)
        answered = len(balancer.answers)
        await until(lambda: len(balancer.answers) > answered + 10 * CLIENTS)

    assert balancer.lost == 0
    assert set(balancer.answers) == {200}
    assert old.process.returncode == 0


@asynccontextmanager
async def adopted(
    folder: Path, upstream: Any, listening: socket.socket
) -> AsyncIterator["subprocess.Popen[bytes]"]:
    """Run a proxy that gets its socket as from systemd."""
    command = [sys.executable, "-c", HANDED_OVER, str(listening.fileno())]
    command += [*map(str, TWISTD_COMMAND), "abproxy", DELAYED]
    command += ["--port=systemd:domain=INET:index=0"]
    command += [f"--inference-service-url={upstream.url}"]
    log = folder / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(  # noqa: ASYNC220, S603  it starts at once
            command,
            cwd=folder,
            env=AT_ONCE,
            pass_fds=[listening.fileno()],
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        await until(lambda: "answers on" in log.read_text() or process.poll())
        assert process.poll() is None, log.read_text()
        yield process
    finally:
        process.kill()
        process.wait()


@ensureDeferred
async def test_with_a_socket_that_is_kept_open_restarts_lose_no_call(
    tmp_path: Path,
) -> None:
    """What comes between two processes waits in the kernel's queue."""
    with socket.create_server((LOCALHOST, 0), backlog=1000) as listening:
        os.set_inheritable(listening.fileno(), True)
        port = listening.getsockname()[1]
        async with breakable(Traits()) as upstream:
            balancer = Balancer([port])
            async with adopted(tmp_path, upstream, listening) as first:
                running = together([balancer.run()])
                await until(lambda: len(balancer.answers) > 10 * CLIENTS)
                first.send_signal(SIGTERM)
                await until(lambda: first.poll() is not None)
            async with adopted(tmp_path, upstream, listening):
                answered = len(balancer.answers)
                await until(lambda: len(balancer.answers) > answered + 10 * CLIENTS)
                balancer.stop()
                await running

    assert balancer.lost == 0
    assert set(balancer.answers) == {200}
    assert first.returncode == 0
