"""
The mock upstream as a program: compiled when it is first wanted.

By itself:

    python -m bench.wire.upstream --port 8080 --dimensions 384
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

from bench.wire import rows
from bench.wire.errors import CannotMeasure

__all__ = ["command", "compiled", "compiler"]

SOURCE = Path(__file__).with_name("upstream.c")


def compiler() -> str | None:
    """Find a C compiler: what CC says, or what is usually there."""
    names = (os.environ.get("CC", ""), "cc", "gcc", "clang")
    return next(
        (found for name in names if name and (found := shutil.which(name))), None
    )


def compiled() -> Path:
    """
    Compile the program, unless this version of it has been.

    Raises:
        CannotMeasure: there is no C compiler, or it refused.
    """
    version = sha256(SOURCE.read_bytes()).hexdigest()[:12]
    folder = Path(tempfile.gettempdir()) / f"abproxy-bench-{os.getuid()}"
    program = folder / f"upstream-{version}"
    if program.exists():
        return program
    if (cc := compiler()) is None:
        raise CannotMeasure(
            "the mock upstream is written in C and there is no C compiler; "
            "on Debian: apt-get install gcc libc6-dev"
        )
    folder.mkdir(mode=0o700, exist_ok=True)
    fresh = folder / f"{program.name}.{os.getpid()}"
    made = subprocess.run(  # noqa: S603
        [cc, "-O2", "-o", fresh, SOURCE], capture_output=True, text=True, check=False
    )
    if made.returncode:
        raise CannotMeasure(f"{cc} could not compile {SOURCE}:\n{made.stderr}")
    fresh.replace(program)  # at once: others may be starting it
    return program


def command(
    port: int, dimensions: int, folder: Path, takes_ms: float = 0
) -> list[str | Path]:
    """
    Say how to start it; what it needs is written into *folder*.

    With *takes_ms* each request takes that long, one after the other.
    """
    rows_file = folder / f"rows-{dimensions}"
    if not rows_file.exists():
        rows.write(dimensions, rows_file)
    return [compiled(), str(port), rows_file, str(round(takes_ms * 1000))]


def main(arguments: Sequence[str]) -> None:
    """Become the program."""
    parser = argparse.ArgumentParser(prog="python -m bench.wire.upstream")
    parser.add_argument("--port", type=int, default=8080, help="0 is any")
    parser.add_argument("--dimensions", type=int, default=384)
    parser.add_argument("--takes-ms", type=float, default=0)
    options = parser.parse_args(arguments)
    folder, takes_ms = compiled().parent, options.takes_ms
    program, *rest = command(options.port, options.dimensions, folder, takes_ms)
    os.execv(program, [str(program), *map(str, rest)])  # noqa: S606


if __name__ == "__main__":
    main(sys.argv[1:])
