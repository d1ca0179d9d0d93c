"""Asking a server over real sockets, call by call or all at once."""

import http.client
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

from attrs import field, frozen

TIMEOUT_S = 120
JSON = {"Content-Type": "application/json"}


@frozen(kw_only=True)
class Call:
    """One request of one client."""

    name: str
    """What it tries."""

    path: str
    body: bytes | None = None
    method: str = "POST"
    header: dict[str, str] = field(factory=lambda: dict(JSON))


@frozen(kw_only=True)
class Answer:
    """What a client got."""

    status: int
    """0: the connection broke."""

    header: tuple[tuple[str, str], ...] = ()
    """Names in lower case, in the order of names."""

    body: bytes = b""

    def line(self, name: str) -> str:
        """Return the value of the header line *name*, or nothing."""
        return dict(self.header).get(name, "")


def ask(url: str, call: Call) -> Answer:
    """Send *call* on a connection of its own."""
    to = urlsplit(url)
    connection = http.client.HTTPConnection(to.netloc, timeout=TIMEOUT_S)
    try:
        connection.request(call.method, to.path + call.path, call.body, call.header)
        response = connection.getresponse()
        body = response.read()
    except (OSError, http.client.HTTPException) as error:
        return Answer(status=0, body=f"{type(error).__name__}: {error}".encode())
    finally:
        connection.close()
    header = sorted((name.lower(), value) for name, value in response.getheaders())
    return Answer(status=response.status, header=tuple(header), body=body)


def ask_one_by_one(url: str, calls: Sequence[Call]) -> list[Answer]:
    """Send each of *calls* when the one before it has been answered."""
    return [ask(url, call) for call in calls]


def ask_at_once(url: str, calls: Sequence[Call]) -> list[Answer]:
    """Send all *calls* at the same moment, each from a thread of its own."""
    ready = threading.Barrier(len(calls))

    def go(call: Call) -> Answer:
        ready.wait()
        return ask(url, call)

    with ThreadPoolExecutor(len(calls)) as threads:
        return list(threads.map(go, calls))
