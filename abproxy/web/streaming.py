"""
A request body that travels on while it still arrives.

It is a file to Twisted's request, which writes what it receives, and a
producer to Twisted's agent, which sends it upstream.  Whoever is slower
slows the other down.
"""

from typing import Protocol

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IConsumer, IPushProducer
from twisted.web.iweb import UNKNOWN_LENGTH, IBodyProducer
from zope.interface import implementer

__all__ = ["BodyStream", "Source"]

MAX_BUFFERED = 65536
"""Bytes kept while the upstream is not ready for them."""


class Source(Protocol):
    """The connection that the body comes from."""

    def pauseProducing(self) -> None:
        """Read no more for now."""

    def resumeProducing(self) -> None:
        """Read on."""


class _Nobody:
    """Where a body comes from that has arrived."""

    def pauseProducing(self) -> None:
        pass

    def resumeProducing(self) -> None:
        pass


@implementer(IBodyProducer, IPushProducer)
@define(eq=False)
class BodyStream:
    """
    The body of one relayed request.

    Args:
        length: bytes announced, or None for a chunked body.
        source: the connection it comes from.
    """

    _announced: int | None
    _source: Source = field(repr=False)
    is_complete: bool = field(init=False, default=False)
    _waiting: list[bytes] = field(init=False, factory=list, repr=False)
    _waiting_bytes: int = field(init=False, default=0)
    _consumer: IConsumer | None = field(init=False, default=None, repr=False)
    _discards: bool = field(init=False, default=False)
    _holds: bool = field(init=False, default=False)
    _sent: Deferred[None] = field(init=False, factory=Deferred, repr=False)

    @classmethod
    def of(cls, body: bytes) -> "BodyStream":
        """Make a stream of a *body* that is all here."""
        stream = cls(len(body), _Nobody())
        stream.write(body)
        stream.complete()
        return stream

    @property
    def length(self) -> object:
        """Bytes to come, as the agent wants it said."""
        return UNKNOWN_LENGTH if self._announced is None else self._announced

    def write(self, data: bytes) -> None:
        """Take in what the client sent."""
        if self._discards:
            return
        if self._consumer is not None:
            self._consumer.write(data)
            return
        self._waiting.append(data)
        self._waiting_bytes += len(data)
        if self._waiting_bytes > MAX_BUFFERED:
            self.pauseProducing()

    def complete(self) -> None:
        """Note that the client has sent everything."""
        self.is_complete = True
        self._end_if_sent()

    def startProducing(self, consumer: IConsumer) -> Deferred[None]:
        """Send to *consumer*; fires when all was sent."""
        self.resumeProducing()
        waiting, self._waiting = self._waiting, []
        self._consumer = consumer
        for data in waiting:
            consumer.write(data)
        self._end_if_sent()
        return self._sent

    def stopProducing(self) -> None:
        """Throw away what still comes: the upstream wants no more."""
        self._discards = True
        self._consumer = None
        self._waiting.clear()
        self.resumeProducing()

    def pauseProducing(self) -> None:
        """Wait for the upstream."""
        if not self._holds:
            self._holds = True
            self._source.pauseProducing()

    def resumeProducing(self) -> None:
        """
        Go on: the upstream has taken in what it had.

        A source that was paused by somebody else stays paused: a client that
        does not read its answers is not to send more requests.
        """
        if self._holds:
            self._holds = False
            self._source.resumeProducing()
            self._end_if_sent()

    def _end_if_sent(self) -> None:
        """
        Say that all was sent, but not while the upstream wants a pause.

        Its connection would go on to resume whoever comes next, and break: a
        producer that was never paused must not be resumed.
        """
        is_sent = self.is_complete and self._consumer is not None and not self._holds
        if is_sent and not self._sent.called:
            self._sent.callback(None)

    def tell(self) -> int:
        """Be a file: Twisted asks how much was written, to no purpose here."""
        return 0

    def seek(self, offset: int, whence: int = 0) -> int:
        """Be a file: Twisted rewinds it before the request is processed."""
        return offset + whence

    def close(self) -> None:
        """Be a file: the request is over."""
        self.stopProducing()
