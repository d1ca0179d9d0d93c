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
from pytest_twisted import ensureDeferred
from twisted.internet.error import ConnectError, ConnectionClosed
from twisted.internet.threads import deferToThread

from abproxy.service.proxy import SAME_SIGNAL_S
from abproxy.workers.ipc import COUNTS
from abproxy.workers.sockets import ConnectionCounts
from bench.breakable import Breakable, Traits
from support.certificates import make_certificate
from support.client import (
    LOCALHOST,
    Caller,
    Tally,
    connect,
    endpoint,
    read_all,
    shake_hands,
    sleep,
    together,
    until,
)
from support.processes import (
    Daemon,
    daemon,
    has_ended,
    paused,
    refusal,
    workers_of,
)
from support.upstream import breakable


@asynccontextmanager
async def two_workers(
    folder: Path, upstream: Breakable, *options: str
) -> AsyncIterator[Daemon]:
    """Run a supervisor with two workers, both of which accept clients."""
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


async def ten_of_each(here: Daemon) -> tuple[list[Caller], list[Caller]]:
    """Let ten callers ask the first worker, and ten the second one."""
    first, second = workers_of(here.process.pid)
    async with paused(second):
        of_first = await asked_by(here, 10)
    async with paused(first):
        of_second = await asked_by(here, 10)
    return of_first, of_second


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


async def figures(here: Daemon, *, answering: int = 2) -> dict[str, float]:
    """Read all figures, labels added up, once so many workers have answered."""
    while True:
        figures: dict[str, float] = {}
        body = (await page(here, "/metrics")).body.decode()
        for name, value in re.findall(r"^(\w+)(?:\{.*\})? (\S+)$", body, re.MULTILINE):
            figures[name] = figures.get(name, 0) + float(value)
        # A worker has a second, which a busy machine may not give it.
        if figures["abproxy_workers_answering"] == answering:
            return figures


async def status(here: Daemon) -> Any:
    """Read the status, once both workers have answered."""
    while True:
        document = (await page(here, "/-/status.json")).json
        if all(worker["answers"] for worker in document["workers"]):
            return document


def hang_up(callers: list[Caller]) -> None:
    """Reset all connections."""
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

        said = await figures(here)
        document = await status(here)

        assert said["abproxy_calls_total"] == 20
        assert said["abproxy_call_duration_seconds_count"] == 20
        assert document["totals"]["calls"] == 20
        assert sum(batch["calls"] for batch in document["batches"]) == 20
        assert [worker["name"] for worker in document["workers"]] == ["1", "2"]
        hang_up(callers)


@ensureDeferred
async def test_operators_may_connect_with_tls(tmp_path: Path) -> None:
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
    """Each knows how many connections the other has; one log says which says what."""
    async with (
        breakable(Traits()) as upstream,
        two_workers(tmp_path, upstream) as here,
    ):
        of_first, of_second = await ten_of_each(here)

        private = re.findall(r"Operations are on (\S+?)/-/", here.log.read_text())
        counts = ConnectionCounts.at(Path(private[0]).with_name(COUNTS), 2)

        assert [calls_of(path) for path in private] == [10, 10]
        assert counts.fewer(than=20) == [10, 10]
        assert "worker 1: abproxy answers on" in here.log.read_text()
        hang_up([*of_first, *of_second])


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
    """Each call is answered, by one worker or the other, before all is over."""
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
    """An operator in a hurry does not wait for a silent upstream."""
    async with (
        breakable(Traits(ms=60_000)) as upstream,
        two_workers(tmp_path, upstream) as here,
    ):
        caller = await connect(here.port)
        asked = caller.embed("a")
        await until(lambda: upstream.seen.batches)

        here.process.send_signal(signal.SIGTERM)
        await until(lambda: "Draining 1 calls" in here.log.read_text())
        await sleep(2 * SAME_SIGNAL_S)
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
        of_killed, of_spared = await ten_of_each(here)
        before = await figures(here)
        [killed, spared] = workers_of(here.process.pid)

        os.kill(killed, signal.SIGKILL)
        await until(lambda: "ended with signal 9" in here.log.read_text())
        await until(lambda: len(workers_of(here.process.pid)) == 2)
        await until(lambda: not any(caller.is_open for caller in of_killed))
        await together(ask(caller, "again") for caller in of_spared)
        after = await figures(here)

        assert spared in workers_of(here.process.pid)
        assert before["abproxy_calls_total"] == 20
        assert after["abproxy_calls_total"] == 30
        assert after["abproxy_worker_restarts_total"] == 1
        hang_up(of_spared)


@ensureDeferred
async def test_without_a_supervisor_workers_end(tmp_path: Path) -> None:
    """After they have answered what they have accepted; nothing is left behind."""
    async with (
        breakable(Traits(workers=0)) as upstream,
        two_workers(tmp_path, upstream) as here,
    ):
        caller = await connect(here.port)
        asked = caller.embed("a")
        await until(lambda: upstream.seen.batches)
        workers = workers_of(here.process.pid)
        [private, _] = re.findall(r"Operations are on (\S+?)/-/", here.log.read_text())

        here.process.kill()
        await refuses(here.port)
        upstream.change(workers=1)

        assert (await asked).is_for(["a"])
        await until(lambda: all(map(has_ended, workers)))
        assert not Path(private).parent.exists()


async def refuses(port: int) -> None:
    """Wait until no worker accepts clients any more."""
    while True:
        try:
            caller = await connect(port)
        except ConnectError:
            return
        caller.hang_up()
        await sleep(0.05)


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
        before = await figures(operators)
        [silent, _] = workers_of(here.process.pid)

        async with paused(silent):
            meanwhile = await figures(operators, answering=1)

        assert before["abproxy_calls_total"] == 20
        assert meanwhile["abproxy_calls_total"] == 20
        hang_up(callers)


@ensureDeferred
async def test_sighup_reaches_every_worker(tmp_path: Path) -> None:
    """A key that was added to the file is required of every client."""
    async with (
        breakable(Traits()) as upstream,
        two_workers(tmp_path, upstream) as here,
    ):
        callers = await asked_by(here, 4)
        (tmp_path / ".env").write_text("API_KEY=sesame\nCONNECT_TIMEOUT=7\n")

        here.process.send_signal(signal.SIGHUP)
        changed = "Settings changed: API_KEY"
        await until(lambda: here.log.read_text().count(changed) == 2)
        answers = [await caller.embed("a") for caller in callers]

        assert {answer.status for answer in answers} == {401}
        said = here.log.read_text()
        assert said.count("Settings need a restart: CONNECT_TIMEOUT") == 1
        hang_up(callers)


@ensureDeferred
async def test_no_secret_is_on_a_command_line_or_in_the_log(tmp_path: Path) -> None:
    """Every user of the machine can read how a process was started."""
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
    """Return the command line of a process."""
    return Path(f"/proc/{pid}/cmdline").read_text()


@pytest.mark.parametrize("path", ["/health", "/ping", "/-/ready", "/-/healthy"])
@ensureDeferred
async def test_health_is_that_of_all_workers(tmp_path: Path, path: str) -> None:
    """The same at the clients' port and at that of the operators."""
    async with (
        breakable(Traits()) as upstream,
        two_workers(tmp_path, upstream, "--operations-port=0") as here,
    ):
        at_clients = await page(here, path)

        assert at_clients.body == (await page(operators_of(here), path)).body


@ensureDeferred
async def test_a_call_can_be_tried_at_the_operators_port(tmp_path: Path) -> None:
    """As the live page does, wherever that is shown."""
    async with (
        breakable(Traits()) as upstream,
        two_workers(tmp_path, upstream, "--operations-port=0") as here,
    ):
        caller = await connect(operators_of(here).port)

        await ask(caller, "a")

        assert (await figures(operators_of(here)))["abproxy_calls_total"] == 1
        assert (await caller.get("/-/")).status == 200
        caller.hang_up()


def operators_of(here: Daemon) -> Daemon:
    """Find the port of the operators."""
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

        access_log = tmp_path / "access.log"
        # A client has its answer before its line is written.
        await until(lambda: access_log.read_text().count("\n") >= 50)
        lines = access_log.read_text().splitlines()
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


@ensureDeferred
async def test_only_workers_have_a_copy_of_the_code_of_python(tmp_path: Path) -> None:
    """A supervisor answers no calls, for which the copy is."""
    async with breakable(Traits()) as upstream, two_workers(tmp_path, upstream) as here:
        supervisor = here.process.pid
        found = [*map(_has_copy, [supervisor, *workers_of(supervisor)])]

    if not any(found):
        pytest.skip("this system has no huge pages")
    assert found == [False, True, True]


def _has_copy(pid: int) -> bool:
    return "python-code" in Path(f"/proc/{pid}/maps").read_text()
