"""
What does an account with one request a second carry, with abproxy and without?

    python -m bench.hosted [--seconds 60] [--write]

200 clients ask a simulated hosted API for one text each, over real sockets: one after
the other, and when they are refused, again after the `Retry-After` that they are told.
An account of it may have 60 requests and a million tokens in a minute, and a request
100 texts.  First directly, then through abproxy that knows only what the answers
state, then through one that is told the limit.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Any

from bench.hosted.clients import ask_for
from bench.wire.contestants import ROOT
from bench.wire.cores import usable
from bench.wire.errors import CannotMeasure
from bench.wire.pages import replaced
from bench.wire.processes import Child, child, free_port

CLIENTS = 200
REQUESTS, TOKENS, INPUTS = 60, 1_000_000, 100
WARM_S = 30.0
"""So long the account still has what it had not used before."""

JSON = ROOT / "docs" / "hosted.json"
PAGES = (ROOT / "README.md", ROOT / "docs" / "hosted.md")
MAKER = "make bench/hosted"

CAP = {"MAX_BATCH_INPUTS": str(INPUTS)}
WAYS: Mapping[str, Mapping[str, str] | None] = {
    "directly": None,
    "through abproxy, by what the answers state": CAP,
    "through abproxy, `UPSTREAM_REQUESTS_PER_MINUTE=60`": {
        **CAP,
        "UPSTREAM_REQUESTS_PER_MINUTE": str(REQUESTS),
    },
}

Found = Mapping[str, Mapping[str, Any]]


def measure(seconds: float, warm_s: float, clients: int) -> Found:
    """Return what the clients met on each way."""
    found = {}
    for way, environ in WAYS.items():
        with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
            folder = Path(name)
            server = stack.enter_context(_api(folder))
            url = server.url
            if environ is not None:
                settings = {"INFERENCE_SERVICE_URL": url, **environ}
                url = stack.enter_context(_proxy(folder, settings)).url
            seen = ask_for(url, clients, warm_s, seconds)
        if seen.failed:
            raise CannotMeasure(f"{way}: {seen.failed} calls failed")
        found[way] = {
            "calls_per_s": round(seen.calls_per_s, 2),
            "half_s": round(seen.half_s, 2),
            "refused": seen.refused,
            "refused_share": round(seen.refused_share, 4),
        }
    return found


def _api(folder: Path) -> AbstractContextManager[Child]:
    port = free_port()
    numbers = [f"--requests={REQUESTS}", f"--tokens={TOKENS}", f"--inputs={INPUTS}"]
    command = [sys.executable, "-m", "bench.hosted.server", f"--port={port}", *numbers]
    environ = {"PYTHONPATH": str(ROOT)}
    return child("api", command, port, cores=usable(), folder=folder, environ=environ)


def _proxy(folder: Path, environ: Mapping[str, str]) -> AbstractContextManager[Child]:
    port = free_port()
    twistd = Path(sys.executable).with_name("twistd")
    command = [twistd, "--nodaemon", "--pidfile=", "abproxy", f"--port={port}"]
    return child(
        "abproxy", command, port, cores=usable(), folder=folder, environ=environ
    )


def table(found: Found) -> str:
    """Write the figures as a table."""
    what = f"{CLIENTS} clients, {REQUESTS // 60} request a second"
    lines = [
        f"| {what} | calls/s | half are answered within | answers that are 429 |",
        "| --- | ---: | ---: | ---: |",
    ]
    for way, seen in found.items():
        half_s, share = seen["half_s"], seen["refused_share"]
        lines.append(
            f"| {way} | {seen['calls_per_s']:,.1f} | {_time(half_s)} | {share:.1%} |"
        )
    return "\n".join(lines)


def _time(seconds: float) -> str:
    longest = 60
    return "over a minute" if seconds >= longest else f"{seconds:.1f} s"


def main(arguments: Sequence[str]) -> None:
    """Measure, print, and write the figures if asked to."""
    parser = argparse.ArgumentParser(prog="python -m bench.hosted")
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--warm", type=float, default=WARM_S, help="seconds before")
    parser.add_argument("--clients", type=int, default=CLIENTS)
    parser.add_argument("--write", action="store_true", help="into the documents")
    options = parser.parse_args(arguments)
    found = measure(options.seconds, options.warm, options.clients)
    made = table(found)
    sys.stdout.write(made + "\n")
    if options.write:
        JSON.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        for page in PAGES:
            text = page.read_text(encoding="utf-8")
            page.write_text(replaced(text, made, MAKER), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
