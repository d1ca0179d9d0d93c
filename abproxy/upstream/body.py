"""
The body of a response, whole or not at all.

Giving up closes the connection, which `twisted.web.client.readBody` and
`treq.content` do not do once the body has begun.
"""

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import ITransport
from twisted.internet.protocol import Protocol
from twisted.python.failure import Failure
from twisted.web.client import ResponseDone
from twisted.web.http import PotentialDataLoss
from twisted.web.iweb import IResponse

from abproxy.errors import UpstreamBroken

__all__ = ["collect", "too_long"]


_DONE = Failure(ResponseDone())


@define(eq=False)
class _Body(Protocol):
    max_bytes: int
    chunks: list[bytes] = field(init=False, factory=list)
    size: int = field(init=False, default=0)
    done: Deferred[bytes] = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.done = Deferred(self._give_up)

    def dataReceived(self, data: bytes) -> None:
        self.size += len(data)
        if self.size <= self.max_bytes:
            self.chunks.append(data)
        elif not self.done.called:
            self._give_up(self.done)
            self.done.errback(too_long(self.max_bytes))

    def connectionLost(self, reason: Failure = _DONE) -> None:
        if self.done.called:
            return
        # Without a length and not chunked, the end of the connection is the
        # only end there is.
        if reason.check(ResponseDone, PotentialDataLoss):
            self.done.callback(b"".join(self.chunks))
        else:
            self.done.errback(reason)

    def _give_up(self, _done: Deferred[bytes]) -> None:
        self.chunks.clear()
        transport: ITransport | None = self.transport
        if transport is not None:
            transport.loseConnection()


def too_long(max_bytes: int) -> UpstreamBroken:
    """Say that an answer is over *max_bytes*."""
    return UpstreamBroken(f"the inference server's answer is over {max_bytes} bytes")


def collect(response: IResponse, max_bytes: int) -> Deferred[bytes]:
    """
    Read the whole body of *response*; cancelling closes the connection.

    Raises:
        UpstreamBroken: the body is over *max_bytes*.
    """
    body = _Body(max_bytes)
    response.deliverBody(body)
    return body.done
