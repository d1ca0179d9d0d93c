"""Asking one thing in two ways, and comparing the answers."""

import re
import threading
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, TypeVar

from attrs import define, field, frozen

KEY = "sesame"
"""The key of the strict server."""

MOST = 32
"""Inputs that the server takes in one request."""

TEXTS = [
    f"text number {number}, {'and so on, ' * (number % 7)}" for number in range(60)
]
TOO_LONG = "a b c d " * 300

T = TypeVar("T")
Ask = Callable[[str], T]
"""Ask with a client of its own, given the URL of the server."""


@frozen
class Ways:
    """Two URLs: the server, and the proxy in front of it."""

    direct: str
    proxied: str

    def both(self, ask: Ask[T]) -> tuple[T, T]:
        """Ask through the proxy, and ask directly."""
        return ask(self.proxied), ask(self.direct)

    def both_fail(self, ask: Ask[object]) -> tuple[str, str]:
        """Return how the client fails through the proxy, and how directly."""
        return failure_of(ask, self.proxied), failure_of(ask, self.direct)

    def requests(self) -> int:
        """Count the requests that the server has had so far."""
        with urllib.request.urlopen(f"{self.direct}/metrics") as answer:  # noqa: S310
            text = answer.read().decode()
        counts = re.findall(r"^te_request_count\S* (\S+)$", text, re.MULTILINE)
        return round(sum(map(float, counts)))


def failure_of(ask: Ask[object], url: str) -> str:
    """Return the class and the words of the error that *ask* ends with."""
    try:
        answered = ask(url)
    except Exception as error:  # noqa: BLE001  whatever it is
        words = re.sub(r"Request ID: \S+", "Request ID", str(error))
        return f"{type(error).__qualname__}: {words.replace(url, 'URL')}"
    raise AssertionError(f"no error: {answered!r}")


def at_once(ask: Callable[[str], T], texts: Sequence[str]) -> list[T]:
    """Ask for each of *texts* in a thread of its own."""
    with ThreadPoolExecutor(len(texts)) as threads:
        return list(threads.map(ask, texts))


def slices(items: Sequence[T]) -> list[Sequence[T]]:
    """Cut *items* into slices that the server takes directly."""
    return [items[at : at + MOST] for at in range(0, len(items), MOST)]


@define(eq=False)
class Refusing:
    """What a server that refuses at first has seen."""

    url: str
    requests: int = field(default=0)


class _Quiet(ThreadingHTTPServer):
    daemon_threads = True
    seen: Refusing
    refusals: list[int]
    answer: bytes


class _Handler(BaseHTTPRequestHandler):
    server: _Quiet
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.server.seen.requests += 1
        if self.server.refusals:
            self._reply(self.server.refusals.pop(0), _OVERLOADED)
        else:
            self._reply(200, self.server.answer)

    def do_GET(self) -> None:
        self._reply(404, b"")

    def _reply(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


_OVERLOADED = (
    b'{"message":"Model is overloaded","code":429,"type":"Overloaded",'
    b'"error":"Model is overloaded","error_type":"Overloaded"}'
)


@contextmanager
def refusing(answer: bytes, *refusals: int) -> Iterator[Refusing]:
    """Serve *answer*, but first refuse with each of these statuses."""
    with _Quiet(("127.0.0.1", 0), _Handler) as server:
        server.seen = Refusing(f"http://127.0.0.1:{server.server_port}")
        server.refusals = list(refusals)
        server.answer = answer
        serving = threading.Thread(target=server.serve_forever)
        serving.start()
        try:
            yield server.seen
        finally:
            server.shutdown()
            serving.join()
