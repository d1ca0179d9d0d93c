"""abproxy and the inference server, as processes of their own."""

import asyncio
import json
import re
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import ExitStack, asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from attrs import frozen

from bench.attack.client import Connection, call, connect, get
from bench.wire.contestants import ROOT
from bench.wire.cores import usable
from bench.wire.processes import Child, child, free_port

__all__ = ["CLIENTS", "WAYS", "Breakable", "Proxy", "breakable", "proxy"]

CLIENTS: Mapping[str, str] = {"fast": "server,write,poll,client", "treq": "server"}
"""`FAST_PATHS` for each of the clients that ask the inference server."""

WAYS: Mapping[str, str] = {
    "all fast paths": "all",
    "without the fast client": "server,write,poll",
    "without the fast server": "write,poll,client",
    "without fast paths": "none",
}
"""`FAST_PATHS` for each front with each client."""

AT_REST = (
    *("batches_in_flight", "items_in_flight", "slots_taken", "waiting_calls"),
    *("waiting_items", "waiting_rest_items", "waiting_bytes", "lanes"),
    *("arriving_bytes", "unread_bytes"),
)
"""Gauges that are 0 when nothing is asked for."""

ALONE: Mapping[str, float] = {"connections": 1, "requests_open": 1}
"""Gauges that count the connection that asks for them, and its request."""

RESTS_S = 20
COMES_BACK_S = 20
OK = 200
MEGABYTE = 1 << 20


@frozen(kw_only=True)
class Proxy:
    """A proxy that answers."""

    child: Child
    key: bytes = b""

    @property
    def port(self) -> int:
        """Where it listens."""
        return urlsplit(self.child.url).port or 0

    @property
    def memory_mb(self) -> float:
        """Memory in use."""
        return self.child.resident_bytes / MEGABYTE

    @property
    def shown(self) -> tuple[bytes, ...]:
        """The line with its key, if it asks for one."""
        return (b"Authorization: Bearer " + self.key,) if self.key else ()

    async def connect(self) -> Connection:
        """Open a connection to it."""
        return await connect(self.port)

    async def gauges(self) -> dict[str, float]:
        """Read its figures that have no label."""
        connection = await self.connect()
        try:
            _, body = await connection.ask(get(b"/metrics", *self.shown))
        finally:
            connection.reset()
        found = re.findall(r"^abproxy_(\w+) (\S+)$", body.decode(), re.MULTILINE)
        return {name: float(value) for name, value in found}

    async def held(self, resting: Mapping[str, float] = ALONE) -> dict[str, float]:
        """
        Wait until nothing is held any more.

        Args:
            resting: how many connections and requests there are at rest; workers ask
                each other.

        Returns:
            The gauges that are not 0 even then; none if all is well.
        """
        left: dict[str, float] = {}
        for _ in range(RESTS_S * 4):
            figures = await self.gauges()
            left = {name: figures[name] for name in AT_REST if figures[name]}
            left |= {
                name: figures[name] for name in ALONE if figures[name] > resting[name]
            }
            if not left:
                return {}
            await asyncio.sleep(0.25)
        return left

    def tracebacks(self) -> int:
        """Count the tracebacks in its log: each is a bug."""
        return self.child.log.read_text(errors="replace").count("Traceback (most")


@asynccontextmanager
async def _child(
    name: str, command: Sequence[str | Path], port: int, folder: Path, **environ: str
) -> AsyncIterator[Child]:
    with ExitStack() as stack:
        started = child(
            name, command, port, cores=usable(), folder=folder, environ=environ
        )
        # It asks until it is answered, perhaps by an upstream of this process.
        yield await asyncio.to_thread(stack.enter_context, started)
        await asyncio.to_thread(stack.close)


@asynccontextmanager
async def proxy(
    folder: Path, upstream_url: str, **settings: object
) -> AsyncIterator[Proxy]:
    """Run `twistd abproxy` in front of an upstream, with *settings* by name."""
    port = free_port()
    twistd = Path(sys.executable).with_name("twistd")
    command = [twistd, "--nodaemon", "--pidfile=", "abproxy"]
    given = {name.upper(): str(value) for name, value in settings.items()}
    where = {"PORT": str(port), "INFERENCE_SERVICE_URL": upstream_url}
    environ = {"DRAIN_DELAY": "0", "DEDUPE": "false", **where, **given}
    key = given.get("API_KEY", "").partition(",")[0].encode()
    async with _child("abproxy", command, port, folder, **environ) as started:
        yield Proxy(child=started, key=key)


@frozen(kw_only=True)
class Breakable:
    """The inference server that breaks on command."""

    url: str

    async def tell(self, what: str, **how: Any) -> None:
        """Command it: *what* is the last part of a path of its control."""
        request = call(json.dumps(how).encode(), path=b"/-/" + what.encode())
        for _ in range(COMES_BACK_S * 10):
            try:
                connection = await connect(urlsplit(self.url).port or 0)
                try:
                    status, body = await connection.ask(request)
                except (OSError, EOFError):
                    if what == "do":
                        return  # what it does may have reset this connection, too
                    raise
                finally:
                    connection.reset()
            except (OSError, EOFError):
                # It was told to be away for a moment.
                await asyncio.sleep(0.1)
                continue
            if status != OK:
                raise ValueError(body)
            return
        raise TimeoutError("the inference server is away for good")


@asynccontextmanager
async def breakable(folder: Path, *options: str) -> AsyncIterator[Breakable]:
    """Run `bench.breakable` with *options*."""
    port = free_port()
    command = [sys.executable, "-m", "bench.breakable", f"--port={port}", *options]
    environ = {"PYTHONPATH": str(ROOT)}
    async with _child("breakable", command, port, folder, **environ) as started:
        yield Breakable(url=started.url)
