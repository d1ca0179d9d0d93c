"""Our own pages at a port of their own, which closes last."""

import re
import socket
from collections.abc import Iterator
from pathlib import Path
from signal import SIGTERM

import pytest
from pytest_twisted import ensureDeferred
from twisted.internet.error import ConnectError, ConnectionClosed
from twisted.logger import capturedLogs

from abproxy.service.proxy import SAME_SIGNAL_S
from bench.breakable import Traits
from support.client import LOCALHOST, connect, sleep, until
from support.processes import daemon, refusal
from support.proxy import StartedProxy, started_proxy
from support.upstream import breakable

PATIENT = ("--drain-timeout=600", "--upstream-timeout=600")
"""Longer than any test."""


@pytest.fixture
def taken() -> Iterator[str]:
    """Return a port that is in use."""
    with socket.create_server((LOCALHOST, 0)) as ours:
        yield str(ours.getsockname()[1])


async def statuses(here: StartedProxy, *paths: str) -> tuple[list[int], list[int]]:
    """Return the statuses of *paths* at the clients' port, and at the operators'."""
    client, operator = await here.caller(), await here.operator()
    return (
        [(await client.get(path)).status for path in paths],
        [(await operator.get(path)).status for path in paths],
    )


@ensureDeferred
async def test_the_pages_are_at_their_port_and_not_at_the_clients() -> None:
    """What is the upstream's there is asked of the upstream."""
    async with started_proxy(operations_port="0") as here:
        ours = ("/-/", "/-/status.json", "/-/docs", "/metrics")

        at_clients, at_operators = await statuses(here, *ours)

        assert at_clients == [404] * 4
        assert at_operators == [200] * 4


@ensureDeferred
async def test_the_metrics_at_the_clients_port_are_the_upstreams() -> None:
    """Its own word is passed on: this one has none."""
    async with started_proxy(operations_port="0") as here:
        client, direct = await here.caller(), await here.caller(here.upstream.port)

        answers = [await each.get("/metrics") for each in (client, direct)]

        assert [answer.status for answer in answers] == [404, 404]
        assert answers[0].body == answers[1].body


@ensureDeferred
async def test_health_is_at_both_ports() -> None:
    """Balancers ask at one, supervisors at the other."""
    async with started_proxy(operations_port="0") as here:
        ours = ("/health", "/ping", "/-/healthy", "/-/ready")

        at_clients, at_operators = await statuses(here, *ours)

        assert at_clients == at_operators == [200] * 4


@ensureDeferred
async def test_a_call_can_be_tried_at_the_operators_port() -> None:
    """As the page's box for it does; it may share a batch with the clients'."""
    async with started_proxy(
        operations_port="0", max_wait_ms=60_000, max_batch_calls=2
    ) as here:
        client, operator = await here.caller(), await here.operator()

        asked, tried = client.embed("a"), operator.embed("b")

        assert (await asked).is_for(["a"])
        assert (await tried).is_for(["b"])
        assert here.upstream.seen.batches == [2]
        assert 'batch;desc="2 calls"' in ((await tried).header("Server-Timing") or "")


@ensureDeferred
async def test_keys_are_wanted_at_both_ports() -> None:
    """Not everyone who can reach the port may see it all."""
    async with started_proxy(operations_port="0", api_keys=("one",)) as here:
        operator = await here.operator()

        without = [
            await operator.get("/-/status.json"),
            await operator.get("/-/"),
            await operator.embed("a"),
            await operator.get("/metrics"),
        ]
        with_key = [
            await operator.get("/-/status.json", "one"),
            await operator.get("/-/", "one"),
        ]

        assert [answer.status for answer in without] == [401, 401, 401, 200]
        assert [answer.status for answer in with_key] == [200, 200]


@ensureDeferred
async def test_the_log_says_where_the_pages_are() -> None:
    """As an address to click on."""
    with capturedLogs() as logged:
        async with started_proxy(operations_port="0") as here:
            address = f"http://{LOCALHOST}:{here.operations_port}"

    told = [event for event in logged if "Operations" in event["log_format"]]
    assert [event["address"] for event in told] == [address]


@ensureDeferred
async def test_the_pages_are_there_while_the_upstream_is_not() -> None:
    """That is when they are needed."""
    async with started_proxy(operations_port="0", is_up=False) as here:
        operator = await here.operator()

        ready = await operator.get("/-/ready")
        page = await operator.get("/-/")

        assert ready.status == 503
        assert [each["reason"] for each in ready.json["reasons"]] == ["unreachable"]
        assert page.status == 200


# Going to stop


@ensureDeferred
async def test_the_pages_are_there_until_the_last_call_is_answered() -> None:
    """Its operators see it drain, and a balancer is told of it."""
    async with started_proxy(Traits(workers=0), operations_port="0") as here:
        client, operator = await here.caller(), await here.operator()
        asked = client.embed("a")
        await until(lambda: here.upstream.work.inputs == 1)

        stopped = here.service.stopService()
        ready = await operator.get("/-/ready")
        health = await operator.get("/health")
        alive = await operator.get("/-/healthy")
        figures = await operator.get("/metrics")

        assert [ready.status, health.status, alive.status] == [503, 503, 200]
        assert [each["reason"] for each in ready.json["reasons"]] == ["draining"]
        assert b"\nabproxy_draining 1.0\n" in figures.body
        assert b"\nabproxy_requests_open 2.0\n" in figures.body
        here.upstream.change(workers=1)
        assert (await asked).is_for(["a"])
        await stopped


@ensureDeferred
async def test_operators_are_let_in_while_the_clients_port_is_closed() -> None:
    """Prometheus opens a connection whenever it likes."""
    async with started_proxy(Traits(workers=0), operations_port="0") as here:
        client = await here.caller()
        port, operations_port = here.port, here.operations_port
        asked = client.embed("a")
        await until(lambda: here.upstream.work.inputs == 1)

        stopped = here.service.stopService()
        operator = await here.operator()

        assert (await operator.get("/-/healthy")).status == 200
        with pytest.raises(ConnectError, match="refused"):
            await connect(port)
        here.upstream.change(workers=1)
        assert (await asked).is_for(["a"])
        await stopped
        with pytest.raises(ConnectError, match="refused"):
            await connect(operations_port)


@ensureDeferred
async def test_a_call_at_the_operators_port_is_answered_too() -> None:
    """It was accepted, and may take as long as those at the clients' port."""
    async with started_proxy(Traits(ms=1200), operations_port="0") as here:
        operator = await here.operator()
        tried = operator.embed("a")
        await until(lambda: here.upstream.work.inputs == 1)

        await here.service.stopService()

        answer = await tried
        assert answer.is_for(["a"])
        assert answer.header("Connection") == "close"


@ensureDeferred
async def test_an_operator_who_is_silent_is_not_waited_for() -> None:
    """A connection kept for the next scrape is closed."""
    async with started_proxy(operations_port="0") as here:
        operator = await here.operator()
        await operator.get("/metrics")

        await here.service.stopService()

        await until(lambda: not operator.is_open)


@ensureDeferred
async def test_an_operator_who_does_not_finish_is_cut_off() -> None:
    """The process is not kept by a request that does not end."""
    async with started_proxy(operations_port="0", drain_timeout_s=0.2) as here:
        operator = await here.operator()
        operator.transport.write(b"GET /metrics HTTP/1.1\r\nX-")
        [channel] = await _channels(here)
        await until(lambda: channel.requests)

        await here.service.stopService()

        await until(lambda: not operator.is_open)


async def _channels(here: StartedProxy) -> list[object]:
    gate = here.service.private
    assert gate is not None
    await until(lambda: gate.site.channels)
    return list(gate.site.channels)


@ensureDeferred
async def test_a_second_signal_cuts_off_operators_too(tmp_path: Path) -> None:
    """An operator who is in a hurry need not wait."""
    async with (
        breakable(Traits(ms=60_000)) as upstream,
        daemon(tmp_path, upstream, "--operations-port=0", *PATIENT) as here,
    ):
        operator = await connect(_operations(here.log))
        tried = operator.embed("a")
        await until(lambda: upstream.work.inputs == 1)

        here.process.send_signal(SIGTERM)
        await until(lambda: "Draining" in here.log.read_text())
        await sleep(2 * SAME_SIGNAL_S)
        here.process.send_signal(SIGTERM)

        with pytest.raises(ConnectionClosed):
            await tried
        await until(lambda: here.process.poll() is not None)
        assert here.process.returncode == 0


@ensureDeferred
async def test_sigterm_closes_both_ports_and_ends_the_process(tmp_path: Path) -> None:
    """With success."""
    async with (
        breakable(Traits(workers=0)) as upstream,
        daemon(tmp_path, upstream, "--operations-port=0") as here,
    ):
        client, operator = (
            await connect(here.port),
            await connect(_operations(here.log)),
        )
        asked = client.embed("a")
        await until(lambda: upstream.work.inputs == 1)

        here.process.send_signal(SIGTERM)
        await until(lambda: "Draining 1 calls" in here.log.read_text())
        ready = await operator.get("/-/ready")

        assert ready.status == 503
        upstream.change(workers=1)
        assert (await asked).is_for(["a"])
        await until(lambda: here.process.poll() is not None)
        assert here.process.returncode == 0


def _operations(log: Path) -> int:
    [port] = re.findall(r"Operations are on http://\S+:(\d+)/-/", log.read_text())
    return int(port)


# A port that cannot be had


@pytest.mark.parametrize(
    ("spell", "told"),
    [("{}", f"{LOCALHOST} port {{}}"), (f"tcp:{{}}:interface={LOCALHOST}",) * 2],
)
def test_a_port_in_use_is_one_clear_line(
    tmp_path: Path, taken: str, spell: str, told: str
) -> None:
    """Before anything else is made."""
    ended = refusal(tmp_path, "--port=0", f"--operations-port={spell.format(taken)}")

    place = told.format(taken)
    assert ended == (1, f"abproxy: cannot listen on {place}: Address already in use\n")


def test_what_is_no_endpoint_is_one_clear_line(tmp_path: Path) -> None:
    """Which does not blame the clients' port."""
    code, told = refusal(tmp_path, "--port=0", "--operations-port=nonsense:1")

    assert code == 1
    assert told.startswith("abproxy: cannot listen on nonsense:1: not an endpoint: ")
    assert told.count("\n") == 1
