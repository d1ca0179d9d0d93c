"""
A request's body: of the right type and size, or refused as TEI refuses it.

The type is looked at before the size. What is over the limit is counted and
thrown away while it arrives.
"""

from io import BytesIO
from typing import Any

from twisted.web.server import Request

from abproxy_model.requests import MAX_BODY_BYTES

__all__ = ("BoundedRequest",)


class BoundedRequest(Request):
    """A request that never keeps more than one byte too many, and never on disk."""

    def gotLength(self, length: int | None) -> None:  # noqa: ARG002
        """Keep the body in memory, whatever its length."""
        self.content = BytesIO()

    def handleContentChunk(self, data: bytes) -> None:
        """Keep what is within the limit, and one byte to tell that there was more."""
        content: Any = self.content
        content.write(data[: MAX_BODY_BYTES + 1 - content.tell()])
