"""
The servers that are asked: two of our own, and those that are installed.

An installed one gets the same model as files.
"""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from time import sleep

from attrs import frozen

from bench.gpu.limit import path
from bench.gpu.plan import Cell
from bench.gpu.serving import command
from bench.wire.contestants import ROOT
from bench.wire.cores import Cores
from bench.wire.errors import CannotMeasure
from bench.wire.processes import Child, child, free_port

__all__ = ["INSTALLED", "OWN", "Installed", "found_here", "settled", "started"]

OWN = ("naive", "batcher")
READY_S = 150
"""For loading a model and meeting each shape; vLLM compiles meanwhile."""

IDLE = 0.1
"""The share of a core that a server needs while no client asks it."""

SETTLE_S, MOST_WAITS = 0.5, 80


@frozen(kw_only=True)
class Installed:
    """A server that others wrote."""

    program: str
    options: Callable[[str, str], Sequence[str]]
    """Of the folder of the model, and the port."""

    is_openai: bool


INSTALLED: Mapping[str, Installed] = {
    "TEI": Installed(
        program="text-embeddings-router",
        options=lambda folder, port: [
            *("--model-id", folder, "--port", port, "--hostname", "127.0.0.1"),
            *("--dtype", "float16", "--pooling", "mean"),
            *("--max-client-batch-size", "256", "--max-concurrent-requests", "4096"),
        ],
        is_openai=False,
    ),
    "Infinity": Installed(
        program="infinity_emb",
        options=lambda folder, port: [
            *("v2", "--model-id", folder, "--port", port, "--url-prefix", "/v1"),
            *("--engine", "torch", "--dtype", "float16", "--device", "cuda"),
        ],
        is_openai=True,
    ),
    "vLLM": Installed(
        program="vllm",
        options=lambda folder, port: [
            *("serve", folder, "--port", port, "--runner", "pooling"),
            *("--served-model-name", "model"),
        ],
        is_openai=True,
    ),
}


def found_here() -> list[str]:
    """Say which of the installable servers are installed."""
    return [name for name, each in INSTALLED.items() if _program(each)]


def _program(server: Installed) -> str | None:
    beside = Path(sys.executable).parent
    return shutil.which(server.program) or shutil.which(server.program, path=beside)


@contextmanager
def started(
    cells: Sequence[Cell], cores: Cores, folder: Path, *, dry: bool
) -> Iterator[Child]:
    """
    Run the server of *cells*, warm, until the context is left.

    Raises:
        CannotMeasure: it did not start.
    """
    server, shape = cells[0].server, cells[0].shape
    port = free_port()
    if server in OWN:
        words = sorted({each.words for each in cells})
        line = [sys.executable, *command(server, shape, port, words, dry=dry)]
    else:
        files = str(_files(shape, folder))
        program = str(_program(INSTALLED[server]))
        line = [program, *INSTALLED[server].options(files, str(port))]
    with child(
        server,
        line,
        port,
        cores=cores.upstream,
        folder=folder,
        environ={**os.environ, "PYTHONPATH": path()},
        ready_s=READY_S,
    ) as running:
        yield running


def _files(shape: str, folder: Path) -> Path:
    files = folder / shape
    if not files.exists():
        ran = subprocess.run(  # noqa: S603
            [sys.executable, "-m", "bench.gpu.bert", shape, files],
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": path()},
            capture_output=True,
            text=True,
            check=False,
        )
        if ran.returncode:
            raise CannotMeasure(f"the model cannot be written:\n{ran.stderr[-500:]}")
    return files


def settled(server: Child, wait: Callable[[float], None] = sleep) -> bool:
    """
    Wait until a server has nothing to do any more, but not for ever.

    Some go on with calls of clients that have long left; the one that is measured
    next would wait behind them.
    """
    before_s = server.cpu_s
    for _ in range(MOST_WAITS):
        wait(SETTLE_S)
        now_s = server.cpu_s
        if now_s - before_s < IDLE * SETTLE_S:
            return True
        before_s = now_s
    return False
