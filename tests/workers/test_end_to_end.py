"""Supervisor and workers as an operator starts them."""

import json
import os
import re
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from certificates import endpoint, make_certificate, read_all, shake_hands
from processes import refusal
from pytest_twisted import ensureDeferred
from sockets import (
    LOCALHOST,
    Caller,
    Daemon,
    breakable,
    connect,
    daemon,
    sleep,
    together,
    until,
)
from tally import Tally
from twisted.internet.error import ConnectionClosed
from twisted.internet.threads import deferToThread

from abproxy.service import SAME_WISH_S
from bench.breakable import Breakable, Traits


def workers_of(pid: int) -> list[int]:
    """List the processes that a supervisor has."""
    children = Path(f"/proc/{pid}/task/{pid}/children")
    return [int(child) for child in children.read_text().split()]


def is_running(pid: int) -> bool:
    """Whether a process is there, and no mere entry in a table."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False
    return status.rpartition(")")[2].split()[0] != "Z"


@asynccontextmanager
async def two_workers(
    folder: Path, upstream: Breakable, *options: str
) -> AsyncIterator[Daemon]:
    """Run a supervisor with two workers, both of which let clients in."""
    async with daemon(folder, upstream, "--workers=2", *options) as here:
        await until(lambda: " with 2 workers" in here.log.read_text())
        yield here
        here.process.terminate()
        await until(lambda: here.process.poll() is not None)


async def asked_by(here: Daemon, count: int) -> list[Caller]:
    """Let so many callers connect and ask once."""
    callers = await together(connect(here.port) for _ in range(count))
    await together(ask(caller, f"caller {at}") for at, caller in enumerate(callers))
    return callers


async def ask(caller: Caller, text: str) -> None:
    """Ask, and look at the answer."""
    assert (await caller.embed(text)).is_for([text])


async def page(here: Daemon, path: str) -> Any:
    """Read a page of ours."""
    caller = await connect(here.port, closes=True)
    answer = await caller.get(path)
    caller.hang_up()
    assert answer.status == 200
    return answer


async def figure(here: Daemon, name: str) -> float:
    """Read a figure, all its labels added up."""
    body = (await page(here, "/metrics")).body.decode()
    found = re.findall(rf"^{name}(?:\{{[^}}]*\}})? (\S+)$", body, re.MULTILINE)
    return sum(map(float, found))


def hang_up(callers: list[Caller]) -> None:
    """Let all go."""
    for caller in callers:
        caller.hang_up()


@ensureDeferred
async def test_figures_are_those_of_all_workers(tmp_path: Path) -> None:
    """Whichever of them is asked, and however calls were spread."""
    async with (
        breakable(Traits()) as upstream,
        two_workers(tmp_path, upstream) as here,
    ):
        callers = await asked_by(here, 20)

        calls = await figure(here, "abproxy_calls_total")
        answered = await figure(here, "abproxy_call_duration_seconds_count")
        status = (await page(here, "/-/status.json")).json

        assert (calls, answered) == (20, 20)
        assert await figure(here, "abproxy_workers_answering") == 2
        assert status["totals"]["calls"] == 20
        assert sum(batch["calls"] for batch in status["batches"]) == 20
        assert [worker["answers"] for worker in status["workers"]] == [True, True]
        hang_up(callers)


@ensureDeferred
async def test_operators_may_come_in_with_tls(tmp_path: Path) -> None:
    """The supervisor answers them, and passes on what is for the workers."""
    with_tls = f"--operations-port={endpoint(make_certificate(tmp_path))}"
    call = (
        b"POST /embed HTTP/1.0\r\nContent-Type: application/json\r\n"
        b'Content-Length: 14\r\n\r\n{"inputs":"a"}'
    )

    async with (
        breakable(Traits()) as upstream,
        two_workers(tmp_path, upstream, with_tls) as here,
    ):
        [port] = re.findall(r"are on https://\S+?:(\d+)/", here.log.read_text())
        operator = await deferToThread(shake_hands, int(port), ["h2", "http/1.1"])
        operator.sendall(call)
        answer = await deferToThread(read_all, operator)
        operator.close()

        assert answer.split()[1] == b"200"


@ensureDeferred
async def test_both_workers_answer(tmp_path: Path) -> None:
    """Callers at once are spread over them; one log says who says what."""
    async with (
        breakable(Traits()) as upstream,
        two_workers(tmp_path, upstream) as here,
    ):
        callers = await asked_by(here, 20)

        private = re.findall(r"Operations are on (\S+?)/-/", here.log.read_text())
        counts = [calls_of(path) for path in private]

        assert sum(counts) == 20
        assert min(counts) > 0
        assert "worker 1: abproxy answers on" in here.log.read_text()
        hang_up(callers)


def calls_of(path: str) -> int:
    """Ask one worker by itself, as an operator can."""
    with socket.socket(socket.AF_UNIX) as ours:
        ours.connect(path)
        ours.sendall(b"GET /-/status.json HTTP/1.0\r\n\r\n")
        said = b"".join(iter(lambda: ours.recv(65536), b""))
    calls: int = json.loads(said.partition(b"\r\n\r\n")[2])["totals"]["calls"]
    return calls


@ensureDeferred
async def test_sigterm_under_load_loses_no_call(tmp_path: Path) -> None:
    """Each call is answered, by whichever worker, and then nobody is let in."""
    tally = Tally()
    async with (
        breakable(Traits(ms=20, ms_per_input=0.2)) as upstream,
        two_workers(tmp_path, upstream) as here,
    ):
        clients = together(
            tally.ask_until_refused(here.port, f"client {at}") for at in range(100)
        )
        await until(lambda: tally.answers["right"] > 100)

        here.process.send_signal(signal.SIGTERM)
        await clients
        await until(lambda: here.process.poll() is not None)

        assert set(tally.answers) == {"right"}
        assert here.process.returncode == 0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@ensureDeferred
async def test_a_signal_to_the_whole_group_loses_no_call(
    tmp_path: Path, number: signal.Signals
) -> None:
    """A terminal, or an init system, tells every process by itself."""
    async with (
        breakable(Traits(workers=0)) as upstream,
        two_workers(tmp_path, upstream) as here,
    ):
        callers = await together(connect(here.port, closes=True) for _ in range(4))
        asked = [caller.embed("a") for caller in callers]
        await until(lambda: upstream.seen.batches)

        for pid in (*workers_of(here.process.pid), here.process.pid):
            os.kill(pid, number)
        await until(lambda: "Draining" in here.log.read_text())
        upstream.change(workers=1)

        answers = [await each for each in asked]
        await until(lambda: here.process.poll() is not None)
        assert all(answer.is_for(["a"]) for answer in answers)
        assert here.process.returncode == 0


@ensureDeferred
async def test_a_second_signal_stops_all_at_once(tmp_path: Path) -> None:
    """Who is in a hurry does not wait for a silent upstream."""
    async with (
        breakable(Traits(ms=60_000)) as upstream,
        two_workers(tmp_path, upstream) as here,
    ):
        caller = await connect(here.port)
        asked = caller.embed("a")
        await until(lambda: upstream.seen.batches)

        here.process.send_signal(signal.SIGTERM)
        await until(lambda: "Draining 1 calls" in here.log.read_text())
        await sleep(2 * SAME_WISH_S)
        here.process.send_signal(signal.SIGTERM)

        with pytest.raises(ConnectionClosed):
            await asked
        await until(lambda: here.process.poll() is not None)
        assert here.process.returncode == 0


@ensureDeferred
async def test_a_worker_that_is_killed_is_replaced(tmp_path: Path) -> None:
    """The calls of the other are untouched, and what was counted stays counted."""
    async with (
        breakable(Traits()) as upstream,
        two_workers(tmp_path, upstream) as here,
    ):
        callers = await asked_by(here, 20)
        before = await figure(here, "abproxy_calls_total")
        [killed, spared] = workers_of(here.process.pid)

        os.kill(killed, signal.SIGKILL)
        await until(lambda: "ended with signal 9" in here.log.read_text())
        await until(lambda: len(workers_of(here.process.pid)) == 2)
        left = [caller for caller in callers if caller.is_open]
        await together(ask(caller, "again") for caller in left)

        assert before == 20
        assert 0 < len(left) < 20
        assert spared in workers_of(here.process.pid)
        assert await figure(here, "abproxy_calls_total") == 20 + len(left)
        assert await figure(here, "abproxy_worker_restarts_total") == 1
        hang_up(callers)


@ensureDeferred
async def test_without_a_supervisor_workers_end(tmp_path: Path) -> None:
    """After they have answered what they have accepted; nothing is left behind."""
    async with (
        breakable(Traits(ms=300)) as upstream,
        two_workers(tmp_path, upstream) as here,
    ):
        caller = await connect(here.port)
        asked = caller.embed("a")
        await until(lambda: upstream.seen.batches)
        workers = workers_of(here.process.pid)
        [private, _] = re.findall(r"Operations are on (\S+?)/-/", here.log.read_text())

        here.process.kill()

        assert (await asked).is_for(["a"])
        await until(lambda: not any(is_running(pid) for pid in workers))
        assert not Path(private).parent.exists()


@ensureDeferred
async def test_a_silent_worker_is_left_out_of_the_moment_not_of_the_past(
    tmp_path: Path,
) -> None:
    """The figures say how many have spoken."""
    async with (
        breakable(Traits()) as upstream,
        two_workers(tmp_path, upstream, "--operations-port=0") as here,
    ):
        operators = operators_of(here)
        callers = await asked_by(here, 20)
        before = await figure(operators, "abproxy_calls_total")
        [held, _] = workers_of(here.process.pid)

        os.kill(held, signal.SIGSTOP)
        calls = await figure(operators, "abproxy_calls_total")
        answering = await figure(operators, "abproxy_workers_answering")
        os.kill(held, signal.SIGCONT)

        assert (before, calls) == (20, 20)
        assert answering == 1
        hang_up(callers)


@ensureDeferred
async def test_sighup_reaches_every_worker(tmp_path: Path) -> None:
    """A key that was added to the file closes the door for whoever has none."""
    async with (
        breakable(Traits()) as upstream,
        two_workers(tmp_path, upstream) as here,
    ):
        callers = await asked_by(here, 4)
        (tmp_path / ".env").write_text("API_KEY=sesame\nDRAIN_TIMEOUT=7\n")

        here.process.send_signal(signal.SIGHUP)
        changed = "Settings changed: api_keys"
        await until(lambda: here.log.read_text().count(changed) == 2)
        answers = [await caller.embed("a") for caller in callers]

        assert {answer.status for answer in answers} == {401}
        said = here.log.read_text()
        assert said.count("Settings need a restart: drain_timeout_s") == 1
        hang_up(callers)


@ensureDeferred
async def test_no_secret_is_on_a_command_line_or_in_the_log(tmp_path: Path) -> None:
    """Everybody on the machine can read how a process was started."""
    (tmp_path / ".env").write_text("API_KEY=sesame\n")
    async with (
        breakable(Traits()) as upstream,
        two_workers(tmp_path, upstream) as here,
    ):
        caller = await connect(here.port)
        shown = await caller.get("/-/status.json", key="sesame")
        unknown = await caller.get("/-/status.json", key="wrong")
        caller.hang_up()

        assert (shown.status, unknown.status) == (200, 401)
        started = [command_of(pid) for pid in workers_of(here.process.pid)]
        assert len(started) == 2
        assert "sesame" not in "".join([*started, here.log.read_text()])


def command_of(pid: int) -> str:
    """Say how a process was started."""
    return Path(f"/proc/{pid}/cmdline").read_text()


@pytest.mark.parametrize("path", ["/health", "/ping", "/-/ready", "/-/healthy"])
@ensureDeferred
async def test_whoever_asks_for_health_has_an_answer_of_all(
    tmp_path: Path, path: str
) -> None:
    """The same at the clients' door and at that of the operators."""
    async with (
        breakable(Traits()) as upstream,
        two_workers(tmp_path, upstream, "--operations-port=0") as here,
    ):
        at_clients = await page(here, path)

        assert at_clients.body == (await page(operators_of(here), path)).body


@ensureDeferred
async def test_a_call_can_be_tried_at_the_operators_door(tmp_path: Path) -> None:
    """As the live page does, wherever that is shown."""
    async with (
        breakable(Traits()) as upstream,
        two_workers(tmp_path, upstream, "--operations-port=0") as here,
    ):
        caller = await connect(operators_of(here).port)

        await ask(caller, "a")

        assert await figure(operators_of(here), "abproxy_calls_total") == 1
        assert (await caller.get("/-/")).status == 200
        caller.hang_up()


def operators_of(here: Daemon) -> Daemon:
    """Find the door of the operators."""
    said = here.log.read_text()
    [port] = re.findall(r"Operations are on http://127.0.0.1:(\d+)", said)
    return Daemon(process=here.process, log=here.log, port=int(port))


@ensureDeferred
async def test_lines_of_the_access_log_are_whole(tmp_path: Path) -> None:
    """All workers write into one file."""
    async with (
        breakable(Traits()) as upstream,
        two_workers(
            tmp_path, upstream, "--access-log=access.log", "--log-format=json"
        ) as here,
    ):
        callers = await asked_by(here, 50)

        lines = (tmp_path / "access.log").read_text().splitlines()
        assert [json.loads(line)["path"] for line in lines] == ["/embed"] * 50
        logged = [json.loads(line) for line in here.log.read_text().splitlines()]
        assert {line.get("worker") for line in logged} == {None, "1", "2"}
        hang_up(callers)


def test_a_port_in_use_is_one_line(tmp_path: Path) -> None:
    """It is found out before any worker is started."""
    with socket.create_server((LOCALHOST, 0)) as taken:
        port = taken.getsockname()[1]

        code, said = refusal(tmp_path, "--workers=2", f"--port={port}")

    why = f"cannot listen on 127.0.0.1 port {port}: Address already in use"
    assert (code, said) == (1, f"abproxy: {why}\n")


def test_what_cannot_be_shared_is_one_line(tmp_path: Path) -> None:
    """A socket that is a file would go with the first worker that ends."""
    code, said = refusal(tmp_path, "--workers=2", "--port=unix:abproxy.sock")

    why = "WORKERS can share a TCP port, but not unix:abproxy.sock"
    assert (code, said) == (1, f"abproxy: {why}\n")
    assert not (tmp_path / "abproxy.sock").exists()


def test_a_worker_that_cannot_start_is_the_end_of_all(tmp_path: Path) -> None:
    """One line says why."""
    code, said = refusal(
        tmp_path, "--workers=2", "--port=0", "--access-log=no/such/folder"
    )

    [line] = [line for line in said.splitlines() if "Cannot start" in line]
    assert code == 1
    assert line.endswith("cannot write to no/such/folder: No such file or directory")
