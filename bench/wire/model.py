"""
The original workload on a real model: 200 clients, two short texts a call.

Here the model is what takes the time, and nothing has a core of its own: it is
`make load/noproxy` against `make load`, in turns.
"""

import importlib.util
import sys
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path

from attrs import evolve

from bench.load import requests_for
from bench.wire.bench import Bench, Found, say
from bench.wire.contestants import ABPROXY, DIRECT
from bench.wire.cores import Cores, usable
from bench.wire.errors import CannotMeasure
from bench.wire.processes import Child, child, free_port
from bench.wire.rounds import turns

__all__ = ["model"]

CLIENTS = 200
LEAST_S = 7
"""A client waits seconds for its turn: shorter runs would see a few answers each."""

ROUNDS = 3
PACKAGES = ("numpy", "safetensors", "tokenizers")


def model(bench: Bench) -> Found:
    """Measure the embedded model alone, and with abproxy in front of it."""
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        return {"skipped": f"the model needs {', '.join(missing)}: make run gets them"}
    try:
        return _measured(bench, max(LEAST_S, bench.seconds))
    except CannotMeasure as error:
        return {"skipped": str(error)}


def _measured(bench: Bench, seconds: int) -> Found:
    found: Found = {"clients": CLIENTS, "seconds": seconds, DIRECT: [], ABPROXY: []}
    with ExitStack() as stack:
        servers = {DIRECT: stack.enter_context(_model_server(bench.folder))}
        everywhere = Cores(proxy=usable(), upstream=usable(), load=usable())
        proxy = evolve(bench.ground, cores=everywhere).abproxy(servers[DIRECT].url)
        servers[ABPROXY] = stack.enter_context(proxy)
        for order in turns([*servers], ROUNDS):
            for name in order:
                say(f"model: {name}, {CLIENTS} clients, {seconds} s")
                found[name].append(_seen(bench, servers[name], seconds))
    return found


def _seen(bench: Bench, server: Child, seconds: int) -> Found:
    requests = requests_for(f"{server.url}/embed")
    seen = bench.load(server.url, requests, CLIENTS, seconds)
    if seen.errors:
        raise CannotMeasure(f"the model's answers had errors: {seen.errors}")
    rate = round(seen.calls_per_s, 1)
    return {"calls_per_s": rate, "p50_ms": seen.p50_ms, "p99_ms": seen.p99_ms}


def _model_server(folder: Path) -> AbstractContextManager[Child]:
    port = free_port()
    twistd = Path(sys.executable).with_name("twistd")
    return child(
        "model",
        [twistd, "--nodaemon", "--pidfile=", "abproxy-model", f"--port={port}"],
        port,
        cores=usable(),
        folder=folder,
    )
