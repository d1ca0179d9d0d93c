"""Clients that speak plain HTTP: in memory, over sockets, and over TLS."""

import json
import socket
import ssl
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from http.client import HTTPResponse
from io import BytesIO
from pathlib import Path
from typing import Any

import msgspec
from attrs import define, field
from twisted.internet import protocol
from twisted.internet.defer import Deferred, ensureDeferred, fail, gatherResults
from twisted.internet.error import ConnectError, ConnectionClosed, ConnectionDone
from twisted.internet.task import Clock, deferLater
from twisted.internet.testing import StringTransportWithDisconnection
from twisted.python.failure import Failure

from bench.breakable import row_of


@define(eq=False)
class Answer:
    """One parsed response."""

    status: int
    reason: str
    headers: list[tuple[str, str]]
    body: bytes

    def header(self, name: str) -> str | None:
        """The first value of a header line."""
        found = [value for key, value in self.headers if key.lower() == name.lower()]
        return found[0] if found else None

    @property
    def json(self) -> Any:
        """The body, decoded."""
        return json.loads(self.body)

    def is_for(self, texts: Sequence[str]) -> bool:
        """Whether these are the rows of *texts*, in order."""
        if self.status != 200:
            return False
        rows = self.json
        dimensions = len(rows[0])
        return bool(rows == [row_of(text, dimensions) for text in texts])


class _Readable:
    def __init__(self, data: BytesIO) -> None:
        self.data = data

    def makefile(self, _mode: str) -> Any:
        return self.data


@define(eq=False)
class Client:
    """One connection to the proxy, in memory."""

    transport: StringTransportWithDisconnection
    channel: Any

    clock: Clock = field(factory=Clock)
    """The proxy's, if that is in memory as a whole."""

    def send(self, raw: bytes) -> None:
        """Send bytes as they are, in a turn of the reactor by themselves."""
        self.channel.dataReceived(raw)
        self.clock.advance(0)

    def ask(
        self, method: str, path: str, body: bytes = b"", *headers: tuple[str, str]
    ) -> None:
        """Send a request with a length."""
        lines = [f"{method} {path} HTTP/1.1", "Host: door"]
        lines += [f"{name}: {value}" for name, value in headers]
        if body or method in {"POST", "PUT"}:
            lines.append(f"Content-Length: {len(body)}")
        self.send("\r\n".join([*lines, "", ""]).encode() + body)

    def embed(
        self, body: bytes, *headers: tuple[str, str], path: str = "/embed"
    ) -> None:
        """Ask for embeddings."""
        self.ask("POST", path, body, ("Content-Type", "application/json"), *headers)

    def leave(self) -> None:
        """Hang up."""
        self.channel.connectionLost(Failure(ConnectionDone()))

    def answers(self, method: str = "POST") -> list[Answer]:
        """Parse everything that came back so far."""
        data = BytesIO(self.transport.value())
        found = []
        while data.tell() < len(data.getvalue()):
            response = HTTPResponse(_Readable(data), method=method)  # type: ignore[arg-type]
            data.close = lambda: None  # type: ignore[method-assign]
            response.begin()
            body = response.read()
            found.append(
                Answer(response.status, response.reason, response.getheaders(), body)
            )
        return found


LONG_S = 50
"""Longer than anything here takes; a client that waits longer fails its test."""


def endpoint(certificate: Path) -> str:
    """Write how to listen with a *certificate* on any free port."""
    return f"ssl:0:privateKey={certificate}:certKey={certificate}:interface=127.0.0.1"


def shake_hands(port: int, offered: list[str] | None = None) -> ssl.SSLSocket:
    """
    Open a connection with TLS, of the standard library, which blocks.

    Args:
        port: where to.
        offered: what it offers to speak (ALPN); None to say nothing of it.
    """
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    if offered is not None:
        context.set_alpn_protocols(offered)
    with socket.create_connection(("127.0.0.1", port), LONG_S) as plain:
        # An end that the other side does not announce is an error.
        return context.wrap_socket(plain, suppress_ragged_eofs=False)


def ask(line: socket.socket, request: bytes, end: bytes) -> bytes:
    """Send a *request*, and read until what came ends with *end*."""
    line.sendall(request)
    received = b""
    while not received.endswith(end):
        piece = line.recv(1 << 16)
        assert piece, received
        received += piece
    return received


def read_all(line: socket.socket) -> bytes:
    """Read until the other side says that this was all."""
    received = b""
    while piece := line.recv(1 << 16):
        received += piece
    return received


LOCALHOST = "127.0.0.1"

PATIENCE_S = 40
"""Longer than anything takes, however busy the machine is."""


def the_reactor() -> Any:
    """Return the reactor that runs."""
    from twisted.internet import reactor  # noqa: PLC0415  not before it is chosen

    return reactor


def sleep(seconds: float) -> Deferred[None]:
    """Let other things happen."""
    return deferLater(the_reactor(), seconds)


def turn() -> Deferred[None]:
    """Let the sockets have a turn."""
    return sleep(0.02)


async def until(happened: Callable[[], object]) -> None:
    """Wait until something has *happened*; fail if it never does."""
    ends_at = the_reactor().seconds() + PATIENCE_S
    while not happened():
        assert the_reactor().seconds() < ends_at, "it did not happen in time"
        await sleep(0.005)


def together(stories: Iterable[Any]) -> Deferred[list[Any]]:
    """Let all *stories* happen at once; fires with how each ended."""
    return gatherResults(map(ensureDeferred, stories), consumeErrors=True)


@define(eq=False)
class Caller(protocol.Protocol):
    """One connection to the proxy, with one request at a time."""

    closes: bool = False
    """Whether it asks for the connection to be closed after an answer."""

    transport: Any = field(init=False, default=None)
    received: bytes = field(init=False, default=b"")
    is_open: bool = field(init=False, default=True)
    _waiting: Deferred[Answer] | None = field(init=False, default=None)

    def embed(self, *texts: str) -> Deferred[Answer]:
        """Ask for the embeddings of *texts*."""
        return self.post("/embed", msgspec.json.encode({"inputs": texts}))

    def post(self, path: str, body: bytes) -> Deferred[Answer]:
        """Send a request; fires with its answer, or fails if none comes."""
        return self.send(self.head(path, len(body)) + body)

    def get(self, path: str, key: str | None = None) -> Deferred[Answer]:
        """Ask for a page, with a *key* if there is one."""
        shown = f"Authorization: Bearer {key}\r\n" if key else ""
        head = f"GET {path} HTTP/1.1\r\nHost: proxy\r\n{shown}\r\n"
        return self.send(head.encode())

    def send(self, request: bytes) -> Deferred[Answer]:
        """Send a *request* as it is; fires with its answer, or fails."""
        if not self.is_open:
            return fail(ConnectionDone())
        self._waiting = Deferred(lambda _: self.hang_up())
        self.transport.write(request)
        return self._waiting

    def head(self, path: str, length: int) -> bytes:
        """Write the head of a request."""
        end = "Connection: close\r\n" if self.closes else ""
        lines = f"POST {path} HTTP/1.1\r\nHost: proxy\r\n{end}"
        kind = "Content-Type: application/json\r\n"
        return f"{lines}{kind}Content-Length: {length}\r\n\r\n".encode()

    def hang_up(self) -> None:
        """Reset the connection."""
        self.transport.abortConnection()

    def dataReceived(self, data: bytes) -> None:
        """Take in what comes, and fire when an answer is whole."""
        self.received += data
        head, end, body = self.received.partition(b"\r\n\r\n")
        if not end:
            return
        first, *lines = head.decode("latin-1").split("\r\n")
        _, status, reason = first.split(" ", 2)
        headers = [
            (name, value) for name, _, value in (line.partition(": ") for line in lines)
        ]
        answer = Answer(int(status), reason, headers, b"")
        length = int(answer.header("Content-Length") or "")
        if len(body) >= length and self._waiting is not None:
            answer.body, self.received = body[:length], body[length:]
            waiting, self._waiting = self._waiting, None
            waiting.callback(answer)

    def connectionLost(self, reason: Failure = protocol.connectionDone) -> None:
        """Fail the request that waits for its answer."""
        self.is_open = False
        waiting, self._waiting = self._waiting, None
        if waiting is not None and not waiting.called:
            waiting.errback(reason)


async def connect(port: int, *, closes: bool = False) -> Caller:
    """Open one connection to a *port* of this machine."""
    creator = protocol.ClientCreator(the_reactor(), Caller, closes)
    caller: Caller = await creator.connectTCP(LOCALHOST, port)
    return caller


@define
class Tally:
    """How the calls of all clients ended."""

    answers: Counter[str] = field(factory=Counter)

    async def ask_until_refused(
        self, port: int, name: str, *, closes: bool = False
    ) -> None:
        """Ask on and on, as long as the proxy takes connections."""
        turn = 0
        while True:
            try:
                caller = await connect(port, closes=closes)
            except ConnectError:
                return
            while caller.is_open:
                turn += 1
                await self._ask_once(caller, f"{name} {turn}")

    async def _ask_once(self, caller: Caller, text: str) -> None:
        try:
            answer = await caller.embed(text)
        except ConnectionClosed:
            self.answers["lost"] += 1
            return
        self.answers["right" if answer.is_for([text]) else "wrong"] += 1
        if answer.header("Connection") == "close":
            caller.hang_up()
            await until(lambda: not caller.is_open)


@define(eq=False)
class ByteClient(protocol.Protocol):
    """One connection to the proxy, on which a test reads and writes plain bytes."""

    received: bytes = b""
    lost: Deferred[None] = field(factory=Deferred)

    def send(self, data: bytes) -> None:
        self.transport.write(data)

    def dataReceived(self, data: bytes) -> None:
        self.received += data

    def connectionLost(self, reason: Any = None) -> None:
        del reason
        self.lost.callback(None)

    @property
    def is_open(self) -> bool:
        """Whether the connection is."""
        return not self.lost.called

    async def until(self, end: bytes) -> bytes:
        """Wait until what came ends like this."""
        while not self.received.endswith(end):
            await turn()
        return self.received
