"""
A connection whose plain calls take the fast path, and all else the ordinary one.

Before each request it is decided anew who reads it.  What has arrived of a plain
call waits here until it is whole; all other bytes are for Twisted, from the first
byte of a request to the last of its answer.  Answers keep the order of their
requests: the next one is not begun until the one before is answered, and a client
that sends too far ahead is not read from.

    state        what happens                               next state
    -----------  -----------------------------------------  ------------------------
    IDLE         a plain call is here                       SUBMITTING
    IDLE         a plain call is here, its body in part     RECEIVING
    IDLE         anything else is here                      TWISTED
    RECEIVING    its body is whole                          SUBMITTING, or TWISTED if
                                                            it is no call after all
    RECEIVING    it takes too long                          TWISTED, which says so
    SUBMITTING   the call waits for its batch               ANSWERING
    SUBMITTING   it is answered at once                     IDLE, or CLOSED (draining)
    ANSWERING    it is answered                             IDLE, or CLOSED (draining)
    TWISTED      its request is answered                    IDLE, or TWISTED if more is
                                                            there already
    any          the connection is lost                     CLOSED

Only while it is IDLE or RECEIVING, and the client reads its answers, a request is
begun.
"""

from collections.abc import Hashable
from enum import Enum
from typing import Any

from twisted.python.failure import Failure
from twisted.web.resource import IResource

from abproxy.errors import ProxyError
from abproxy.web.auth import Caller
from abproxy.web.channel import GONE, ProxyChannel
from abproxy.web.fast.request import FastPath, FastRequest, Found, KnownHead
from abproxy.web.request import ProxyRequest
from abproxy.web.server import ProxySite, ServerLimits

__all__ = ["FastChannel", "FastSite", "State"]

LARGEST_BODY = 256 << 10
"""The bytes of a larger body have time for the ordinary path."""

AHEAD = ProxyChannel._optimisticEagerReadSize  # noqa: SLF001
"""Bytes that a client may send ahead while an answer is owed, as with Twisted."""


class State(Enum):
    """The state of a connection; see the table above."""

    IDLE = "idle"
    RECEIVING = "receiving"
    SUBMITTING = "submitting"
    ANSWERING = "answering"
    TWISTED = "twisted"
    CLOSED = "closed"


IDLE, RECEIVING, SUBMITTING = State.IDLE, State.RECEIVING, State.SUBMITTING
ANSWERING, TWISTED, CLOSED = State.ANSWERING, State.TWISTED, State.CLOSED

BUSY = frozenset({RECEIVING, SUBMITTING, ANSWERING})


class FastChannel(ProxyChannel):
    """One connection of a client, with the fast path."""

    site: "FastSite"

    _state = IDLE

    _request: FastRequest | None = None
    """The request whose answer is owed; there is one in ANSWERING."""

    _waiting: bytes | bytearray = b""
    """What has arrived of the next requests."""

    _needed = 0
    """How many bytes of it there have to be in RECEIVING."""

    _last: KnownHead | None = None
    """The head of the last call on the fast path."""

    _caller: Caller
    """The client that sent it."""

    _host = ""
    """Its IP address."""

    _connection: Hashable = 0
    """What tells it from others that show no key."""

    @property
    def is_busy(self) -> bool:
        """Return whether a call arrives or is open, or Twisted reads one."""
        return self._state in BUSY or super().is_busy

    def connectionMade(self) -> None:
        """Add the connection to the site's."""
        super().connectionMade()
        if self.is_surplus:
            self._state = TWISTED

    def connectionLost(self, reason: Failure = GONE) -> None:
        """Cancel the call; the client disconnected."""
        request, self._request = self._request, None
        self._state, self._waiting = CLOSED, b""
        if request is not None:
            request.cancel()
        super().connectionLost(reason)

    def dataReceived(self, data: bytes) -> None:
        """Read what the client sends."""
        state = self._state
        if state is TWISTED or state is CLOSED:
            super().dataReceived(data)
        elif state is IDLE and not self._waiting:
            self._start(data)
            if self._waiting:
                self._go_on()
                self.count_held()
        else:
            self._waiting += data
            self._hold_back()
            self._go_on()
            if self._waiting or self._held:
                self.count_held()

    def resumeProducing(self) -> None:
        """Resume: the client has read its answers."""
        super().resumeProducing()
        self._go_on()

    def requestDone(self, request: ProxyRequest) -> None:  # noqa: N802
        """Choose the path of the next request, unless Twisted has it already."""
        has_more = self.has_more
        super().requestDone(request)
        if self._state is TWISTED and not has_more:
            self._state = IDLE

    def refuse_if_slow(self, now: float) -> None:
        """Close the connection if the request arrives too slowly, or none comes."""
        if self._state is RECEIVING and self.is_slow(now):
            self._leave_to_twisted(bytes(self._waiting))
        super().refuse_if_slow(now)

    def count_held(self) -> None:
        """Count also what waits to be read as a plain call."""
        if self._state is TWISTED:
            super().count_held()
        else:
            self.hold(len(self._waiting))

    def refuse_arriving(self, error: ProxyError) -> None:
        """Refuse the request that is arriving, in the words of its route."""
        if self._state is RECEIVING:
            self._leave_to_twisted(bytes(self._waiting))
        super().refuse_arriving(error)

    def _go_on(self) -> None:
        """Process the requests that are whole, one after the other."""
        while (
            (self._state is IDLE and self._waiting)
            or (self._state is RECEIVING and len(self._waiting) >= self._needed)
        ) and not self._waitingForTransport:
            data, self._waiting = bytes(self._waiting), b""
            self._start(data)

    def _start(self, data: bytes) -> None:
        """Start a request, the first bytes of which are *data*."""
        site = self.site
        found = site.fast_path.find(data, self._last)
        if found is None or found[2] - found[1] > site.largest_body:
            self._leave_to_twisted(data)
        elif len(data) < found[2]:
            if found[0].has_deadline:
                self._leave_to_twisted(data)  # which measures how long it takes
                return
            self._state, self._needed = RECEIVING, found[2]
            self._waiting = bytearray(data)
            self.note_arriving()
        else:
            self._submit(found, data)

    def _submit(self, found: Found, data: bytes) -> None:
        known, starts, ends = found
        body, site = data[starts:ends], self.site
        app, head = site.fast_path.app, known
        try:
            if known.of_models is not None:
                head, body = site.fast_path.choose(known, body)
            parsed = head.call_head.read(body)
        except Exception:  # noqa: BLE001  it happens again there, where it is told
            parsed = None
        if parsed is None:
            self._leave_to_twisted(data)
            return
        if known is not self._last:
            peer = self.peer_host
            self._host = app.policy.clients.address_of(peer, head.headers)
            self._connection = id(self) if self._host == peer else self._host
        request = self._request = FastRequest(
            method=FastRequest.METHOD,
            target=head.target,
            headers=head.headers,
            client_host=self._host,
            connection=self._connection,
            model=head.served.name,
            below=head.below,
            route=head.route,
            fast_path=site.fast_path,
            site=site,
            answer=self.answer,
        )
        if known is not self._last:
            self._last, self._caller = known, app.policy.clients.identify(request)
        self.arriving_since = self.idle_since = None
        self._state = SUBMITTING
        if len(data) > ends:
            self._waiting = bytearray(data[ends:])
        site.begin(request)
        request.submit(head, parsed, body, self._caller)
        if self._state is SUBMITTING:
            self._state = ANSWERING
            if self._waiting:
                self._hold_back()

    def answer(self, request: FastRequest, written: bytes) -> None:
        """
        Send the answer to *request*, as it is *written*, and end it.

        Then go on with what has arrived since.
        """
        site, was, self._request = self.site, self._state, None
        is_last = site.is_draining
        if is_last:
            self._state, self._waiting, self._discards = CLOSED, b"", True
        else:
            self._state, self.idle_since = IDLE, site.checked_at
        site.fast_path.write(self.transport, written)
        # Counted while the client reads already.
        site.end(request, gone=False)
        if is_last:
            self.loseConnection()
            return
        # Within _submit, its caller goes on: a thousand calls that are refused at once
        # would be as many functions deep.
        if was is ANSWERING and self._waiting:
            if len(self._waiting) > AHEAD and not self._waitingForTransport:
                self._networkProducer.resumeProducing()
            self._go_on()

    def _leave_to_twisted(self, data: bytes) -> None:
        self._state, self._waiting = TWISTED, b""
        super().dataReceived(data)

    def _hold_back(self) -> None:
        if self._state is ANSWERING and len(self._waiting) > AHEAD:
            self._networkProducer.pauseProducing()


class FastSite(ProxySite):
    """The connections of clients at one port, with the fast path."""

    protocol = FastChannel

    def __init__(
        self,
        resource: IResource,
        *,
        fast_path: FastPath,
        limits: ServerLimits,
        **others: Any,
    ) -> None:
        super().__init__(resource, limits=limits, **others)
        self.fast_path = fast_path
        self.set_limits(limits)

    def set_limits(self, limits: ServerLimits) -> None:
        """Change the limits, from the next request or connection on."""
        super().set_limits(limits)
        self.largest_body = min(LARGEST_BODY, limits.max_body_bytes)
