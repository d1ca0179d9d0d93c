"""
Does it pay, in front of servers as people have them, over real sockets?

    python -m bench.sockets [--seconds 5] [--rounds 2] [--only NAME] [--write]

Each cell is a server and a number of clients that ask one after the other: first
directly, then through abproxy with default settings, in turns.  Servers: one that
computes requests one by one; four of these behind HAProxy, which spreads connections
as a Service of Kubernetes does; three whose addresses abproxy is given, so that it
chooses by itself; and the embedded model, a real one, with texts of one
length and with mixed ones.  Everything shares the cores of the machine, so what
counts are the ratios.
"""

import argparse
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path
from statistics import median
from urllib.parse import urlsplit

from attrs import frozen

from bench.wire.contestants import ROOT
from bench.wire.cores import usable
from bench.wire.errors import CannotMeasure
from bench.wire.load import Load, Seen, choose
from bench.wire.pages import replaced
from bench.wire.processes import Child, child, free_port
from bench.wire.rounds import turns

DOCUMENT = ROOT / "docs" / "flow.md"
MAKER = "bench.sockets"
MEMBERS = 4
WARM_S = 6
"""So long abproxy learns how freely batches are to leave."""

DIRECT, ABPROXY = "direct", "abproxy"
DIFFERENT = 4096

HAPROXY = """
global
    maxconn 5000
defaults
    mode tcp
    timeout connect 5s
    timeout client 300s
    timeout server 300s
listen servers
    bind 127.0.0.1:{port}
    balance roundrobin
{servers}
"""


@frozen(kw_only=True)
class Server:
    """A kind of server, and what is asked of it."""

    name: str
    start: Callable[[ExitStack, Path], tuple[str, str]]
    """Start it; return its URL, and what abproxy is told, which may be several."""

    clients: Sequence[int]
    words: Sequence[int] = (8,)
    """How many words the texts have, in turn."""


def _twistd(
    folder: Path, name: str, *options: str, **environ: str
) -> AbstractContextManager[Child]:
    port = free_port()
    program = Path(sys.executable).with_name("twistd")
    command = [program, "--nodaemon", "--pidfile=", name, f"--port={port}", *options]
    return child(name, command, port, cores=usable(), folder=folder, environ=environ)


def _serial(folder: Path, slow: int = 1) -> AbstractContextManager[Child]:
    port = free_port()
    command = [sys.executable, "-m", "bench.breakable", f"--port={port}"]
    command += [f"--ms={20 * slow}", f"--ms-per-input={2 * slow}"]
    command += ["--permits=100000", "--dimensions=384"]
    return child(
        "server",
        command,
        port,
        cores=usable(),
        folder=folder,
        environ={"PYTHONPATH": str(ROOT)},
    )


def start_serial(stack: ExitStack, folder: Path) -> tuple[str, str]:
    """Start one server that computes requests one by one."""
    url = stack.enter_context(_serial(folder)).url
    return url, url


def start_members(stack: ExitStack, folder: Path) -> tuple[str, str]:
    """Start several such servers behind a balancer of connections."""
    url, _ = _behind_balancer(stack, folder, [1] * MEMBERS)
    return url, url


def start_three(stack: ExitStack, folder: Path) -> tuple[str, str]:
    """Start three such servers that abproxy knows by their addresses."""
    return _behind_balancer(stack, folder, [1, 1, 1])


def start_uneven(stack: ExitStack, folder: Path) -> tuple[str, str]:
    """Start the same with one of them half as fast."""
    return _behind_balancer(stack, folder, [1, 1, 2])


def _behind_balancer(
    stack: ExitStack, folder: Path, slow: Sequence[int]
) -> tuple[str, str]:
    """Start servers, so many times as *slow*; return the balancer's URL and theirs."""
    program = shutil.which("haproxy")
    if program is None:
        raise CannotMeasure("no haproxy here: apt-get install haproxy")
    urls = [stack.enter_context(_serial(folder, each)).url for each in slow]
    lines = [f"    server s{at} {urlsplit(url).netloc}" for at, url in enumerate(urls)]
    port, file = free_port(), folder / "haproxy.cfg"
    file.write_text(HAPROXY.format(port=port, servers="\n".join(lines)))
    balancer = child(
        "haproxy",
        [program, "-db", "-f", file],
        port,
        cores=usable(),
        folder=folder,
        environ=dict(os.environ),
    )
    return stack.enter_context(balancer).url, ",".join(urls)


def start_model(stack: ExitStack, folder: Path) -> tuple[str, str]:
    """Start the embedded model, as a server of its own."""
    url = stack.enter_context(_twistd(folder, "abproxy-model")).url
    return url, url


SERVERS = (
    Server(
        name="one by one, 20 ms and 2 ms an input",
        start=start_serial,
        clients=(1, 2, 8, 64, 200),
    ),
    Server(
        name="four of these behind HAProxy",
        start=start_members,
        clients=(8, 64, 200, 1000),
    ),
    Server(
        name="three whose addresses abproxy is given",
        start=start_three,
        clients=(24, 192),
    ),
    Server(
        name="the same, one of them half as fast",
        start=start_uneven,
        clients=(24, 192),
    ),
    Server(name="the embedded model", start=start_model, clients=(1, 8, 64)),
    Server(
        name="the embedded model, texts of 4 to 100 words",
        start=start_model,
        clients=(8, 64),
        words=(4, 4, 4, 12, 4, 30, 4, 100),
    ),
)


def requests(url: str, words: Sequence[int]) -> list[bytes]:
    """Write the requests of all clients: one text each, all of them different."""
    host = urlsplit(url).netloc.encode()
    found = []
    for number in range(DIFFERENT):
        text = " ".join([f"number {number} of"] + ["word"] * words[number % len(words)])
        body = b'{"inputs":["%b"]}' % text.encode()
        found.append(
            b"POST /embed HTTP/1.1\r\nHost: %b\r\nContent-Type: application/json\r\n"
            b"Content-Length: %d\r\n\r\n%b" % (host, len(body), body)
        )
    return found


@contextmanager
def both(server: Server, folder: Path) -> Iterator[dict[str, str]]:
    """Start a server, and abproxy in front of it; give their URLs."""
    with ExitStack() as stack:
        url, told = server.start(stack, folder)
        proxy = _twistd(folder, "abproxy", INFERENCE_SERVICE_URL=told)
        yield {DIRECT: url, ABPROXY: stack.enter_context(proxy).url}


def measure(server: Server, load: Load, folder: Path, seconds: int, rounds: int) -> str:
    """Return the rows of a table for one server."""
    rows = []
    for clients in server.clients:
        seen: dict[str, list[Seen]] = {DIRECT: [], ABPROXY: []}
        with both(server, folder) as urls:
            asked = {way: requests(url, server.words) for way, url in urls.items()}
            load(urls[ABPROXY], asked[ABPROXY], clients, WARM_S)
            for order in turns([*seen], rounds):
                for way in order:
                    found = load(urls[way], asked[way], clients, seconds)
                    if found.errors:
                        raise CannotMeasure(f"{server.name}, {way}: {found.errors}")
                    seen[way].append(found)
        rows.append(_row(server.name, clients, seen))
        sys.stderr.write(rows[-1] + "\n")
    return "\n".join(rows)


def _row(name: str, clients: int, seen: dict[str, list[Seen]]) -> str:
    rates = {way: median(each.calls_per_s for each in seen[way]) for way in seen}
    p50 = {way: median(each.p50_ms for each in seen[way]) for way in seen}
    ratio = rates[ABPROXY] / rates[DIRECT]
    calls = " | ".join(f"{rates[way]:,.0f}" for way in (DIRECT, ABPROXY))
    waits = " | ".join(f"{p50[way]:,.1f}" for way in (DIRECT, ABPROXY))
    return f"| {name} | {clients:,} | {calls} | {ratio:.2f} | {waits} |"


def main(arguments: Sequence[str]) -> None:
    """Measure, print, and write the table if asked to."""
    parser = argparse.ArgumentParser(prog="python -m bench.sockets")
    parser.add_argument("--seconds", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--only", default="", help="servers with this in their names")
    parser.add_argument("--write", action="store_true", help="into docs/flow.md")
    options = parser.parse_args(arguments)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _, load = choose(usable(), folder)
        rows = [
            measure(server, load, folder, options.seconds, options.rounds)
            for server in SERVERS
            if options.only in server.name
        ]
    head = (
        "| Server | Clients | Direct, calls/s | abproxy, calls/s | Ratio "
        "| Direct, median ms | abproxy, median ms |\n"
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |\n"
    )
    table = head + "\n".join(rows)
    sys.stdout.write(table + "\n")
    if options.write and not options.only:
        text = DOCUMENT.read_text(encoding="utf-8")
        DOCUMENT.write_text(replaced(text, table, MAKER), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
