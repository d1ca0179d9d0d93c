"""The configurations for load balancers do what `docs/behind-a-balancer.md` says."""

import json
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from deploy.balancing import (
    BALANCERS,
    Balancer,
    Load,
    Proxies,
    Proxy,
    ask,
    balanced,
    proxies,
    restart_each,
    until,
    upstream,
)

LARGE = ["x" * 10_000] * 400
"""Four megabytes: more than nginx takes by itself, and than its memory is for."""

AWAY_S = 3
"""Longer than it takes all health checks to notice, shorter than patience."""


@pytest.fixture(params=BALANCERS.values(), ids=BALANCERS)
def balancer(request: pytest.FixtureRequest) -> Balancer:
    """Give one that is installed."""
    chosen: Balancer = request.param
    if chosen.program is None:
        pytest.skip(f"no {chosen.name} here")
    return chosen


@pytest.fixture
def server(tmp_path: Path) -> Iterator[str]:
    """Run an inference server."""
    with upstream(tmp_path / "upstream", "--max-batch=1000") as url:
        yield url


def test_calls_and_answers_of_any_size_pass(
    balancer: Balancer, server: str, tmp_path: Path
) -> None:
    """Up to what abproxy itself allows."""
    with (
        proxies(tmp_path, server) as both,
        balanced(balancer, tmp_path / "front", [each.port for each in both]) as port,
    ):
        status, body = ask(port, body={"inputs": LARGE})

    assert status == 200
    assert len(json.loads(body)) == len(LARGE)


def test_abproxy_knows_clients_apart(
    balancer: Balancer, server: str, tmp_path: Path
) -> None:
    """By the line that the balancer adds, as this one is trusted."""
    logs = "--access-log=access", "--trusted-proxies=127.0.0.1"
    with (
        proxies(tmp_path, server, *logs) as both,
        balanced(balancer, tmp_path / "front", [each.port for each in both]) as port,
    ):
        for source in ("127.0.0.2", "127.0.0.3"):
            ask(port, body={"inputs": source}, source=source)

    assert _clients(both) == {"127.0.0.2", "127.0.0.3"}


def _clients(proxies: Proxies) -> set[str]:
    """Find in the access logs whose calls they were."""
    logs = ((each.folder / "access").read_text() for each in proxies)
    lines = (line for log in logs for line in log.splitlines() if "/embed" in line)
    return {line.split()[0] for line in lines}


def test_the_proxy_protocol_tells_clients_apart(server: str, tmp_path: Path) -> None:
    """HAProxy can tell their addresses in that way, too."""
    haproxy = BALANCERS["haproxy"]
    if haproxy.program is None:
        pytest.skip("no haproxy here")
    listens = "haproxy:tcp:{port}:interface=127.0.0.1"
    logs = "--access-log=access"
    with (
        proxies(tmp_path, server, logs, listens=listens) as both,
        balanced(
            haproxy,
            tmp_path / "front",
            [each.port for each in both],
            lambda text: re.sub(r"(?m)^( +server .*)$", r"\1 send-proxy-v2", text),
        ) as port,
    ):
        for source in ("127.0.0.2", "127.0.0.3"):
            ask(port, body={"inputs": source}, source=source)

    assert _clients(both) == {"127.0.0.2", "127.0.0.3"}


def test_calls_wait_for_an_inference_server_that_restarts(
    balancer: Balancer, server: str, tmp_path: Path
) -> None:
    """No proxy is ready then, and yet the balancer gives them to one."""
    with (
        proxies(tmp_path, server) as both,
        balanced(balancer, tmp_path / "front", [each.port for each in both]) as port,
    ):
        load = Load(port, clients=4)
        with load.running():
            with suppress(ConnectionError):  # it answers nothing any more
                ask(_port(server), "/-/do", {"do": "die", "seconds": AWAY_S})
            until(lambda: not _is_ready(both[0]))
            began = sum(load.answers.values())
            until(lambda: _is_ready(both[0]))
            until(lambda: sum(load.answers.values()) > began + 100)

    assert load.failed == {}


def _is_ready(proxy: Proxy) -> bool:
    return ask(proxy.operations, "/-/ready")[0] == 200


def _port(url: str) -> int:
    return int(url.rpartition(":")[2])


def test_a_rolling_restart_loses_no_call(
    balancer: Balancer, server: str, tmp_path: Path
) -> None:
    """Of clients that keep their connections."""
    with (
        proxies(tmp_path, server) as both,
        balanced(balancer, tmp_path / "front", [each.port for each in both]) as port,
    ):
        load = Load(port)
        with load.running():
            restart_each(both)

    assert load.failed == {}
    assert load.answers[200] > 1000
