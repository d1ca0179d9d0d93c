"""A process imports what its settings ask for, and a call finds all of it there."""

import re
from pathlib import Path

import pytest
import requests
from pytest_twisted import ensureDeferred
from twisted.internet.threads import deferToThread

from bench.breakable import Traits, row_of
from support.client import until
from support.processes import Daemon, daemon
from support.upstream import breakable

SEVERAL = "http://127.0.0.1:1,http://127.0.0.1:2"

SHOW_IMPORTS = {"PYTHONPROFILEIMPORTTIME": "1"}

OF_FEATURES = {
    "abproxy.process": "WORKERS",
    "abproxy.reuse.memory": "CACHE_BYTES",
    "abproxy.reuse.redis": "CACHE_URL",
    "abproxy.reuse.shared": "CACHE_URL",
    "abproxy.telemetry.access_log": "ACCESS_LOG",
    "abproxy.telemetry.tracing": "OTEL_EXPORTER_OTLP_ENDPOINT",
    "abproxy.upstream.embedded": "EMBEDDED",
    "abproxy.upstream.fleet.fleet": "several servers",
    "abproxy.upstream.treq_client": "FAST_PATHS without client",
    "abproxy.web.proxy_header": "PORT with haproxy:",
    "abproxy.web.tls": "TLS_CERT",
    "abproxy.workers.wiring": "WORKERS",
    "abproxy_model.files": "EMBEDDED",
    "dotenv": "a .env file",
    "statistics": "several servers",
    "tomllib": "MODELS",
    "treq": "FAST_PATHS without client",
}
"""Modules, and what is wanted of them."""


def imported(here: Daemon) -> list[str]:
    """List the modules that a process has imported, in order."""
    said = here.log.read_text()
    return re.findall(r"^import time: +\d+ \| +\d+ \| +(\S+)$", said, re.MULTILINE)


def embed(url: str) -> list[list[float]]:
    """Make a call."""
    answer = requests.post(f"{url}/embed", json={"inputs": "a"}, timeout=30)
    rows: list[list[float]] = answer.json()
    return rows


@ensureDeferred
async def test_what_no_setting_asks_for_is_not_imported(tmp_path: Path) -> None:
    """Each of these modules would be memory of every process, for nothing."""
    async with (
        breakable(Traits()) as upstream,
        daemon(tmp_path, upstream, **SHOW_IMPORTS) as here,
    ):
        found = imported(here)

    assert "abproxy.wiring" in found
    assert not OF_FEATURES.keys() & {*found}


@pytest.mark.parametrize(
    ("module", "option"),
    [
        ("abproxy.reuse.memory", "--cache-bytes=1000000"),
        ("abproxy.telemetry.access_log", "--access-log=here"),
        ("abproxy.upstream.fleet.fleet", f"--inference-service-url={SEVERAL}"),
        ("abproxy.upstream.treq_client", "--fast-paths=server"),
    ],
)
@ensureDeferred
async def test_what_a_setting_asks_for_is_imported(
    tmp_path: Path, module: str, option: str
) -> None:
    """Under the name by which it is not found above."""
    async with (
        breakable(Traits()) as upstream,
        daemon(tmp_path, upstream, option, **SHOW_IMPORTS) as here,
    ):
        found = imported(here)

    assert module in found


@ensureDeferred
async def test_a_call_imports_nothing(tmp_path: Path) -> None:
    """The first caller does not wait for files to be read."""
    async with (
        breakable(Traits()) as upstream,
        daemon(tmp_path, upstream, **SHOW_IMPORTS) as here,
    ):
        # To ask it for that, Python imports what looks up names.
        await until(lambda: "The inference server has" in here.log.read_text())
        at_start = imported(here)
        rows = await deferToThread(embed, f"http://127.0.0.1:{here.port}")
        then = imported(here)

    assert rows == [row_of("a", len(rows[0]))]
    assert then[len(at_start) :] == []
