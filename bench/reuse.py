"""
What it brings that nothing is computed twice: Zipf's texts, and a real model.

    python -m bench.reuse [--seconds 10] [--rounds 3] [--write]

200 clients ask the embedded model for texts of which some are asked for far more
often than others, as users of a search do (the n-th most frequent one n times less
often than the first), through three abproxies in turn: one that shares nothing, one
that computes equal texts in flight once, and one that remembers rows as well.
"""

import argparse
import random
import sys
import tempfile
from collections.abc import Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from statistics import median
from urllib.parse import urlsplit

from bench.wire.cores import usable
from bench.wire.errors import CannotMeasure
from bench.wire.load import choose
from bench.wire.pages import replaced
from bench.wire.processes import Child, child, free_port
from bench.wire.rounds import turns

CLIENTS = 200
TEXTS = 10_000
REQUESTS = 20_000
DOCUMENT = Path(__file__).parent.parent / "docs" / "caching.md"
MAKER = "bench.reuse"

WAYS = {
    "nothing is shared (`DEDUPE=no`)": {"DEDUPE": "no"},
    "equal texts in flight (the default)": {},
    "rows are remembered (`CACHE_BYTES`)": {"CACHE_BYTES": "67108864"},
}


def requests(url: str) -> list[bytes]:
    """Draw the requests of all clients, the same for every way."""
    chosen = random.Random(1)  # noqa: S311
    weights = [1 / rank for rank in range(1, TEXTS + 1)]
    ranks = chosen.choices(range(TEXTS), weights, k=REQUESTS)
    host = urlsplit(url).netloc.encode()
    bodies = [b'{"inputs":["How does number %d work?"]}' % rank for rank in ranks]
    return [
        b"POST /embed HTTP/1.1\r\nHost: %b\r\nContent-Type: application/json\r\n"
        b"Content-Length: %d\r\n\r\n%b" % (host, len(body), body)
        for body in bodies
    ]


def measure(seconds: int, rounds: int) -> dict[str, list[tuple[float, float, float]]]:
    """Return calls a second, and median and slowest of 100 in ms, of each round."""
    seen: dict[str, list[tuple[float, float, float]]] = {way: [] for way in WAYS}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _, load = choose(usable(), folder)
        for order in turns([*WAYS], rounds):
            for way in order:
                with _proxy(folder, WAYS[way]) as proxy:
                    found = load(proxy.url, requests(proxy.url), CLIENTS, seconds)
                if found.errors:
                    raise CannotMeasure(f"{way}: {found.errors}")
                seen[way].append((found.calls_per_s, found.p50_ms, found.p99_ms))
    return seen


def _proxy(folder: Path, environ: dict[str, str]) -> AbstractContextManager[Child]:
    port = free_port()
    twistd = Path(sys.executable).with_name("twistd")
    command = [twistd, "--nodaemon", "--pidfile=", "abproxy", f"--port={port}"]
    return child(
        "abproxy",
        [*command, "--embedded"],
        port,
        cores=usable(),
        folder=folder,
        environ=environ,
    )


def table(seen: dict[str, list[tuple[float, float, float]]]) -> str:
    """Write the medians as a table."""
    lines = [
        "| | calls/s | median | slowest of 100 |",
        "| --- | ---: | ---: | ---: |",
    ]
    for way, rounds in seen.items():
        rate, p50, p99 = (median(values) for values in zip(*rounds, strict=True))
        lines.append(f"| {way} | {rate:,.0f} | {p50:,.0f} ms | {p99:,.0f} ms |")
    return "\n".join(lines)


def main(arguments: Sequence[str]) -> None:
    """Measure, print, and write the table if asked to."""
    parser = argparse.ArgumentParser(prog="python -m bench.reuse")
    parser.add_argument("--seconds", type=int, default=10)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--write", action="store_true", help="into docs/caching.md")
    options = parser.parse_args(arguments)
    found = table(measure(options.seconds, options.rounds))
    sys.stdout.write(found + "\n")
    if options.write:
        text = DOCUMENT.read_text(encoding="utf-8")
        DOCUMENT.write_text(replaced(text, found, MAKER), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
