"""
A real Prometheus with the rules of `deploy/`, in a hurry.

It is told the same as in production, but to scrape one proxy on this machine,
every half second; and an alert that takes a minute takes a second.
"""

import re
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
from attrs import field, frozen
from treq.client import HTTPClient
from twisted.web.client import Agent

from deploy.deployed import read_yaml
from support.client import LOCALHOST, sleep

__all__ = ["Prometheus", "prometheus"]

SOON_S = 20
"""How long what should happen may take on a machine that has other things to do."""


def _reactor() -> Any:
    from twisted.internet import reactor  # noqa: PLC0415  not before it is chosen

    return reactor


@frozen(kw_only=True)
class Prometheus:
    """One that runs."""

    port: int
    _http: HTTPClient = field(factory=lambda: HTTPClient(Agent(_reactor())), repr=False)

    async def ask(self, query: str) -> list[Any]:
        """Give what is there now; what is no number is not there."""
        found = await self._get("query", query=query)
        return [each for each in found["result"] if each["value"][1] != "NaN"]

    async def becomes(self, query: str) -> list[Any]:
        """Wait until *query* has an answer."""
        ends_at = _reactor().seconds() + SOON_S
        while not (found := await self.ask(query)):
            assert _reactor().seconds() < ends_at, f"nothing came of {query}"
            await sleep(0.1)
        return found

    async def alerts(self) -> dict[str, Any]:
        """Give all alerts, pending or firing, by name."""
        found = await self._get("alerts")
        return {alert["labels"]["alertname"]: alert for alert in found["alerts"]}

    async def _get(self, what: str, **params: str) -> Any:
        url = f"http://{LOCALHOST}:{self.port}/api/v1/{what}"
        response = await self._http.get(url, params=params)
        answer = await response.json()
        assert answer["status"] == "success", answer
        return answer["data"]


def _write(folder: Path, proxy_port: int) -> Path:
    """Write the configuration, and beside it the rules that it names."""
    [told] = read_yaml("deploy/prometheus/prometheus.yml")
    [rules] = read_yaml("deploy/prometheus/alerts.yml")
    told["global"] = {"scrape_interval": "500ms", "evaluation_interval": "250ms"}
    [scrape] = told["scrape_configs"]
    del scrape["dns_sd_configs"]
    scrape["static_configs"] = [{"targets": [f"{LOCALHOST}:{proxy_port}"]}]
    for rule in rules["groups"][0]["rules"]:
        rule["for"] = rule.get("for", "0m").replace("m", "s").replace("h", "m")
    [name] = told["rule_files"]
    (folder / name).write_bytes(msgspec.json.encode(rules))
    file = folder / "prometheus.yml"
    file.write_bytes(msgspec.json.encode(told))
    return file


@asynccontextmanager
async def prometheus(folder: Path, proxy_port: int) -> AsyncIterator[Prometheus]:
    """Run Prometheus in *folder*, and let it scrape the proxy."""
    log = folder / "prometheus.log"
    file = _write(folder, proxy_port)
    program = shutil.which("prometheus")
    assert program is not None, "there is no prometheus here"
    with log.open("wb") as output:
        process = subprocess.Popen(  # noqa: ASYNC220, S603  it starts at once
            [
                program,
                f"--config.file={file}",
                f"--storage.tsdb.path={folder / 'data'}",
                f"--web.listen-address={LOCALHOST}:0",
            ],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        ends_at = _reactor().seconds() + SOON_S
        while "Server is ready" not in log.read_text():
            assert process.poll() is None, log.read_text()
            assert _reactor().seconds() < ends_at, log.read_text()
            await sleep(0.05)
        [port] = re.findall(r"Listening on.*:(\d+)", log.read_text())
        yield Prometheus(port=int(port))
    finally:
        process.kill()
        process.wait()
