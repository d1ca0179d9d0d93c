"""
Answers that are plain: a plain head, and a body that says where it ends.

These are nearly all.  Pieces are kept as they come and joined once.
"""

from attrs import define, field
from twisted.web.http import _ChunkedTransferDecoder

from abproxy.http.messages import Response
from abproxy.upstream.body import too_long
from abproxy.upstream.fast.heads import PlainHead, read_head

__all__ = ["PlainAnswer", "begin_plain"]


@define(eq=False)
class WithLength:
    """A body whose length was told."""

    left: int
    """Bytes that are still to come; less than 0 if too many came."""

    pieces: list[bytes | memoryview] = field(init=False, factory=list)

    @property
    def has_surplus(self) -> bool:
        """Whether something came after its end."""
        return self.left < 0

    def receive(self, data: bytes | memoryview) -> bool:
        """Take in a piece; whether it was the last."""
        self.left -= len(data)
        self.pieces.append(data[: self.left] if self.left < 0 else data)
        return self.left <= 0


@define(eq=False)
class InChunks:
    """A body that comes in chunks."""

    max_bytes: int
    has_surplus: bool = field(init=False, default=False)
    pieces: list[bytes | memoryview] = field(init=False, factory=list)
    _size: int = field(init=False, default=0)
    _is_whole: bool = field(init=False, default=False)
    _decoder: _ChunkedTransferDecoder = field(init=False)

    def __attrs_post_init__(self) -> None:
        """Let Twisted look for the chunks."""
        self._decoder = _ChunkedTransferDecoder(self._take, self._end)

    def receive(self, data: bytes | memoryview) -> bool:
        """Take in a piece; whether it was the last."""
        self._decoder.dataReceived(bytes(data))
        return self._is_whole

    def _take(self, data: bytes) -> None:
        self._size += len(data)
        if self._size > self.max_bytes:
            raise too_long(self.max_bytes)
        self.pieces.append(data)

    def _end(self, surplus: bytes) -> None:
        self._is_whole = True
        self.has_surplus = bool(surplus)


@define(eq=False)
class PlainAnswer:
    """A plain answer of which the body is still coming in."""

    head: PlainHead
    body: WithLength | InChunks
    _is_new: bool = field(init=False, default=True)

    @property
    def may_be_followed(self) -> bool:
        """Whether nothing has come after it that nobody asked for."""
        return not self.body.has_surplus

    def receive(self, data: bytes) -> Response | None:
        """Take in a piece; the reply if it is whole now."""
        piece: bytes | memoryview = data
        if self._is_new:
            # No copy: joining makes one anyway.
            piece, self._is_new = memoryview(data)[self.head.end :], False
        if not self.body.receive(piece):
            return None
        body = b"".join(self.body.pieces)
        self.body.pieces.clear()
        return Response(
            status=self.head.status,
            reason=self.head.reason,
            headers=self.head.headers,
            body=body,
        )

    def end(self, error: Exception) -> Response:
        """Raise the *error*: some of it is missing."""
        raise error


def begin_plain(data: bytes, max_bytes: int) -> PlainAnswer | None:
    """
    Begin with an answer of which *data* is the first piece, if it is plain.

    Raises:
        UpstreamBroken: the body would be over *max_bytes*.
    """
    head = read_head(data)
    if head is None:
        return None
    if head.length is None:
        return PlainAnswer(head, InChunks(max_bytes))
    if head.length > max_bytes:
        raise too_long(max_bytes)
    return PlainAnswer(head, WithLength(head.length))
