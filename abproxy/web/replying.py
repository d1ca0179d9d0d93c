"""How a reply is written to a client: the upstream's lines, and our framing."""

from twisted.web.http import NO_BODY_CODES, datetimeToString
from twisted.web.http_headers import Headers
from twisted.web.server import Request

from abproxy.http.messages import HeaderList, Response, reason_of

__all__ = ["add_lines", "write_head", "write_reply"]


def write_head(request: Request, status: int, reason: bytes, lines: HeaderList) -> None:
    """Set status and header lines; a date is added if there is none."""
    request.setResponseCode(status, reason or reason_of(status))
    add_lines(request.responseHeaders, lines)
    if not request.responseHeaders.hasHeader(b"Date"):
        request.responseHeaders.addRawHeader(b"Date", datetimeToString())


def add_lines(headers: Headers, lines: HeaderList) -> None:
    """Put *lines* behind those that are there, equal names together."""
    for name, value in lines:
        headers.addRawHeader(name, value)


def write_reply(request: Request, reply: Response) -> None:
    """
    Write a whole reply.

    With its length: Twisted would send it in chunks otherwise.
    """
    write_head(request, reply.status, reply.reason, reply.headers)
    if reply.status not in NO_BODY_CODES:
        request.setHeader(b"Content-Length", b"%d" % len(reply.body))
    request.write(reply.body)
