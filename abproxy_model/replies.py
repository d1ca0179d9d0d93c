"""How an answer is sent: with a length, so that it is never chunked."""

from twisted.web.iweb import IRequest

from abproxy.messages import reason_of

__all__ = ("plain", "reply")


def reply(
    request: IRequest, status: int, body: bytes, kind: bytes = b"application/json"
) -> bytes:
    """Answer *status* and *body*; an empty body has no type."""
    request.setResponseCode(status, reason_of(status))
    request.setHeader(b"content-length", str(len(body)).encode())
    if body:
        request.setHeader(b"content-type", kind)
    else:
        request.responseHeaders.removeHeader(b"content-type")
    return body


def plain(request: IRequest, status: int, body: bytes) -> bytes:
    """Answer text."""
    return reply(request, status, body, b"text/plain; charset=utf-8")
