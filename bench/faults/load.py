"""Callers that ask all the time and look at each answer, and what the proxy says."""

import asyncio
import json
from time import monotonic
from typing import Any

from attrs import define, field, frozen

from abproxy.events import ServerState
from bench.breakable import row_of
from bench.load import read_answer

__all__ = ["Call", "Load", "Share"]

OK = 200
OFTEN_S = 0.05

GETS_WORK = {ServerState.UP, ServerState.GROWING, ServerState.FULL}


@frozen
class Call:
    """One call, and how it went."""

    began_at: float
    took_s: float
    error: str = ""


@frozen
class Share:
    """What one server got at some moment, by what the status of the proxy says."""

    at: float
    address: str
    part: float


@define(eq=False)
class Load:
    """Callers of a proxy at a port."""

    port: int
    callers: int
    calls: list[Call] = field(init=False, factory=list)
    shares: list[Share] = field(init=False, factory=list)
    _is_over: bool = field(init=False, default=False)
    _asking: list["asyncio.Task[None]"] = field(init=False, factory=list)

    def start(self) -> None:
        """Begin to ask."""
        asking = [self._ask_on(number) for number in range(self.callers)]
        self._asking = [asyncio.create_task(each) for each in (*asking, self._watch())]

    async def stop(self) -> None:
        """Let all have their last answer."""
        self._is_over = True
        await asyncio.gather(*self._asking)

    async def _ask_on(self, number: int) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        turn = 0
        while not self._is_over:
            texts = [f"caller {number}, {turn}, {at}" for at in range(1 + turn % 3)]
            began_at, turn = monotonic(), turn + 1
            error = ""
            try:
                status, stays, body = await _post(reader, writer, texts)
                if status != OK:
                    error = f"status {status}"
                elif json.loads(body) != [row_of(each) for each in texts]:
                    error = "wrong rows"
            except (OSError, EOFError, ValueError) as broken:
                error, stays = type(broken).__name__, False
            self.calls.append(Call(began_at, monotonic() - began_at, error))
            if not stays:
                writer.close()
                reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.close()

    async def _watch(self) -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        while not self._is_over:
            writer.write(b"GET /-/status.json HTTP/1.1\r\nHost: proxy\r\n\r\n")
            _, _, body = await read_answer(reader)
            at = monotonic()
            for each in json.loads(body)["upstream"].get("servers", ()):
                part = each["share"] if each["state"] in GETS_WORK else 0.0
                self.shares.append(Share(at, each["address"], part))
            await asyncio.sleep(OFTEN_S)
        writer.close()


async def _post(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, texts: list[str]
) -> tuple[int, bool, Any]:
    body = json.dumps({"inputs": texts}).encode()
    writer.write(
        b"POST /embed HTTP/1.1\r\nHost: proxy\r\nContent-Type: application/json\r\n"
        b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
    )
    return await read_answer(reader)
