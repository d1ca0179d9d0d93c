"""Clients of a hosted API: each asks again when it is answered, or may ask again."""

import asyncio
import json
import time
from urllib.parse import urlsplit

from attrs import define, field

__all__ = ["Seen", "ask_for"]

OK, TOO_MANY = 200, 429
WORDS = "What is Vector Search, and what is it good for?"


@define(eq=False)
class Seen:
    """What clients have met."""

    seconds: float
    stays_s: list[float] = field(factory=list)
    """How long each call took that was answered, refusals before it included."""

    refused: int = 0
    """Answers with 429."""

    failed: int = 0
    """Any other answer."""

    left_s: list[float] = field(factory=list)
    """How long those have waited that were not answered at the end."""

    @property
    def calls_per_s(self) -> float:
        """Return how many calls were answered in a second."""
        return len(self.stays_s) / self.seconds

    @property
    def half_s(self) -> float:
        """Return how long the median call took, at least, of all that were made."""
        stays = sorted([*self.stays_s, *self.left_s])
        return stays[len(stays) // 2]

    @property
    def refused_share(self) -> float:
        """Return the share of answers that are refusals."""
        return self.refused / max(self.refused + len(self.stays_s), 1)


def ask_for(url: str, clients: int, warm_s: float, seconds: float) -> Seen:
    """Let so many clients ask one after the other, and count after *warm_s*."""
    return asyncio.run(_ask_for(url, clients, warm_s, seconds))


async def _ask_for(url: str, clients: int, warm_s: float, seconds: float) -> Seen:
    seen, begins_at = Seen(seconds), time.monotonic() + warm_s
    began = dict[int, float]()
    tasks = [
        asyncio.create_task(_client(url, number, begins_at, seen, began))
        for number in range(clients)
    ]
    done, _ = await asyncio.wait(
        tasks, timeout=warm_s + seconds, return_when=asyncio.FIRST_EXCEPTION
    )
    now = time.monotonic()
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    for task in done:
        task.result()
    seen.left_s = [now - at for at in began.values()]
    return seen


async def _client(
    url: str, number: int, begins_at: float, seen: Seen, began: dict[int, float]
) -> None:
    where = urlsplit(url)
    reader, writer = await asyncio.open_connection(where.hostname, where.port)
    body = json.dumps({"model": "small", "input": [f"{WORDS} ({number})"]}).encode()
    head = (
        f"POST /v1/embeddings HTTP/1.1\r\nHost: {where.netloc}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    try:
        while True:
            began[number] = time.monotonic()
            while True:
                writer.write(head.encode() + body)
                status, pause_s = await _answer(reader)
                now = time.monotonic()
                if status != TOO_MANY:
                    break
                seen.refused += now >= begins_at
                await asyncio.sleep(pause_s)
            if status != OK:
                seen.failed += 1
            elif now >= begins_at:
                seen.stays_s.append(now - began[number])
    finally:
        writer.close()


async def _answer(reader: asyncio.StreamReader) -> tuple[int, float]:
    """Read one answer; return its status and for how long it asks to wait."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
    lines = dict(line.split(": ", 1) for line in head.split("\r\n")[1:] if line)
    await reader.readexactly(int(lines["content-length"]))
    return int(head.split()[1]), float(lines.get("retry-after", 1))
