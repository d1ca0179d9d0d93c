"""The whole proxy for real: `twistd abproxy --embedded`, sockets, a model."""

import json
import re
import subprocess
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from attrs import frozen

from abproxy_model.files import MINILM
from support.processes import TWISTD, Running, running

TEXTS = [f"text number {number} of a few" for number in range(60)]
ALLOWED = {"static": 0.0, "minilm": 1e-6}
"""How far a row may be from the model's own: not at all, or a float's width."""


HEADERS = {"Content-Type": "application/json"}


@frozen(kw_only=True)
class Deployment:
    """The proxy and the model behind it."""

    name: str
    proxy: Running

    url: str
    direct: str
    """Where the model answers without the proxy."""


def _ask(url: str, path: str, body: Any = None) -> Any:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url + path, data, HEADERS)  # noqa: S310
    with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
        return json.load(answer)


@pytest.fixture(scope="module", params=["static", "minilm"])
def deployment(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Deployment]:
    """Start the proxy with its own model."""
    folder = tmp_path_factory.mktemp("end-to-end") / request.param
    options = ("--port=0", "--embedded", f"--embedded-model={request.param}")
    with running(folder, " answers on ", "abproxy", *options) as proxy:
        found = re.search(r"answers on (\S+); inference server: (\S+)", proxy.log)
        assert found is not None
        yield Deployment(name=request.param, proxy=proxy, url=found[1], direct=found[2])


def _distance(one: list[float], other: list[float]) -> float:
    return max(abs(a - b) for a, b in zip(one, other, strict=True))


def test_many_clients_get_their_own_rows(deployment: Deployment) -> None:
    """Sixty callers at once: each gets what the model answers it alone."""
    with ThreadPoolExecutor(20) as clients:
        found = list(
            clients.map(
                lambda text: _ask(deployment.url, "/embed", {"inputs": text}), TEXTS
            )
        )

    alone = [_ask(deployment.direct, "/embed", {"inputs": text}) for text in TEXTS]
    apart = [_distance(a[0], b[0]) for a, b in zip(found, alone, strict=True)]
    assert max(apart) <= ALLOWED[deployment.name]


def test_the_calls_travelled_together(deployment: Deployment) -> None:
    """What arrives while the proxy is busy reaches the model as a few requests."""
    callers = [
        HTTPConnection(urlsplit(deployment.url).netloc, timeout=30) for _ in TEXTS
    ]
    before = _requests(deployment.direct)

    with deployment.proxy.held_still():
        for caller, text in zip(callers, TEXTS, strict=True):
            caller.request("POST", "/embed", json.dumps({"inputs": text}), HEADERS)
    statuses = [_answered(caller) for caller in callers]

    assert statuses == [200] * len(TEXTS)
    assert _requests(deployment.direct) - before < len(TEXTS) / 4


def _answered(caller: HTTPConnection) -> int:
    with caller.getresponse() as answer:
        answer.read()
    caller.close()
    return answer.status


def _requests(url: str) -> float:
    with urllib.request.urlopen(f"{url}/metrics", timeout=30) as answer:  # noqa: S310
        lines = answer.read().decode().splitlines()
    counted = [line for line in lines if line.startswith("te_request_count{")]
    return sum(float(line.rsplit(" ", 1)[1]) for line in counted)


def test_a_large_call_is_joined_in_order(deployment: Deployment) -> None:
    """More texts than the model takes in one request come back as one answer."""
    texts = TEXTS * 3

    found = _ask(deployment.url, "/embed", {"inputs": texts})

    parts = [texts[at : at + 30] for at in range(0, len(texts), 30)]
    alone = [
        row
        for part in parts
        for row in _ask(deployment.direct, "/embed", {"inputs": part})
    ]
    apart = [_distance(a, b) for a, b in zip(found, alone, strict=True)]
    assert max(apart) <= ALLOWED[deployment.name]


def test_a_model_that_cannot_start_ends_the_proxy(tmp_path: Path) -> None:
    """Nobody waits at a door that will never open, and the exit code says so."""
    package = tmp_path / MINILM.module
    for name in ("__init__.py", MINILM.weights, MINILM.tokenizer):
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).touch()

    ended = subprocess.run(  # noqa: S603
        [TWISTD, "--nodaemon", "--pidfile=", "abproxy", "--port=0", "--embedded"],
        cwd=tmp_path,
        env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(tmp_path)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )

    assert ended.returncode == 1
    assert "is not the file that was published" in ended.stdout
    assert "Cannot start: the embedded model ended with exit code 1" in ended.stdout
    assert "Traceback" not in ended.stdout + ended.stderr
