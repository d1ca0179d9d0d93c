"""
A load test that needs nothing but Python: many clients, each one call at a time.

Every client keeps one connection open.  Prints requests a second, the median
and the 99th percentile of the latency, and the errors by kind; ends with exit
code 1 if there were any.
"""

import argparse
import asyncio
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import cycle
from time import perf_counter
from urllib.parse import urlsplit

BODY = b'{"inputs":["What is Vector Search? %d","Hello, world! %d"]}'

DIFFERENT_CALLS = 4096
"""So many calls take turns: what is in flight twice would be computed once."""


@dataclass
class Tally:
    """What the clients saw."""

    latencies_s: list[float] = field(default_factory=list)
    errors: Counter[str] = field(default_factory=Counter)

    def percentile(self, percent: float) -> float:
        """Tell the latency in ms that *percent* of the good answers kept to."""
        ordered = sorted(self.latencies_s)
        last = len(ordered) - 1
        return ordered[min(last, int(len(ordered) * percent / 100))] * 1000


def requests_for(url: str) -> list[bytes]:
    """Write the requests that are sent in turn."""
    parts = urlsplit(url)
    bodies = [BODY % (number, number) for number in range(DIFFERENT_CALLS)]
    head = (
        f"POST {parts.path or '/'} HTTP/1.1\r\n"
        f"Host: {parts.netloc}\r\n"
        "Content-Type: application/json\r\n"
        "Content-Length: "
    )
    return [f"{head}{len(body)}\r\n\r\n".encode() + body for body in bodies]


async def read_answer(reader: asyncio.StreamReader) -> tuple[int, bool, bytes]:
    """Read one answer: its status, whether the connection stays, and the body."""
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    status = int(head.split(b" ", 2)[1])
    headers = dict(
        line.split(b":", 1) for line in head.splitlines()[1:] if b":" in line
    )
    stays = headers.get(b"connection", b"").strip() != b"close"
    if b"content-length" in headers:
        body = await reader.readexactly(int(headers[b"content-length"]))
        return status, stays, body
    chunks = []
    while size := int(await reader.readuntil(b"\r\n"), 16):
        chunks.append((await reader.readexactly(size + 2))[:-2])
    await reader.readexactly(2)
    return status, stays, b"".join(chunks)


async def client(
    url: str, requests: Iterator[bytes], ends_at: float, tally: Tally
) -> None:
    """Send one request after the other until the time is over."""
    parts = urlsplit(url)
    open_ = False
    while (began_at := perf_counter()) < ends_at:
        try:
            if not open_:
                reader, writer = await asyncio.open_connection(
                    parts.hostname, parts.port or 80
                )
            writer.write(next(requests))
            status, open_, _ = await read_answer(reader)
            if not open_:
                writer.close()
        except (OSError, EOFError, ValueError) as error:
            tally.errors[type(error).__name__] += 1
            open_ = False
            await asyncio.sleep(0.1)
            continue
        if status == 200:  # noqa: PLR2004
            tally.latencies_s.append(perf_counter() - began_at)
        else:
            tally.errors[f"status {status}"] += 1
    if open_:
        writer.close()


async def run(
    url: str, clients: int, seconds: float, requests: Sequence[bytes] = ()
) -> tuple[Tally, float]:
    """
    Let all clients loose; how long it took is told with what they saw.

    They send *requests* in turn, or else short ones for /embed.
    """
    tally = Tally()
    turn = cycle(requests or requests_for(url))
    began_at = perf_counter()
    ends_at = began_at + seconds
    await asyncio.gather(*(client(url, turn, ends_at, tally) for _ in range(clients)))
    return tally, perf_counter() - began_at


def report(tally: Tally, took_s: float) -> str:
    """Write the result."""
    lines = [f"requests/s   {len(tally.latencies_s) / took_s:10.1f}"]
    if tally.latencies_s:
        lines += [f"p{p}          {tally.percentile(p):10.1f} ms" for p in (50, 99)]
    lines.append(f"errors       {tally.errors.total():10}")
    lines += [f"  {what}: {count}" for what, count in tally.errors.most_common()]
    return "\n".join(lines)


def main() -> int:
    """Run the load test that the command line describes."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("url", help="where to send the calls")
    parser.add_argument("--clients", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=15.0)
    options = parser.parse_args()
    tally, took_s = asyncio.run(run(options.url, options.clients, options.seconds))
    sys.stdout.write(report(tally, took_s) + "\n")
    return 1 if tally.errors or not tally.latencies_s else 0


if __name__ == "__main__":
    sys.exit(main())
