"""What there is to see on our pages: an upstream, and calls of clients."""

import json
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent


def status(url: str) -> Any:
    """Ask the proxy how things are."""
    with urllib.request.urlopen(f"{url}/-/status.json", timeout=30) as answer:  # noqa: S310
        return json.load(answer)


def embed(url: str, *texts: str, **options: Any) -> int:
    """Send one call; says the status of the answer."""
    body = json.dumps({"inputs": texts, **options}).encode()
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(f"{url}/embed", body, headers)  # noqa: S310
    with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
        answer.read()
        return int(answer.status)


@contextmanager
def breakable(*options: str) -> Iterator[str]:
    """Run the upstream that breaks on command; says where."""
    command = [sys.executable, "-m", "bench.breakable", "--port=0", *options]
    with _child(command, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        yield child.stdout.readline().decode().split()[-1]


@contextmanager
def load(url: str, clients: int = 20) -> Iterator[None]:
    """Let many clients call until it is enough."""
    command = [sys.executable, "bench/load.py", f"--clients={clients}"]
    command += ["--seconds=600", f"{url}/embed"]
    with _child(command):
        yield


@contextmanager
def _child(
    command: list[str], stdout: int = subprocess.DEVNULL
) -> "Iterator[subprocess.Popen[bytes]]":
    with subprocess.Popen(command, cwd=ROOT, stdout=stdout) as child:  # noqa: S603
        try:
            yield child
        finally:
            child.kill()
