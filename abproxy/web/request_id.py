"""
Each request has a name: its client's own, or one that is made for it.

It stands in the log and in errors of our own, as `X-Request-Id`.  An answer of
the upstream's stays as it is, and so does the line on its way upstream.
"""

import re
import secrets

from msgspec.structs import replace

from abproxy.http.messages import Response
from abproxy.web.observing import RequestInfo

__all__ = ["REQUEST_ID", "name_of", "named", "new_name"]

REQUEST_ID = b"X-Request-Id"

_NAME = re.compile(rb"[!-~]{1,128}")
"""Visible ASCII: nothing that could end a line of a log, or fill it."""


def name_of(request: RequestInfo) -> bytes:
    """Take the name that the client gave *request*, or make one."""
    [shown, *_] = request.requestHeaders.getRawHeaders(REQUEST_ID, [b""])
    return shown if _NAME.fullmatch(shown) else new_name()


def new_name() -> bytes:
    """Make a name that nobody has had."""
    return secrets.token_hex(8).encode()


def named(reply: Response, name: bytes) -> Response:
    """Put the *name* of a request on a *reply* of our own."""
    return replace(reply, headers=(*reply.headers, (REQUEST_ID, name)))
