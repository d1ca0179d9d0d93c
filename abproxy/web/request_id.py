"""
Each request has a name: its client's own, or one that is made for it.

It stands in the log and in answers of our own, as `X-Request-Id`.  An answer of
the upstream's stays as it is, and so does the line on its way upstream.
"""

import re
import secrets

from twisted.web.server import Request

__all__ = ["REQUEST_ID", "name_of"]

REQUEST_ID = b"X-Request-Id"

_NAME = re.compile(rb"[!-~]{1,128}")
"""Visible ASCII: nothing that could end a line of a log, or fill it."""


def name_of(request: Request) -> bytes:
    """Take the name that the client gave *request*, or make one."""
    [shown, *_] = request.requestHeaders.getRawHeaders(REQUEST_ID, [b""])
    return shown if _NAME.fullmatch(shown) else secrets.token_hex(8).encode()
