"""
One request of a client, read as its route needs it.

A request for a batched route is read whole, within a limit.  Any other begins
its way upstream as soon as its head is here, and its body follows.
"""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from io import BytesIO
from typing import Any

from twisted.internet.defer import CancelledError
from twisted.internet.interfaces import IDelayedCall
from twisted.python.failure import Failure
from twisted.web.server import Request

from abproxy.errors import BodyTooLarge, ProxyError, TooManyConnections
from abproxy.events import RequestInfo
from abproxy.web.auth import Caller
from abproxy.web.memory import memory_full
from abproxy.web.streaming import BodyStream

__all__ = ["ProxyRequest", "unless_gone", "without_origin", "without_prefix"]

SMALL = 64 << 10
"""So large a body is read in any case: the reactor reads as much in one go."""

_ORIGIN = re.compile(rb"\Ahttps?://[^/?#]*", re.IGNORECASE)


def without_origin(target: bytes) -> bytes:
    """Return *target* without `http://host`: a server must accept that form too."""
    return _ORIGIN.sub(b"", target)


def without_prefix(target: bytes, prefix: bytes) -> bytes:
    """Return *target* without a *prefix* that a load balancer has left in place."""
    if prefix and target.startswith(prefix + b"/"):
        return target[len(prefix) :]
    return target


class ProxyRequest(Request):
    """A request that may be processed before its body is complete."""

    channel: Any
    """The ProxyChannel on which it came."""

    site: Any
    """The ProxySite of that."""

    prefix: bytes = b""
    """What its path began with, if a load balancer has left that in place."""

    content: Any

    # An upstream's answer without a type stays an answer without a type.
    defaultContentType = None

    info: RequestInfo
    """What others may know of it, from when it is processed."""

    head_at = 0.0
    """When the head had arrived, on the clock's scale."""

    _deadline: IDelayedCall | None = None
    """When the body has taken too long for the client, or for the operator."""

    streams = False
    """Whether its body is passed on as it comes, and not read whole."""

    _is_refused = False
    _is_answered = False
    _received = 0

    def gotLength(self, length: int | None) -> None:
        """Choose how the body is read, now that the head is complete."""
        channel = self.channel
        self.head_at = channel.site.reactor.seconds()
        if not channel.target.isascii():
            self._is_refused = True
            channel.refuse_head()
        elif error := self._refusal(length):
            self._refuse(error)
        elif channel.site.limits.is_batched(channel.command, channel.target):
            self.content = BytesIO()
            if not channel.has_arrived(length):
                self._set_deadline()
        else:
            self.streams = True
            channel.arriving_since = None
            self.content = BodyStream(length, channel.transport)
            super().requestReceived(channel.command, channel.as_sent, channel.version)
        if self._is_refused or self.startedWriting:
            # What has its answer already is not asked to continue.
            self.requestHeaders.removeHeader(b"Expect")

    def _refusal(self, length: int | None) -> ProxyError | None:
        """
        Return why the body is not even read, if there is a reason.

        A body that is here as a whole is read in any case, so that the connection
        can be kept.
        """
        channel = self.channel
        limits = channel.site.limits
        if channel.is_surplus:
            return TooManyConnections("too many connections: try again later")
        is_too_large = (length or 0) > limits.max_body_bytes
        if is_too_large or not channel.has_arrived(length):
            try:
                limits.check(self._describe_head())
            except ProxyError as error:
                return error
        if is_too_large:
            return self._too_large()
        is_small = length is not None and length <= SMALL
        if channel.site.memory.is_full and not is_small:
            return memory_full()
        return None

    def _set_deadline(self) -> None:
        site = self.channel.site
        caller = site.clients().identify(self._describe_head())
        if caller.deadline_s is not None:
            self._deadline = site.reactor.callLater(
                caller.deadline_s, self._miss_deadline, caller
            )

    def _miss_deadline(self, caller: Caller) -> None:
        self._deadline = None
        self._refuse(caller.too_late())

    def _end_deadline(self) -> None:
        deadline, self._deadline = self._deadline, None
        if deadline is not None:
            deadline.cancel()

    def connectionLost(self, reason: Failure) -> None:
        """Note that the client is gone."""
        self._end_deadline()
        super().connectionLost(reason)

    def handleContentChunk(self, data: bytes) -> None:
        """Store a piece of the body, within the limit."""
        if self._is_refused:
            return
        self._received += len(data)
        if self._received <= self.channel.site.limits.max_body_bytes:
            self.content.write(data)
            self.channel.body_bytes = self._held()
        elif self.streams:
            # Part of it is upstream already, and an answer may be under way.
            self.channel.forceAbortClient()
        else:
            self._refuse(self._too_large())

    def _held(self) -> int:
        """Return how many bytes are held of the body."""
        if not self.streams:
            return self._received
        if self.channel.site.memory.is_full:
            self.content.forget()
        return int(self.content.held)

    def requestReceived(self, command: bytes, path: bytes, version: bytes) -> None:
        """Process the request, or note that its body is complete."""
        self._end_deadline()
        if self._is_refused:
            return
        self.channel.arriving_since = None
        if not self.streams:
            super().requestReceived(command, path, version)
            return
        self.content.complete()
        if self._is_answered:
            super().finish()

    def lead(self, prefix: bytes, target: bytes) -> None:
        """Change its target, without a *prefix* that the server does not know."""
        if prefix:
            self.prefix += prefix
            self.info.below = prefix
            self.uri = self.info.target = target

    def replace_body(self, body: bytes) -> None:
        """Put *body* in the place of what was read."""
        self.content = BytesIO(body)
        if self.requestHeaders.hasHeader(b"Content-Length"):
            self.requestHeaders.setRawHeaders(b"Content-Length", [b"%d" % len(body)])

    def finish(self) -> None:
        """
        End the answer, but not before the client has sent its request.

        Twisted's channel would take the rest of the body for a new request.
        With the answer out, that rest may not take for ever.
        """
        self._is_answered = True
        if not self.streams or self.content.is_complete:
            super().finish()
        else:
            self.content.stopProducing()
            self.channel.arriving_since = self.channel.site.reactor.seconds()

    def end_connection(self) -> None:
        """Make this answer the last on its connection, unless it has begun."""
        if not self.startedWriting:
            self.channel.persistent = False
            self.setHeader(b"Connection", b"close")

    def getRequestHostname(self) -> bytes:  # noqa: N802
        """
        Return a constant for Klein, whatever the `Host` of the client is.

        No route depends on it, and a `Host` that is no name would be an error.
        """
        return b"abproxy"

    def process(self) -> None:
        """
        Pass the request to the site's resource.

        The path stays as it was sent: `/%65mbed` is not `/embed` to TEI.
        """
        site = self.site = self.channel.site
        asked, self.uri = without_origin(self.uri), site.local(self.uri)
        self.prefix = asked.removesuffix(self.uri)
        self.path = site.local(self.path)
        self.prepath: list[bytes] = []
        self.postpath = self.path[1:].split(b"/")
        info = self.info = self._describe(self.method, self.uri, self.clientproto)
        site.begin(info)
        if site.is_draining:
            self.end_connection()
        self.notifyFinish().addBoth(self._ended)
        self.render(site.resource)

    def _ended(self, outcome: object) -> None:
        self.info.status, self.info.size = self.code, self.sentLength
        self.site.end(self.info, gone=isinstance(outcome, Failure))

    def _describe_head(self) -> RequestInfo:
        channel = self.channel
        return self._describe(channel.command, channel.target, channel.version)

    def _describe(self, method: bytes, target: bytes, version: bytes) -> RequestInfo:
        channel = self.channel
        peer, site = channel.peer_host, channel.site
        host = site.clients().address_of(peer, self.requestHeaders)
        info = RequestInfo(
            method=method,
            target=target,
            version=version,
            headers=self.requestHeaders,
            client_host=host,
            connection=id(channel) if host == peer else host,
        )
        info.is_ours = site.operations.owns(info)
        return info

    def _too_large(self) -> BodyTooLarge:
        most = self.channel.site.limits.max_body_bytes
        return BodyTooLarge(f"a request may have {most} bytes at most")

    def _refuse(self, error: ProxyError) -> None:
        """Answer with *error*, which ends the connection, and count the request."""
        self._end_deadline()
        self._is_refused = True
        channel, info = self.channel, self._describe_head()
        site = channel.site
        site.begin(info)
        channel.refuse(error, info.request_id())
        info.status = error.status
        site.end(info, gone=False)


@contextmanager
def unless_gone(request: ProxyRequest) -> Iterator[None]:
    """
    Turn an error of ours into a cancellation if the client of *request* has left.

    Nothing can be answered then, and Klein would log it as a bug: anyone could fill
    the log by leaving.

    Raises:
        CancelledError: instead of a ProxyError.
    """
    try:
        yield
    except ProxyError:
        if request.channel is None:
            raise CancelledError from None
        raise
