"""
An upstream that records each request, byte by byte, and answers at once.

It reads HTTP as strictly as RFC 9112 lets one, and by itself: what an attacker could
slip into a request would be a line that is none, or a request of its own.
"""

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from attrs import define, field, frozen

from bench.attack.client import LOCALHOST

__all__ = ["BARRIER", "Seen", "Tap", "tap"]

BARRIER = b"/barrier"
"""A target that is answered and not recorded."""

_OWN = frozenset({BARRIER, b"/info", b"/health", b"/v1/models"})
# Other control characters are no harm in a value, and may be passed on: RFC 9110, 5.5.
_LINE = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+:[^\r\n\0]*")
_FIRST = re.compile(rb"[A-Z!#$%&'*+.^_`|~0-9a-z-]+ [\x21-\x7e]+ HTTP/1\.1")
_OF_THE_MOMENT = frozenset({b"x-request-id", b"traceparent"})


@frozen
class Seen:
    """One request, with its header lines in order of their names."""

    first: bytes
    lines: tuple[tuple[bytes, bytes], ...]
    body: bytes


class _NotHttp(Exception):
    """What came is no request, or not for certain."""


@define(eq=False)
class Tap:
    """What was asked so far."""

    port: int = 0
    seen: list[Seen] = field(factory=list)
    wrong: list[bytes] = field(factory=list)
    """What was no request."""

    @property
    def url(self) -> str:
        """Where it answers."""
        return f"http://{LOCALHOST}:{self.port}"

    def take(self) -> tuple[tuple[Seen, ...], tuple[bytes, ...]]:
        """Return what was recorded since the last time."""
        taken = tuple(self.seen), tuple(self.wrong)
        self.seen.clear()
        self.wrong.clear()
        return taken

    async def serve(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        """Answer the requests of one connection."""
        with suppress(OSError, asyncio.IncompleteReadError):
            try:
                while True:
                    seen = await _read(
                        reader, b"%b:%d" % (LOCALHOST.encode(), self.port)
                    )
                    target = seen.first.split(b" ")[1]
                    if target not in _OWN:
                        self.seen.append(seen)
                    writer.write(_answer(seen, target))
            except (_NotHttp, ValueError) as wrong:
                self.wrong.append(str(wrong).encode())
        writer.close()


async def _read(reader: asyncio.StreamReader, own: bytes) -> Seen:
    """Read one request; a header line with our *own* address is left out."""
    head = await reader.readuntil(b"\r\n\r\n")
    first, *lines = head[:-4].split(b"\r\n")
    if not _FIRST.fullmatch(first):
        raise _NotHttp(f"first line {first!r}")
    for line in lines:
        if not _LINE.fullmatch(line):
            raise _NotHttp(f"header line {line!r}")
    pairs = [(n.lower(), v.strip()) for n, _, v in (ln.partition(b":") for ln in lines)]
    framing = [p for p in pairs if p[0] in {b"content-length", b"transfer-encoding"}]
    if len(framing) > 1:
        raise _NotHttp(f"two framings {framing!r}")
    body = await _body(reader, *framing[0]) if framing else b""
    ours = b"host", own
    told = sorted(p for p in pairs if p[0] not in _OF_THE_MOMENT and p != ours)
    return Seen(first, tuple(told), body)


async def _body(reader: asyncio.StreamReader, name: bytes, value: bytes) -> bytes:
    if name == b"content-length":
        if not value.isdigit():
            raise _NotHttp(f"length {value!r}")
        return await reader.readexactly(int(value))
    if value != b"chunked":
        raise _NotHttp(f"transfer encoding {value!r}")
    pieces = []
    while True:
        size = (await reader.readuntil(b"\r\n"))[:-2]
        if not re.fullmatch(rb"[0-9A-Fa-f]+", size):
            raise _NotHttp(f"chunk size {size!r}")
        piece = await reader.readexactly(int(size, 16))
        if await reader.readexactly(2) != b"\r\n":
            raise _NotHttp("a chunk without an end")
        if not piece:
            return b"".join(pieces)
        pieces.append(piece)


def _answer(seen: Seen, target: bytes) -> bytes:
    """Answer with a row for each input, or with what was asked."""
    status = 404 if target == b"/info" else 200
    try:
        inputs = json.loads(seen.body)["inputs"]
        body = json.dumps([[len(each)] for each in inputs]).encode()
    except (ValueError, TypeError, KeyError, RecursionError):
        body = json.dumps([seen.first.decode("latin-1"), len(seen.body)]).encode()
    head = b"HTTP/1.1 %d -\r\nContent-Type: application/json\r\n" % status
    shown = b"" if seen.first.startswith(b"HEAD ") else body
    return b"%bContent-Length: %d\r\n\r\n%b" % (head, len(body), shown)


@asynccontextmanager
async def tap() -> AsyncIterator[Tap]:
    """Run one in this process."""
    made = Tap()
    server = await asyncio.start_server(made.serve, LOCALHOST, 0, limit=1 << 26)
    made.port = server.sockets[0].getsockname()[1]
    try:
        yield made
    finally:
        server.close()
