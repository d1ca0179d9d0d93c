"""Logs that cannot be written: calls are answered, and the process ends as ever."""

import fcntl
import os
import re
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from signal import SIGTERM

import pytest
from attrs import frozen
from pytest_twisted import ensureDeferred

from bench.breakable import Breakable, Traits
from support.client import Caller, connect, sleep, until
from support.processes import TWISTD_COMMAND, daemon
from support.upstream import breakable

SMALL_PIPE = 4096
CALLS = 200
"""As many lines as would fill it several times."""


@frozen
class Unread:
    """A proxy whose standard output is a pipe that nothing reads any more."""

    process: "subprocess.Popen[bytes]"
    port: int


@asynccontextmanager
async def unread(
    folder: Path, upstream: Breakable, *options: str
) -> AsyncIterator[Unread]:
    """Run it, and read until it is ready."""
    url = f"--inference-service-url={upstream.url}"
    with subprocess.Popen(  # noqa: ASYNC220, S603
        [*TWISTD_COMMAND, "abproxy", "--port=0", url, *options],
        cwd=folder,
        env={"PATH": "/usr/bin:/bin"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    ) as process:
        try:
            assert process.stdout is not None
            pipe = process.stdout.fileno()
            fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, SMALL_PIPE)
            os.set_blocking(pipe, False)
            said = b""
            while not (found := re.search(rb"answers on \S*?:(\d+)", said)):
                await sleep(0.02)
                said += process.stdout.read() or b""
            yield Unread(process, int(found[1]))
        finally:
            process.kill()


async def _call_often(caller: Caller) -> None:
    for number in range(CALLS):
        assert (await caller.embed(f"text {number}")).is_for([f"text {number}"])


@pytest.mark.parametrize(
    "options", [(), ("--workers=2",)], ids=["one process", "workers"]
)
@ensureDeferred
async def test_a_pipe_that_nothing_reads_stops_no_call(
    tmp_path: Path, options: tuple[str, ...]
) -> None:
    """Nor the end of the process."""
    async with (
        breakable(Traits()) as upstream,
        unread(tmp_path, upstream, "--access-log=-", *options) as here,
    ):
        await _call_often(await connect(here.port))

        here.process.send_signal(SIGTERM)
        await until(lambda: here.process.poll() is not None)
        assert here.process.returncode == 0


@ensureDeferred
async def test_a_named_pipe_without_a_reader_stops_no_call(tmp_path: Path) -> None:
    """It is opened at the start, which waits for no reader either."""
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    async with (
        breakable(Traits()) as upstream,
        daemon(tmp_path, upstream, f"--access-log={pipe}") as here,
    ):
        await _call_often(await connect(here.port))


@ensureDeferred
async def test_a_full_disk_is_said_once_and_stops_no_call(tmp_path: Path) -> None:
    """And the lines that are missing are counted."""
    async with (
        breakable(Traits()) as upstream,
        daemon(tmp_path, upstream, "--access-log=/dev/full") as here,
    ):
        caller = await connect(here.port)
        await _call_often(caller)

        lost = b'abproxy_log_lines_lost_total{log="access"} '
        while lost + b"0.0" in (await caller.get("/metrics")).body:
            await sleep(0.01)
        await _call_often(caller)
        said = here.log.read_text()
    assert said.count("Requests are missing in the access log") == 1
    assert "No space left on device" in said
