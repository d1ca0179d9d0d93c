"""
A connection on which plain calls go the express way, and all else the other.

Between two requests it is decided anew which way the next one goes.  What has
arrived of a plain call waits here until it is whole; all other bytes are for
Twisted, from the first byte of a request to the last of its answer.  Answers
keep the order of their requests: the next one waits until the one before is
answered, and who sends too far ahead is not read from.
"""

from twisted.python.failure import Failure

from abproxy.web.auth import Caller
from abproxy.web.channel import GONE, House, ProxyChannel
from abproxy.web.express import FastPath, Found, Head
from abproxy.web.express_request import FastRequest
from abproxy.web.request import ProxyRequest

__all__ = ["FastChannel"]

AHEAD = ProxyChannel._optimisticEagerReadSize  # noqa: SLF001
"""Bytes that a client may send ahead while an answer is owed, as with Twisted."""


class FastPathSite(House):
    """What such a connection has to know of the door besides."""

    express: FastPath


class FastChannel(ProxyChannel):
    """One connection of a client, with the express way."""

    site: FastPathSite

    _owed: FastRequest | None = None
    """The request whose answer is owed."""

    _waiting: bytes | bytearray = b""
    """What has arrived of the next one."""

    _needed = 0
    """How many bytes of it there have to be."""

    _is_with_twisted = False
    _is_starting = False
    _is_paused = False
    _last: Head | None = None
    """With which head the last request came."""

    _caller: Caller
    """From whom."""

    @property
    def is_busy(self) -> bool:
        """Whether an answer is owed."""
        return self._owed is not None or super().is_busy

    def dataReceived(self, data: bytes) -> None:
        """Take in what the client sends."""
        if self._is_with_twisted or self._discards or self.is_surplus:
            super().dataReceived(data)
        elif self._owed is None and not self._waiting:
            self._start(data)
            if self._waiting:
                self._go_on()
        else:
            self._waiting += data
            self._hold_back()
            self._go_on()

    def connectionLost(self, reason: Failure = GONE) -> None:
        """Let the work of a client who has left go along."""
        owed, self._owed = self._owed, None
        self._waiting = b""
        if owed is not None:
            owed.leave()
        super().connectionLost(reason)

    def resumeProducing(self) -> None:
        """Go on: the client has read its answers."""
        super().resumeProducing()
        self._go_on()

    def requestDone(self, request: ProxyRequest) -> None:  # noqa: N802
        """Decide anew, unless the next request is with Twisted already."""
        has_more = self.has_more
        super().requestDone(request)
        self._is_with_twisted = has_more

    def answer(self, request: FastRequest, written: bytes) -> None:
        """Send the answer of *request*, and go on with what has arrived since."""
        self._owed = None
        self.site.express.write(self.transport, written)
        if request.closes:
            self._discards = True
            self.loseConnection()
            return
        self.note_quiet()
        if self._is_paused:
            self._read_on()
        if self._waiting:
            self._go_on()

    def refuse_if_slow(self, now: float) -> None:
        """Hang up if the request takes too long to arrive, or none comes."""
        if self._needed and self.is_slow(now):
            self._leave_to_twisted(bytes(self._waiting))
        super().refuse_if_slow(now)

    def _go_on(self) -> None:
        """Begin with whatever is whole, one after the other."""
        while self._can_start() and len(self._waiting) >= max(self._needed, 1):
            data, self._waiting = bytes(self._waiting), b""
            self._start(data)

    def _can_start(self) -> bool:
        is_free = self._owed is None and not self._is_starting
        return is_free and not self._waitingForTransport and not self._discards

    def _start(self, data: bytes) -> None:
        """Begin with a request, the first bytes of which are *data*."""
        self._needed = 0
        found = self.site.express.find(self, data, self._last)
        if found is None:
            self._leave_to_twisted(data)
        elif len(data) < found[2]:
            self._waiting, self._needed = bytearray(data), found[2]
            self.note_arriving()
        else:
            self._submit(found, data)

    def _submit(self, found: Found, data: bytes) -> None:
        head, starts, ends = found
        body, express = data[starts:ends], self.site.express
        parsed = express.read(head, body)
        if parsed is None:
            self._leave_to_twisted(data)
            return
        if head is not self._last:
            self._last, self._caller = head, express.who(self, head)
        self.waits_since = self.quiet_since = None
        self._is_starting = True
        request = self._owed = express.begin(self, head)
        request.submit(head.envelope, parsed, body, self._caller)
        self._is_starting = False
        if len(data) > ends:
            self._waiting = bytearray(data[ends:])
            self._hold_back()

    def _leave_to_twisted(self, data: bytes) -> None:
        self._waiting, self._needed = b"", 0
        self._is_with_twisted = True
        super().dataReceived(data)

    def _hold_back(self) -> None:
        if self._owed is not None and len(self._waiting) > AHEAD:
            self._is_paused = True
            self._networkProducer.pauseProducing()

    def _read_on(self) -> None:
        self._is_paused = False
        if not self._waitingForTransport:
            self._networkProducer.resumeProducing()
