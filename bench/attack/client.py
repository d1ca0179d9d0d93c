"""Clients of plain bytes, over connections that are kept."""

import asyncio
from collections.abc import Iterable
from contextlib import suppress

from attrs import define, field

from bench.load import read_answer

__all__ = ["LOCALHOST", "Connection", "call", "connect", "get"]

LOCALHOST = "127.0.0.1"
ANSWERED_S = 30
"""An answer that takes longer has not come."""


def call(
    body: bytes, *lines: bytes, path: bytes = b"/embed", method: bytes = b"POST"
) -> bytes:
    """Write a plain request with a *body*."""
    more = b"".join(line + b"\r\n" for line in lines)
    return (
        b"%b %b HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n%b"
        b"Content-Length: %d\r\n\r\n%b" % (method, path, more, len(body), body)
    )


def get(path: bytes, *lines: bytes) -> bytes:
    """Write a request for a page."""
    more = b"".join(line + b"\r\n" for line in lines)
    return b"GET %b HTTP/1.1\r\nHost: x\r\n%b\r\n" % (path, more)


@define(eq=False)
class Connection:
    """One connection to the proxy."""

    reader: asyncio.StreamReader = field(repr=False)
    writer: asyncio.StreamWriter = field(repr=False)
    stays: bool = True
    """Whether the last answer said that the connection may be used again."""

    async def ask(
        self, request: bytes, seconds: float = ANSWERED_S
    ) -> tuple[int, bytes]:
        """
        Send a request, and return the status and the body of its answer.

        Raises:
            TimeoutError: none came in time.
            OSError, EOFError: the connection broke.
        """
        self.writer.write(request)
        async with asyncio.timeout(seconds):
            status, self.stays, body = await read_answer(self.reader)
        return status, body

    async def send(self, pieces: Iterable[bytes], pause_s: float = 0) -> None:
        """Send *pieces*, each by itself, as long as the other side takes them."""
        with suppress(OSError):
            for piece in pieces:
                self.writer.write(piece)
                await self.writer.drain()
                await asyncio.sleep(pause_s)

    def reset(self) -> None:
        """Break the connection off."""
        self.writer.transport.abort()


async def connect(port: int) -> Connection:
    """Open a connection to a *port* of this machine."""
    return Connection(*await asyncio.open_connection(LOCALHOST, port, limit=1 << 26))
