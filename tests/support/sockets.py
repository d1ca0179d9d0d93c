"""
The whole proxy for real: sockets, the reactor, an upstream that breaks.

Memory transports deliver everything at once and close when they are told to.
Where that would be a lie, a test puts up the house as `wire` does it.
"""

import re
import resource
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
from attrs import define, field, frozen
from twisted.internet import protocol
from twisted.internet.defer import Deferred, ensureDeferred, fail, gatherResults
from twisted.internet.error import ConnectError, ConnectionClosed, ConnectionDone
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

from abproxy.service import ProxyService
from abproxy.settings import Settings
from abproxy.wiring import wire
from bench.breakable import Breakable, Traits, row_of

__all__ = [
    "LOCALHOST",
    "TWISTD",
    "Answer",
    "Caller",
    "Daemon",
    "Street",
    "Tally",
    "breakable",
    "connect",
    "daemon",
    "sleep",
    "street",
    "together",
    "until",
]

LOCALHOST = "127.0.0.1"
PATIENCE_S = 40
"""Longer than anything takes, however busy the machine is."""

TWISTD = (Path(sys.executable).with_name("twistd"), "--nodaemon", "--pidfile=")


def _reactor() -> Any:
    from twisted.internet import reactor  # noqa: PLC0415  not before it is chosen

    return reactor


def sleep(seconds: float) -> Deferred[None]:
    """Let other things happen."""
    return deferLater(_reactor(), seconds)


async def until(happened: Callable[[], object]) -> None:
    """Wait until something has *happened*; fail if it never does."""
    ends_at = _reactor().seconds() + PATIENCE_S
    while not happened():
        assert _reactor().seconds() < ends_at, "it did not happen in time"
        await sleep(0.005)


@frozen(kw_only=True)
class Answer:
    """One whole answer that a caller got."""

    status: int
    headers: dict[bytes, bytes]
    body: bytes

    @property
    def json(self) -> Any:
        """The body, decoded."""
        return msgspec.json.decode(self.body)

    def is_for(self, texts: Sequence[str]) -> bool:
        """Whether these are the rows of *texts*, in order."""
        if self.status != 200:
            return False
        rows = self.json
        dimensions = len(rows[0])
        return bool(rows == [row_of(text, dimensions) for text in texts])


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
        """Take in what comes, and answer who waits when it is whole."""
        self.received += data
        head, end, body = self.received.partition(b"\r\n\r\n")
        if not end:
            return
        first, *lines = head.split(b"\r\n")
        pairs = (line.split(b": ", 1) for line in lines)
        headers = {name.lower(): value for name, value in pairs}
        length = int(headers[b"content-length"])
        if len(body) >= length and self._waiting is not None:
            self.received = body[length:]
            waiting, self._waiting = self._waiting, None
            status = int(first.split(b" ")[1])
            waiting.callback(Answer(status=status, headers=headers, body=body[:length]))

    def connectionLost(self, reason: Failure = protocol.connectionDone) -> None:
        """Tell who waits that nothing will come."""
        self.is_open = False
        waiting, self._waiting = self._waiting, None
        if waiting is not None and not waiting.called:
            waiting.errback(reason)


@define(kw_only=True, eq=False)
class Street:
    """Callers, the proxy, and the upstream."""

    upstream: Breakable
    service: ProxyService
    callers: list[Caller] = field(factory=list)

    @property
    def port(self) -> int:
        """Where the proxy listens."""
        port: Any = self.service._port
        return int(port.getHost().port)

    @property
    def operations_port(self) -> int:
        """Where the operators' own door is."""
        port: Any = self.service._private_port
        return int(port.getHost().port)

    async def operator(self) -> Caller:
        """Connect to the operators' own door."""
        return await self.caller(self.operations_port)

    async def caller(self, port: int | None = None, *, closes: bool = False) -> Caller:
        """Connect to the proxy, or to another *port*."""
        caller = await connect(port or self.port, closes=closes)
        self.callers.append(caller)
        return caller

    async def crowd(self, count: int, port: int | None = None) -> list[Caller]:
        """Connect many callers."""
        return await together(self.caller(port) for _ in range(count))

    @property
    def is_at_rest(self) -> bool:
        """Whether every counter is back to 0."""
        collector, site = self.service.collector, self.service.site
        return not (
            collector.budget.items_in_flight
            or collector.budget.slots_taken
            or collector.admission.items
            or collector.admission.size
            or collector.admission.of_clients
            or collector.queue.lanes
            or site.requests
            or self.upstream.work.inputs
        )

    async def comes_to_rest(self) -> None:
        """Wait until every counter is back to 0."""
        await until(lambda: self.is_at_rest)


async def connect(port: int, *, closes: bool = False) -> Caller:
    """Open one connection to a *port* of this machine."""
    creator = protocol.ClientCreator(_reactor(), Caller, closes)
    caller: Caller = await creator.connectTCP(LOCALHOST, port)
    return caller


def together(stories: Iterable[Any]) -> Deferred[list[Any]]:
    """Let all *stories* happen at once; fires with how each ended."""
    return gatherResults(map(ensureDeferred, stories), consumeErrors=True)


@asynccontextmanager
async def breakable(traits: Traits) -> AsyncIterator[Breakable]:
    """Put up an upstream by itself."""
    upstream = Breakable(reactor=_reactor(), traits=traits)
    upstream.start()
    try:
        yield upstream
    finally:
        await upstream.stop()
        await until(lambda: not upstream.connections)


@asynccontextmanager
async def street(
    traits: Traits | None = None, *, is_up: bool = True, **settings: Any
) -> AsyncIterator[Street]:
    """Put up upstream and proxy, and take them down again."""
    upstream = Breakable(reactor=_reactor(), traits=traits or Traits())
    upstream.start()
    if not is_up:
        await upstream.stop()
    values = {"port": "0", "upstream_url": upstream.url, "drain_timeout_s": 2.0}
    service: Any = wire(Settings(**{**values, **settings}), _reactor())
    service.startService()
    here = Street(upstream=upstream, service=service)
    try:
        if is_up:
            await until(lambda: service.upstream.discovery.info.max_batch_inputs)
        yield here
    finally:
        for caller in here.callers:
            caller.transport.abortConnection()
        await until(lambda: not any(caller.is_open for caller in here.callers))
        await service.stopService()
        await upstream.stop()
        await until(lambda: not upstream.connections)


@define(kw_only=True, eq=False)
class Daemon:
    """The proxy as an operator starts it: a process of its own."""

    process: "subprocess.Popen[bytes]"
    log: Path
    port: int

    @property
    def resident_bytes(self) -> int:
        """Memory in use."""
        pages = Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]
        return int(pages) * resource.getpagesize()


@asynccontextmanager
async def daemon(
    folder: Path,
    upstream: Breakable,
    *options: str,
    stdin: int = subprocess.DEVNULL,
    files: int | None = None,
) -> AsyncIterator[Daemon]:
    """Run `twistd abproxy` in front of *upstream*, with so many open *files*."""
    limit = ["sh", "-c", f'ulimit -n {files} && exec "$@"', "sh"] if files else []
    log = folder / "log"
    url = f"--inference-service-url={upstream.url}"
    ends_at = _reactor().seconds() + PATIENCE_S
    with log.open("wb") as output:
        process = subprocess.Popen(  # noqa: ASYNC220, S603  it starts at once
            [*limit, *TWISTD, "abproxy", "--port=0", url, *options],
            cwd=folder,
            env={"PATH": "/usr/bin:/bin"},
            stdin=stdin,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        found: list[str] = []
        while not found:
            assert process.poll() is None, log.read_text()
            assert _reactor().seconds() < ends_at, log.read_text()
            await sleep(0.05)
            found = re.findall(r"answers on \S*?:(\d+)", log.read_text())
        yield Daemon(process=process, log=log, port=int(found[0]))
    finally:
        process.kill()
        process.wait()


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
        if answer.headers.get(b"connection") == b"close":
            caller.hang_up()
            await until(lambda: not caller.is_open)
