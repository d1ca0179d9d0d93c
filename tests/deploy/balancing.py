"""Load balancers that run with the configurations in `deploy/`, and load on them."""

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from secrets import randbelow
from threading import Event, Lock, Thread
from typing import Any

from attrs import define, field, frozen

from deploy.deployed import DEPLOY, ROOT
from real.running import PLACES, nginx_with, running

__all__ = [
    "BALANCERS",
    "Balancer",
    "Load",
    "Proxies",
    "Proxy",
    "ask",
    "balanced",
    "free_port",
    "proxies",
    "restart_each",
    "until",
    "upstream",
]

PORTS = (8080, 8081, 8082)
"""What the configurations have: where clients connect, and two proxies."""

PATIENCE_S = 30.0

PAUSE_S = 0.01
"""Between two calls of a client, so that the machine is not the limit."""

OK = 200
JSON = {"Content-Type": "application/json"}


def free_port() -> int:
    """
    Find a port that nothing listens on, and that no connection gets by chance.

    While a server is away, a connection to its port could otherwise have the same
    port at both ends, and be one to itself.
    """
    while True:
        port = 20_000 + randbelow(12_000)
        with suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


@frozen(kw_only=True)
class Balancer:
    """A program, and the configuration for it."""

    name: str
    file: str
    command: Callable[[Path, Path], Sequence[str]]
    """Returns how it is started, with a folder to write to and a configuration."""

    @property
    def program(self) -> str | None:
        """The path of the program, if it is installed."""
        places = [str(PLACES / "envoy/bin"), os.environ["PATH"], "/usr/sbin"]
        return shutil.which(self.name, path=os.pathsep.join(places))

    def config(self) -> str:
        """Read the configuration."""
        return (DEPLOY / self.file).read_text(encoding="utf-8")

    def version(self) -> str:
        """Return the version of the program."""
        option = "--version" if self.name == "envoy" else "-v"
        ran = subprocess.run(  # noqa: S603
            [str(self.program), option], capture_output=True, text=True, check=True
        )
        [found, *_] = re.findall(r"\d+\.\d+\.\d+", ran.stdout + ran.stderr)
        return str(found)


def _haproxy(_folder: Path, config: Path) -> Sequence[str]:
    return ["-db", "-f", str(config)]


def _nginx(folder: Path, config: Path) -> Sequence[str]:
    config.rename(folder / "abproxy.conf")
    user = "user root root;" if os.geteuid() == 0 else ""
    text = nginx_with("include {folder}/abproxy.conf;")
    config.write_text(text.format(folder=folder, user=user))
    return ["-e", "error.log", "-p", str(folder), "-c", str(config)]


def _envoy(_folder: Path, config: Path) -> Sequence[str]:
    return ["--config-path", str(config), "--concurrency", "1", "-l", "warn"]


BALANCERS = {
    each.name: each
    for each in (
        Balancer(name="haproxy", file="haproxy/haproxy.cfg", command=_haproxy),
        Balancer(name="nginx", file="nginx/abproxy.conf", command=_nginx),
        Balancer(name="envoy", file="envoy/envoy.yaml", command=_envoy),
    )
}


def placed(text: str, ports: Sequence[int]) -> str:
    """Put the *ports* of a test into a configuration, for those that it has."""
    for written, port in zip(PORTS, ports, strict=True):
        text = re.sub(
            rf"(127\.0\.0\.1:|port_value: ){written}\b", rf"\g<1>{port}", text
        )
    return text


@contextmanager
def balanced(
    balancer: Balancer,
    folder: Path,
    ports: Sequence[int],
    change: Callable[[str], str] = str,
) -> Iterator[int]:
    """Run a balancer in front of two proxies, and give the port for clients."""
    front = free_port()
    folder.mkdir(parents=True)
    config = folder / Path(balancer.file).name.replace("abproxy", "nginx")
    config.write_text(placed(change(balancer.config()), [front, *ports]))
    command = [str(balancer.program), *balancer.command(folder, config)]
    # Ready when its health checks have found a proxy: till then it answers 503.
    with running(folder, command, f"http://127.0.0.1:{front}", ready="/-/healthy"):
        yield front


@contextmanager
def upstream(folder: Path, *options: str, port: int | None = None) -> Iterator[str]:
    """Run an inference server that breaks on command, and give its URL."""
    port = port or free_port()
    command = [sys.executable, "-m", "bench.breakable", f"--port={port}", *options]
    url = f"http://127.0.0.1:{port}"
    path = {"PYTHONPATH": str(ROOT)}
    with running(folder, command, url, ready="/health", environment=path):
        yield url


@define(kw_only=True, eq=False)
class Proxy:
    """An abproxy that can be restarted, always on the same port."""

    folder: Path
    upstream: str
    options: Sequence[str] = ()
    listens: str = "{port}"
    """What PORT is."""

    port: int = field(factory=free_port)
    operations: int = field(factory=free_port)
    _running: ExitStack = field(init=False, factory=ExitStack)

    def start(self) -> None:
        """Start, and wait until it answers."""
        twistd = str(Path(sys.executable).with_name("twistd"))
        command = [twistd, "--nodaemon", "--pidfile=", "abproxy", *self.options]
        command += [f"--port={self.listens.format(port=self.port)}"]
        command += [f"--operations-port={self.operations}"]
        command += [f"--inference-service-url={self.upstream}"]
        url = f"http://127.0.0.1:{self.operations}"
        self._running.enter_context(
            running(self.folder, command, url, ready="/-/healthy")
        )

    def stop(self) -> None:
        """Send SIGTERM, and wait for the end."""
        self._running.close()

    def calls(self) -> int:
        """Return how many calls it has answered."""
        _, text = ask(self.operations, "/metrics")
        found = re.findall(rb"^abproxy_calls_total{.*} (\S+)$", text, re.MULTILINE)
        return round(sum(map(float, found)))


Proxies = Sequence[Proxy]


@contextmanager
def proxies(folder: Path, url: str, *options: str, **more: Any) -> Iterator[Proxies]:
    """Run two proxies in front of an inference server."""
    both = [
        Proxy(folder=folder / str(at), upstream=url, options=options, **more)
        for at in (1, 2)
    ]
    with ExitStack() as stack:
        for each in both:
            each.start()
            stack.callback(each.stop)
        yield both


def ask(
    port: int, path: str = "/embed", body: Any = None, source: str = "127.0.0.1"
) -> tuple[int, bytes]:
    """Make a call over a connection of its own, and return status and body."""
    connection = HTTPConnection(
        "127.0.0.1", port, timeout=PATIENCE_S, source_address=(source, 0)
    )
    with closing(connection):
        return _answer(connection, path, body)


def _inputs(text: str) -> Any:
    return {"inputs": text}


def _answer(
    connection: HTTPConnection, path: str, body: Any, header: Mapping[str, str] = JSON
) -> tuple[int, bytes]:
    method = "GET" if body is None else "POST"
    sent = None if body is None else json.dumps(body).encode()
    connection.request(method, path, sent, dict(header))
    answer = connection.getresponse()
    return answer.status, answer.read()


def until(holds: Callable[[], Any]) -> None:
    """Wait until something holds."""
    give_up_at = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < give_up_at
        time.sleep(0.05)


@define(eq=False)
class Load:
    """Clients that keep their connections, each with one call after the other."""

    port: int
    clients: int = 32
    path: str = "/embed"
    body: Callable[[str], Any] = _inputs
    """Makes the body of a client's calls of its text."""

    header: Mapping[str, str] = JSON
    answers: Counter[int] = field(factory=Counter)
    lost: Counter[str] = field(factory=Counter)
    _is_over: Event = field(factory=Event)
    _lock: Lock = field(factory=Lock)

    @contextmanager
    def running(self) -> Iterator[None]:
        """Make calls until the block is left; each is counted."""
        threads = [
            Thread(target=self._call_on_and_on, args=(f"client {at}",))
            for at in range(self.clients)
        ]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._is_over.set()
            for thread in threads:
                thread.join()

    @property
    def failed(self) -> dict[str, int]:
        """What was not answered with 200, and how often."""
        others = {str(status): n for status, n in self.answers.items() if status != OK}
        return others | self.lost

    def _call_on_and_on(self, text: str) -> None:
        connection = HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_S)
        while not self._is_over.wait(PAUSE_S):
            try:
                if connection.sock is None:
                    connection.connect()
            except OSError:
                with self._lock:
                    self.lost["refused"] += 1
                continue
            try:
                status, _ = _answer(connection, self.path, self.body(text), self.header)
            except (OSError, HTTPException) as error:
                connection.close()
                with self._lock:
                    self.lost[type(error).__name__] += 1
            else:
                with self._lock:
                    self.answers[status] += 1
        connection.close()


def restart_each(proxies: Proxies) -> None:
    """Restart one after the other, each when the one before it gets calls again."""
    until(lambda: all(each.calls() for each in proxies))
    for each in proxies:
        each.stop()
        each.start()
        until(each.calls)
