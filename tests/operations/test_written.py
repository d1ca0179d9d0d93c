"""What the real process writes: its log and its access log."""

import json
import signal
from pathlib import Path
from typing import Any

from pytest_twisted import ensureDeferred
from twisted.internet.threads import deferToThread

from bench.breakable import Traits
from support.client import connect, until
from support.processes import Daemon, daemon
from support.upstream import breakable


def _objects(log: Path) -> list[dict[str, Any]]:
    """Read a log of which every line is to be a JSON object."""
    return [json.loads(line) for line in log.read_text().splitlines()]


async def _ask(here: Daemon) -> None:
    caller = await connect(here.port)
    await caller.embed("a text")
    caller.hang_up()
    await until(lambda: not caller.is_open)


async def _end(here: Daemon) -> int:
    here.process.send_signal(signal.SIGTERM)
    exit_code: int = await deferToThread(here.process.wait, 20)
    return exit_code


@ensureDeferred
async def test_every_line_is_a_json_object_if_it_is_to_be(tmp_path: Path) -> None:
    """Those of twistd among them, from the first to the last."""
    options = ("--log-format=json", "--access-log=-")
    async with (
        breakable(Traits()) as upstream,
        daemon(tmp_path, upstream, *options) as here,
    ):
        await _ask(here)
        assert await _end(here) == 0

    lines = _objects(here.log)
    [access] = [line for line in lines if line["logger"] == "access"]
    others = [line for line in lines if line is not access]
    assert (access["route"], access["status"]) == ("/embed", 200)
    assert {"level", "message", "time"} <= set.intersection(*map(set, others))
    assert any(line["message"] == "Server Shut Down." for line in others)


@ensureDeferred
async def test_a_request_is_written_when_it_is_over(tmp_path: Path) -> None:
    """Not when there is enough for a block, which takes hours on a quiet day."""
    async with (
        breakable(Traits()) as upstream,
        daemon(tmp_path, upstream, "--access-log=-") as here,
    ):
        await _ask(here)

        await until(lambda: '"POST /embed HTTP/1.1" 200' in here.log.read_text())


@ensureDeferred
async def test_sighup_rotates_the_access_log(tmp_path: Path) -> None:
    """Move it away, send the signal, and the next line is in a new file."""
    file, old = tmp_path / "access.log", tmp_path / "access.log.1"
    async with (
        breakable(Traits()) as upstream,
        daemon(tmp_path, upstream, f"--access-log={file}") as here,
    ):
        await _ask(here)
        await until(file.read_text)
        file.rename(old)

        here.process.send_signal(signal.SIGHUP)
        await until(file.exists)
        await _ask(here)
        await until(file.read_text)

    assert len(old.read_text().splitlines()) == 1
    assert len(file.read_text().splitlines()) == 1
