"""What our own two servers have in common: their command line and their model."""

import argparse
from collections.abc import Sequence

from attrs import frozen

from bench.gpu.model import Model, load, warm
from bench.gpu.shapes import SHAPES

__all__ = ["Served", "command", "prepare"]


@frozen(kw_only=True)
class Served:
    """What a server is to serve, and where."""

    model: Model
    shape: str
    port: int


def command(
    server: str, shape: str, port: int, words: Sequence[int], *, dry: bool
) -> list[str]:
    """Write the arguments for Python that start it."""
    options = [f"--shape={shape}", f"--port={port}", *(["--dry"] if dry else [])]
    return ["-m", f"bench.gpu.{server}", *options, "--words", *map(str, words)]


def prepare(server: str) -> Served:
    """Read the command line, load the model, and warm it."""
    parser = argparse.ArgumentParser(prog=f"python -m bench.gpu.{server}")
    parser.add_argument("--shape", choices=SHAPES, default="minilm")
    parser.add_argument("--port", type=int, default=8080)
    parser.add_argument("--dry", action="store_true", help="only pretend")
    parser.add_argument(
        "--words", type=int, nargs="+", default=[10], help="of texts to be ready for"
    )
    options = parser.parse_args()
    model = load(options.shape, dry=options.dry)
    warm(model, options.words)
    return Served(model=model, shape=options.shape, port=options.port)
