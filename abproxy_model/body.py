"""
A request's body: of the right type and size, or refused as TEI refuses it.

The type is looked at before the size. What is over the limit is counted and
thrown away while it arrives.
"""

import re
from io import BytesIO
from typing import Any

from twisted.web.iweb import IRequest
from twisted.web.server import Request

from abproxy_model.shapes import BadBody

__all__ = ("MAX_BODY_BYTES", "BoundedRequest", "json_body")

MAX_BODY_BYTES = 2_000_000
_JSON = re.compile(rb"\s*application/([^;/\s]+\+)?json\s*(;.*)?", re.IGNORECASE)


def json_body(request: IRequest) -> bytes:
    """
    The bytes of a JSON *request*.

    Raises:
        BadBody: it does not say that it is JSON, or there is too much of it.
    """
    kind = request.getHeader(b"content-type") or b""
    if not _JSON.fullmatch(kind):
        raise BadBody(415, "Expected request with `Content-Type: application/json`")
    body: bytes = request.content.read()
    if len(body) > MAX_BODY_BYTES:
        raise BadBody(413, "Failed to buffer the request body: length limit exceeded")
    return body


class BoundedRequest(Request):
    """A request that never keeps more than one byte too many, and never on disk."""

    def gotLength(self, length: int | None) -> None:  # noqa: ARG002
        """Keep the body in memory, whatever its length."""
        self.content = BytesIO()

    def handleContentChunk(self, data: bytes) -> None:
        """Keep what is within the limit, and one byte to tell that there was more."""
        content: Any = self.content
        content.write(data[: MAX_BODY_BYTES + 1 - content.tell()])
