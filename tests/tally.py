"""Clients who ask on and on, and how their calls ended."""

from collections import Counter

from attrs import define, field
from sockets import Caller, connect, until
from twisted.internet.error import ConnectError, ConnectionClosed

__all__ = ["Tally"]


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
