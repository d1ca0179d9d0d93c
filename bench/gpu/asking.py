"""
Calls to a server, and whether the answers belong to them.

The same text computed among others gives a row that differs in its last
digits.  So rows are not compared byte for byte: through abproxy each text has to
get a row that is nearer to its own, asked for directly, than to all others.
"""

import asyncio
import json
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

from bench.gpu.plan import DIFFERENT_CALLS, Cell
from bench.gpu.servers import INSTALLED
from bench.load import read_answer
from bench.wire.errors import CannotMeasure

__all__ = ["check", "nearest", "requests"]

OK = 200
CHECKED = 24
PATIENCE_S = 60


def requests(cell: Cell, count: int = DIFFERENT_CALLS) -> list[bytes]:
    """Write the calls that take turns under load."""
    server = INSTALLED.get(cell.server)
    is_openai = server is not None and server.is_openai
    return [
        _request(cell.texts(number), is_openai=is_openai) for number in range(count)
    ]


def _request(texts: Sequence[str], *, is_openai: bool) -> bytes:
    question = {"input": texts, "model": "model"} if is_openai else {"inputs": texts}
    body = json.dumps(question).encode()
    return (
        b"POST %b HTTP/1.1\r\nHost: 127.0.0.1\r\n"
        b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
    ) % (b"/v1/embeddings" if is_openai else b"/embed", len(body), body)


def check(direct_url: str, proxy_url: str, cell: Cell) -> None:
    """
    Ask the server call by call, and all calls at once through abproxy.

    Raises:
        CannotMeasure: an answer did not come, or belongs to another call.
    """
    calls = requests(cell, CHECKED)
    expected = [row for one in calls for row in asyncio.run(_ask(direct_url, [one]))]
    given = asyncio.run(_ask(proxy_url, calls))
    if nearest(given, expected) != [*range(len(expected))]:
        raise CannotMeasure(f"{cell.name}: a wrong answer through abproxy")


async def _ask(url: str, calls: Sequence[bytes]) -> list[Any]:
    asked = asyncio.gather(*(_rows(url, each) for each in calls))
    try:
        answers = await asyncio.wait_for(asked, PATIENCE_S)
    except (OSError, EOFError, ValueError, KeyError) as error:
        raise CannotMeasure(f"{url}: {error!r}") from error
    return [row for rows in answers for row in rows]


async def _rows(url: str, call: bytes) -> list[Any]:
    parts = urlsplit(url)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
    try:
        writer.write(call)
        status, _, body = await read_answer(reader)
    finally:
        writer.close()
    if status != OK:
        raise CannotMeasure(f"{url}: status {status}: {body[:200]!r}")
    answer = json.loads(body)
    if isinstance(answer, list):
        return answer
    return [each["embedding"] for each in answer["data"]]


def nearest(
    rows: Sequence[Sequence[float]], others: Sequence[Sequence[float]]
) -> list[int]:
    """Find for each row the place of the most similar one among *others*."""

    def likeness(one: Sequence[float], other: Sequence[float]) -> float:
        return sum(a * b for a, b in zip(one, other, strict=True))

    return [
        max(range(len(others)), key=lambda at: likeness(row, others[at]))
        for row in rows
    ]
