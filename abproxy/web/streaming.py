"""
A request body that is sent upstream while it still arrives.

It is a file to Twisted's request, which writes what it receives, and a
producer to Twisted's agent, which sends it upstream.  The slower side slows the
other down.
"""

from typing import Any

from attrs import define, field
from twisted.internet.defer import CancelledError, Deferred, fail
from twisted.internet.interfaces import IConsumer, IPushProducer
from twisted.web.iweb import UNKNOWN_LENGTH, IBodyProducer
from zope.interface import implementer

__all__ = ["BodyStream"]

MAX_BUFFERED = 65536
"""Bytes kept while the upstream is not ready for them."""

MAX_KEPT = 1 << 20
"""Bytes kept of what was sent, in case it has to be sent again."""


@implementer(IBodyProducer, IPushProducer)
@define(eq=False)
class BodyStream:
    """
    The body of one relayed request.

    Args:
        length: bytes announced, or None for a chunked body.
        source: the transport it comes from; None if it has arrived already.
    """

    _announced: int | None
    _source: Any = field(repr=False)
    is_complete: bool = field(init=False, default=False)
    _waiting: list[bytes] = field(init=False, factory=list, repr=False)
    _waiting_bytes: int = field(init=False, default=0)
    _consumer: IConsumer | None = field(init=False, default=None, repr=False)
    _discards: bool = field(init=False, default=False)
    _holds: bool = field(init=False, default=False)
    _is_closed: bool = field(init=False, default=False)
    _sent: Deferred[None] = field(init=False, factory=Deferred, repr=False)
    _kept: list[bytes] | None = field(init=False, default=None, repr=False)
    """All that has come so far, if it may be sent again."""

    _kept_bytes: int = field(init=False, default=0)

    @classmethod
    def of(cls, body: bytes) -> "BodyStream":
        """Return a stream of a *body* that has arrived already."""
        stream = cls(len(body), None)
        stream.write(body)
        stream.complete()
        return stream

    @property
    def length(self) -> object:
        """Return the announced length, as the agent expects it."""
        return UNKNOWN_LENGTH if self._announced is None else self._announced

    @property
    def held(self) -> int:
        """Return how many bytes are kept."""
        return self._waiting_bytes + (self._kept_bytes if self._kept else 0)

    def write(self, data: bytes) -> None:
        """Receive bytes from the client."""
        self._keep(data)
        if self._discards:
            return
        if self._consumer is not None:
            self._consumer.write(data)
            return
        self._waiting.append(data)
        self._waiting_bytes += len(data)
        if self._waiting_bytes > MAX_BUFFERED:
            self.pauseProducing()

    def keep(self) -> None:
        """Keep what is sent, so that it can be sent again, within a limit."""
        self._kept = []
        for data in self._waiting:
            self._keep(data)

    def _keep(self, data: bytes) -> None:
        if self._kept is None:
            return
        self._kept_bytes += len(data)
        if self._kept_bytes > MAX_KEPT:
            self._kept = None
        else:
            self._kept.append(data)

    def forget(self) -> None:
        """Stop keeping: there is an answer, or the request is over."""
        self._kept = None

    def rewind(self) -> bool:
        """Start again from the first byte; return whether that is possible."""
        if self._kept is None:
            return False
        self._waiting, self._waiting_bytes = list(self._kept), self._kept_bytes
        self._discards = False
        self._consumer, self._sent = None, Deferred()
        return True

    def complete(self) -> None:
        """Note that the client has sent everything."""
        self.is_complete = True
        self._end_if_sent()

    def startProducing(self, consumer: IConsumer) -> Deferred[None]:
        """
        Send to *consumer*; fires when all was sent.

        Fails as if it were cancelled if the request is over: too little would
        come, and that would look like a fault of this process.
        """
        if self._is_closed:
            return fail(CancelledError())
        self.resumeProducing()
        waiting, self._waiting, self._waiting_bytes = self._waiting, [], 0
        self._consumer = consumer
        for data in waiting:
            consumer.write(data)
        self._end_if_sent()
        return self._sent

    def stopProducing(self) -> None:
        """Discard what still comes: the upstream wants no more."""
        self._discards = True
        self._consumer = None
        self._waiting.clear()
        self.resumeProducing()

    def pauseProducing(self) -> None:
        """Pause, as the upstream has not read what was sent to it."""
        if not self._holds:
            self._holds = True
            if self._source is not None:
                self._source.pauseProducing()

    def resumeProducing(self) -> None:
        """
        Resume: the upstream has read what was sent to it.

        A source that was paused from elsewhere stays paused: a client that does
        not read its answers is not to send more requests.
        """
        if self._holds:
            self._holds = False
            if self._source is not None:
                self._source.resumeProducing()
            self._end_if_sent()

    def _end_if_sent(self) -> None:
        """
        Fire that all was sent, but not while the upstream has paused us.

        Its connection would resume the next producer instead, and break: one that
        was never paused must not be resumed.
        """
        is_sent = self.is_complete and self._consumer is not None and not self._holds
        if is_sent and not self._sent.called:
            self._sent.callback(None)

    def tell(self) -> int:
        """Return 0: Twisted asks a file how much was written, to no purpose here."""
        return 0

    def seek(self, offset: int, whence: int = 0) -> int:
        """Do nothing: Twisted rewinds a file before the request is processed."""
        return offset + whence

    def close(self) -> None:
        """Discard the rest: the request is over, and Twisted closes its file."""
        self._is_closed = True
        self.forget()
        self.stopProducing()
