"""
What is asked for: how many clients, how many texts, how many dimensions.

Every call of a workload has a number, and texts of its own: so no answer can
be kept from another call, and each can be checked.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import attrs
from attrs import frozen

from bench.wire import rows

__all__ = ["FULL", "QUICK", "Workload"]

DIFFERENT_CALLS = 4096
"""So many calls take turns under load: never are two of them in flight twice."""


@frozen(kw_only=True)
class Workload:
    """One kind of call, and how many clients make it at a time."""

    name: str
    clients: int = 64
    inputs: int = 2
    dimensions: int = 384
    is_openai: bool = False
    """Whether it asks /v1/embeddings for base64, instead of /embed for numbers."""

    keys: Sequence[str] = ()
    """Keys that calls show in turn; calls with different keys share no batch."""

    def texts(self, number: int) -> list[bytes]:
        """Write the inputs of a call as JSON."""
        text = b'"What is Vector Search? %d.%d"'
        return [text % (number, at) for at in range(self.inputs)]

    def body(self, number: int) -> bytes:
        """Write the body of a call."""
        texts = b",".join(self.texts(number))
        if self.is_openai:
            return b'{"input":[%b],"model":"m","encoding_format":"base64"}' % texts
        return b'{"inputs":[%b]}' % texts

    def answer(self, number: int) -> bytes:
        """Write what the upstream answers to a call."""
        texts = self.texts(number)
        if self.is_openai:
            return rows.openai_answer(texts, self.dimensions, is_base64=True)
        return rows.embed_answer(texts, self.dimensions)

    def request(self, number: int) -> bytes:
        """Write a call as it goes over the wire."""
        body = self.body(number)
        path = b"/v1/embeddings" if self.is_openai else b"/embed"
        key = self._key_line(number).encode()
        return (
            b"POST %b HTTP/1.1\r\nHost: 127.0.0.1\r\n%b"
            b"Content-Type: application/json\r\nContent-Length: %d\r\n\r\n%b"
        ) % (path, key, len(body), body)

    def requests(self) -> list[bytes]:
        """Write the calls that take turns under load."""
        return [self.request(number) for number in range(DIFFERENT_CALLS)]

    def described(self) -> Mapping[str, Any]:
        """Tell what a table has to know."""
        return attrs.asdict(self, filter=attrs.filters.exclude("keys"))

    def _key_line(self, number: int) -> str:
        if not self.keys:
            return ""
        return f"Authorization: Bearer {self.keys[number % len(self.keys)]}\r\n"


def _base(clients: int) -> Workload:
    return Workload(name=f"clients-{clients}", clients=clients)


QUICK = (_base(1), _base(64), _base(200))
FULL = (
    *map(_base, (1, 8, 64, 200, 1000)),
    *(Workload(name=f"inputs-{number}", inputs=number) for number in (1, 8, 32)),
    *(Workload(name=f"dimensions-{size}", dimensions=size) for size in (768, 1024)),
    Workload(name="base64", is_openai=True),
)
"""With 2 inputs, and with 384 dimensions, at 64 clients: that is `clients-64`."""
