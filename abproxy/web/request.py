"""
One request of a client, read as its route needs it.

A request for a batched route is read whole, within a limit.  Any other begins
its way upstream as soon as its head is here, and its body follows.
"""

import re
from collections.abc import Callable
from io import BytesIO
from typing import Any, Protocol

from twisted.web.server import Request

from abproxy.errors import BodyTooLarge, ProxyError, TooManyConnections
from abproxy.web.request_id import name_of
from abproxy.web.streaming import BodyStream

__all__ = ["Connection", "ProxyRequest", "Rules", "without_origin"]

_ORIGIN = re.compile(rb"\Ahttps?://[^/?#]*", re.IGNORECASE)


def without_origin(target: bytes) -> bytes:
    """Take `http://host` off a *target*: a server must accept that form too."""
    return _ORIGIN.sub(b"", target)


class Rules(Protocol):
    """What a request has to know of the door."""

    resource: Any
    operations: Any
    """Our own pages, as far as they are shown here."""

    max_body_bytes: int
    is_batched: Callable[[bytes, bytes], bool]

    def opened(self, request: "ProxyRequest") -> None:
        """An answer is owed."""


class Connection(Protocol):
    """What a request needs of the connection that it came on."""

    site: Any
    transport: Any
    persistent: Any
    is_surplus: bool
    waits_since: float | None

    @property
    def command(self) -> bytes:
        """The method."""

    @property
    def target(self) -> bytes:
        """Path and query."""

    @property
    def version(self) -> bytes:
        """The HTTP version."""

    def refuse_head(self) -> None:
        """Answer 400 and hang up."""

    def refuse(self, error: ProxyError) -> None:
        """Answer with *error* and hang up."""

    def forceAbortClient(self) -> None:  # noqa: N802
        """Hang up at once."""


class ProxyRequest(Request):
    """A request that may be processed before its body is complete."""

    channel: Connection  # type: ignore[assignment]
    site: Rules  # type: ignore[assignment]
    content: Any

    # An upstream's answer without a type stays an answer without a type.
    defaultContentType = None

    route: str | None = None
    """The batched route that answers; None where none does."""

    is_relayed = False
    """Whether it was passed on alone."""

    began_at = 0.0
    """When its answer began to be owed, on the clock's scale."""

    trace: Any = None
    """Whoever follows it keeps a thread here."""

    _name: bytes | None = None
    _streams = False
    _is_refused = False
    _is_answered = False
    _received = 0

    def name(self) -> bytes:
        """Say how client and log know the request."""
        if self._name is None:
            self._name = name_of(self)
        return self._name

    def gotLength(self, length: int | None) -> None:
        """Decide how the body is to be read, now that the head is complete."""
        channel = self.channel
        if not channel.target.isascii():
            self._is_refused = True
            channel.refuse_head()
        elif channel.is_surplus:
            self._refuse(TooManyConnections("too many connections: try again later"))
        elif (length or 0) > channel.site.max_body_bytes:
            self._refuse_body()
        elif channel.site.is_batched(channel.command, channel.target):
            self.content = BytesIO()
        else:
            self._streams = True
            channel.waits_since = None
            self.content = BodyStream(length, channel.transport)
            super().requestReceived(channel.command, channel.target, channel.version)
        if self._is_refused or self.startedWriting:
            # What has its answer already is not asked to continue.
            self.requestHeaders.removeHeader(b"Expect")

    def handleContentChunk(self, data: bytes) -> None:
        """Take in a piece of the body, within the limit."""
        if self._is_refused:
            return
        self._received += len(data)
        if self._received <= self.channel.site.max_body_bytes:
            self.content.write(data)
        elif self._streams:
            # Part of it is upstream already, and an answer may be under way.
            self.channel.forceAbortClient()
        else:
            self._refuse_body()

    def requestReceived(self, command: bytes, path: bytes, version: bytes) -> None:
        """Process the request, or note that its body is complete."""
        if self._is_refused:
            return
        self.channel.waits_since = None
        if not self._streams:
            super().requestReceived(command, path, version)
            return
        self.content.complete()
        if self._is_answered:
            super().finish()

    def finish(self) -> None:
        """
        End the answer, but not before the client has sent its request.

        Twisted's channel would take the rest of the body for a new request.
        With the answer out, that rest may not take for ever.
        """
        self._is_answered = True
        if not self._streams or self.content.is_complete:
            super().finish()
        else:
            self.content.stopProducing()
            self.channel.waits_since = self.channel.site.reactor.seconds()

    def end_connection(self) -> None:
        """Let this answer be the last on its connection, and say so in time."""
        if not self.startedWriting:
            self.channel.persistent = False
            self.setHeader(b"Connection", b"close")

    def getRequestHostname(self) -> bytes:  # noqa: N802
        """
        Name a host for Klein, whatever the client calls us.

        No route depends on it, and a `Host` that is no name would be an error.
        """
        return b"abproxy"

    def process(self) -> None:
        """
        Hand the request to the site's resource.

        The path stays as it was sent: `/%65mbed` is not `/embed` to TEI.
        """
        self.site = self.channel.site
        self.uri = without_origin(self.uri)
        self.path = without_origin(self.path)
        self.prepath: list[bytes] = []
        self.postpath = self.path[1:].split(b"/")
        self.site.opened(self)
        self.render(self.site.resource)

    def _refuse_body(self) -> None:
        most = self.channel.site.max_body_bytes
        self._refuse(BodyTooLarge(f"a request may have {most} bytes at most"))

    def _refuse(self, error: ProxyError) -> None:
        self._is_refused = True
        self.channel.refuse(error)
