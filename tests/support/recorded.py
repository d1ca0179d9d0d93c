"""The recorded exchanges of a real TEI, and an upstream that answers with them."""

import base64
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from attrs import field, frozen
from twisted.web.resource import Resource
from twisted.web.server import Request

RECORDED = Path(__file__).parent.parent / "recorded" / "recorded.jsonl"

OF_THE_BATCH = {
    "x-compute-tokens",
    "x-compute-time",
    "x-total-time",
    "x-tokenization-time",
    "x-queue-time",
    "x-inference-time",
    "server-timing",
}
"""Lines that tell of the batch, or of time."""


def _bytes(body: Any) -> bytes:
    if body is None:
        return b""
    if isinstance(body, str):
        return body.encode()
    if "base64" in body:
        return base64.b64decode(body["base64"])
    # A long body was cut when it was recorded; its middle is all alike.
    start = str(body["start"]).encode()
    filler = start[-2:] * (body["length"] // 2 + 1)
    end = b'"}' if start.startswith(b"{") else b"]]"
    return (start + filler)[: body["length"] - len(end)] + end


@frozen(kw_only=True)
class Exchange:
    """One request that TEI was sent, and what it answered."""

    name: str
    server: str
    method: str
    path: str
    headers: tuple[tuple[str, str], ...]
    body: bytes = field(repr=False)
    status: int
    reason: str
    reply_headers: tuple[tuple[str, str], ...] = field(repr=False)
    reply_body: bytes = field(repr=False)

    @property
    def key(self) -> tuple[Any, ...]:
        """What TEI's answer depends on."""
        told = {name.lower(): value for name, value in self.headers}
        names = ("content-type", "authorization")
        return (self.method, self.path, self.body, *map(told.get, names))


def exchanges() -> Iterator[Exchange]:
    """Read all exchanges."""
    for line in RECORDED.read_text(encoding="utf-8").splitlines():
        record = json.loads(line)
        request, response = record["request"], record["response"]
        headers = request["headers"]
        pairs = headers.items() if isinstance(headers, dict) else headers
        yield Exchange(
            name=record["name"],
            server=record["server"],
            method=request["method"],
            path=request["path"],
            headers=tuple((name, value) for name, value in pairs),
            body=_bytes(request["body"]),
            status=response["status"],
            reason=response["reason"],
            reply_headers=tuple((name, value) for name, value in response["headers"]),
            reply_body=_bytes(response["body"]),
        )


OF_THE_CONNECTION = {"connection", "transfer-encoding"}


def answer(request: Request, exchange: Exchange) -> bytes:
    """Write the recorded answer to *request*, and nothing of Twisted's own."""
    request.setResponseCode(exchange.status, exchange.reason.encode())
    request.defaultContentType = None  # type: ignore[assignment]
    request.responseHeaders.removeHeader(b"Server")
    request.responseHeaders.removeHeader(b"Date")
    for name, value in exchange.reply_headers:
        if name.lower() not in OF_THE_CONNECTION:
            request.responseHeaders.addRawHeader(name.encode(), value.encode())
    return exchange.reply_body


class ReplayingUpstream(Resource):
    """Answers each known request as it was recorded."""

    isLeaf = True

    def __init__(self, known: list[Exchange]) -> None:
        super().__init__()
        self.known = {exchange.key: exchange for exchange in known}
        self.asked: list[tuple[Any, ...]] = []

    def render(self, request: Request) -> bytes:
        """Find the exchange, or fail loudly."""
        headers = request.requestHeaders
        told = [
            (headers.getRawHeaders(name) or [None])[0]
            for name in ("content-type", "authorization")
        ]
        body = request.content.read()
        key = (request.method.decode(), request.uri.decode(), body, *told)
        self.asked.append(key)
        exchange = self.known.get(key)
        if exchange is None:
            request.setResponseCode(599)
            return b"not recorded: " + repr(key)[:200].encode()
        return answer(request, exchange)
