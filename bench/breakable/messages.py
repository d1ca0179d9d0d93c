"""Requests, answers, and what of an answer travels. Plain values, no I/O."""

from http import HTTPStatus
from typing import Literal

import msgspec
from attrs import field, frozen

__all__ = ["Answer", "Delivery", "Request", "error", "page"]


@frozen(kw_only=True)
class Request:
    """One request, read whole."""

    method: bytes
    path: bytes
    headers: dict[bytes, bytes] = field(repr=False)
    body: bytes = field(repr=False)

    def has(self, header: str) -> bool:
        """Return whether there is such a header line."""
        return header.lower().encode() in self.headers


@frozen(kw_only=True)
class Answer:
    """One answer before it becomes bytes."""

    status: int = 200
    body: bytes = field(default=b"", repr=False)
    kind: str = "application/json"
    location: bytes = b""
    """Where the client is sent instead."""

    def to_bytes(self, *, chunked: bool) -> bytes:
        """Write the whole answer as HTTP/1.1."""
        phrase = HTTPStatus(self.status).phrase.encode()
        head = b"HTTP/1.1 %d %b\r\ncontent-type: %b\r\n"
        head %= (self.status, phrase, self.kind.encode())
        if self.location:
            head += b"location: %b\r\n" % self.location
        if not chunked:
            return b"%bcontent-length: %d\r\n\r\n%b" % (head, len(self.body), self.body)
        middle = len(self.body) // 2
        pieces = filter(None, (self.body[:middle], self.body[middle:]))
        chunks = b"".join(b"%x\r\n%b\r\n" % (len(each), each) for each in pieces)
        return b"%btransfer-encoding: chunked\r\n\r\n%b0\r\n\r\n" % (head, chunks)


@frozen(kw_only=True)
class Delivery:
    """What of an answer travels, and what becomes of the connection then."""

    data: bytes = field(repr=False)
    then: Literal["keep", "close", "stall"] = "keep"


def error(status: int, message: str, kind: str, *, openai: bool = False) -> Answer:
    """Write an error as TEI does on its own routes, or on the OpenAI ones."""
    if openai:
        told = {"message": message, "code": status, "type": kind}
    else:
        told = {"error": message, "error_type": kind}
    return Answer(status=status, body=msgspec.json.encode(told))


def page(status: int) -> Answer:
    """Write the page that says *status*, as gateways and firewalls do."""
    title = f"{status} {HTTPStatus(status).phrase}"
    told = f"<html><head><title>{title}</title></head><body>{title}</body></html>"
    return Answer(status=status, body=told.encode(), kind="text/html")
