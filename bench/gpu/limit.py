"""
The limit: a model fed straight, with no server around it.

Texts are tokenized, go to the card, and rows come back, one step after the
other; the best of several sizes of a step is the limit.  It is that of this
card with PyTorch: with a small model the card still waits for Python.

    python -m bench.gpu.limit minilm=10,100 large=10
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from time import perf_counter
from typing import Any

from bench.gpu.model import Model, load, sizes
from bench.gpu.plan import Cell
from bench.gpu.words import texts
from bench.wire.contestants import ROOT
from bench.wire.errors import CannotMeasure

__all__ = ["limit_of", "measured", "wanted"]

COUNTS = (1, 8, 32, 128, 512)
STEP_S = 0.5
PATIENCE_S = 180
PACKAGES = ("torch", "transformers", "tokenizers", "fastapi", "uvicorn")


def wanted(cells: Iterable[Cell]) -> list[str]:
    """Say what has to be known to judge *cells*."""
    words: dict[str, set[int]] = {}
    for cell in cells:
        words.setdefault(cell.shape, set()).add(cell.words)
    return [
        f"{shape}={','.join(map(str, sorted(each)))}" for shape, each in words.items()
    ]


def measured(cells: Iterable[Cell], *, dry: bool) -> Mapping[str, Any]:
    """
    Measure in a process of its own, which leaves the card empty.

    Raises:
        CannotMeasure: there is no card, or no PyTorch.
    """
    command = [sys.executable, "-m", "bench.gpu.limit", *wanted(cells)]
    ran = subprocess.run(  # noqa: S603
        [*command, *(["--dry"] if dry else [])],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": path()},
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    if ran.returncode:
        said = "\n".join(ran.stderr.splitlines()[-10:])
        raise CannotMeasure(f"the model cannot be fed straight:\n{said}")
    found: Mapping[str, Any] = json.loads(ran.stdout.splitlines()[-1])
    return found


def path() -> str:
    """Write a PYTHONPATH on which this package is found as well."""
    return os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])


def limit_of(model: Model, words: int, step_s: float) -> dict[str, float]:
    """Measure texts a second for several numbers of texts in a step."""
    found = {}
    for count in sizes(words, COUNTS):
        batch = texts(words, count)
        model.encode(batch)
        began_at, steps = perf_counter(), 0
        while (took_s := perf_counter() - began_at) < step_s:
            model.encode(batch)
            steps += 1
        found[str(count)] = round(count * steps / took_s, 1)
    return found


def _card(*, dry: bool) -> Mapping[str, Any]:
    if dry:
        return {"card": "no card, a model that sleeps", "packages": {}}
    from importlib.metadata import version  # noqa: PLC0415

    import torch  # noqa: PLC0415

    if not torch.cuda.is_available():
        sys.exit("PyTorch finds no CUDA device here; --dry tries all without one")
    return {
        "card": torch.cuda.get_device_name(),
        "packages": {name: version(name) for name in PACKAGES},
    }


def main(arguments: Sequence[str]) -> None:
    """Print what was found as a line of JSON."""
    dry = "--dry" in arguments
    found: dict[str, Any] = {**_card(dry=dry), "limits": {}}
    for each in arguments:
        shape, _, words = each.partition("=")
        if not words:
            continue
        model = load(shape, dry=dry)
        found["limits"][shape] = {
            number: limit_of(model, int(number), STEP_S / 10 if dry else STEP_S)
            for number in words.split(",")
        }
    sys.stdout.write(f"{json.dumps(found)}\n")


if __name__ == "__main__":
    main(sys.argv[1:])
