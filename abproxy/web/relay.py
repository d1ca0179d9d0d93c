"""
Forward a request alone and unchanged, and send its answer back.

Both bodies stream, and the slower side slows the other down.  A body that breaks
off upstream breaks off here as well: a shortened answer must not look complete.
"""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, BinaryIO, cast

from attrs import define, field
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.internet.protocol import Protocol
from twisted.internet.task import deferLater
from twisted.python.failure import Failure
from twisted.web.client import ResponseDone
from twisted.web.http import NO_BODY_CODES, PotentialDataLoss
from twisted.web.http_headers import Headers
from twisted.web.iweb import UNKNOWN_LENGTH, IAgent, IResponse

from abproxy.batching.backoff import FIRST_PAUSE_S, LONGEST_PAUSE_S
from abproxy.dialects.routes import may_be_batched
from abproxy.errors import (
    BadRequest,
    CannotConnect,
    ConnectionBroken,
    HandshakeFailed,
    ProxyError,
)
from abproxy.events import RequestInfo
from abproxy.http.failures import timed_out, to_proxy_error
from abproxy.http.headers import Credentials, as_headers, end_to_end, lead_back
from abproxy.http.messages import HeaderList
from abproxy.web.replies import write_head
from abproxy.web.request import ProxyRequest
from abproxy.web.streaming import BodyStream

__all__ = ["Relay", "Trace"]

Trace = Callable[
    [RequestInfo, HeaderList, str], tuple[HeaderList, Callable[[Any], Any]]
]
"""
Begin a span of a request that is forwarded with these headers to a base URL.

Returns the headers to send instead, and what ends the span.
"""

Bound = Callable[[Deferred[IResponse]], Deferred[IResponse]]

Attempt = Callable[[], Awaitable[IResponse]]

SAFE = frozenset({b"GET", b"HEAD", b"OPTIONS"})
PURE = frozenset(
    {
        *(b"/rerank", b"/v1/rerank", b"/v2/rerank", b"/similarity", b"/vertex"),
        *(b"/score", b"/v1/score", b"/classify", b"/pooling", b"/detokenize"),
        *(b"/api/embed", b"/api/embeddings"),
    }
)
"""Routes that are never batched, and answer the same however often they are asked."""


def is_pure(method: bytes, target: bytes) -> bool:
    """Return whether to ask for *target* twice is no more than to ask once."""
    path = target.partition(b"?")[0]
    path = path.rstrip(b"/") or path
    return method in SAFE or (
        method == b"POST" and (path in PURE or may_be_batched(method, path, None))
    )


@define(kw_only=True, eq=False)
class Relay:
    """Forwards everything that is not batched."""

    clock: IReactorTime = field(repr=False)

    timeout_s: float
    """How long the upstream may take to begin its answer, or fall silent."""

    connect_patience_s: float
    """How long a request waits for an upstream that cannot be reached."""

    agent: IAgent | None = field(default=None, repr=False)
    base_url: str = ""
    close_idle: Callable[[], object] = field(default=lambda: None, repr=False)
    """Closes unused connections: one has broken, and others may be broken, too."""

    trace: Trace | None = field(default=None, repr=False)

    choose: Callable[[Sequence[Any]], Any] | None = field(default=None, repr=False)
    """
    Returns a server of several, which has an agent of its own, and so on.

    It is none of those that it is given, which were tried, or None.
    """

    relayed: int = field(init=False, default=0)
    """Requests that are under way, if there is one server."""

    async def forward(
        self,
        request: ProxyRequest,
        credentials: Credentials,
        bound: Bound = lambda answer: answer,
        *,
        shows_key: bool = True,
    ) -> None:
        """
        Send *request* upstream and write the answer to it.

        Args:
            request: what is forwarded.
            credentials: what is sent of ours and the client's.
            bound: cancels the wait for the answer at the client's deadline.
            shows_key: whether the client has a key; without one it is sent neither
                credentials nor a body.

        Raises:
            BadRequest: the request cannot be sent on as HTTP.
            UpstreamTimeout: no answer begins in time.
            UpstreamBroken: no connection, or it broke before an answer.
        """
        body = _body_of(request) if shows_key else None
        shown = credentials if shows_key else credentials.without_key
        lines = shown.on(end_to_end(request.requestHeaders.getAllRawHeaders()))
        end_span = None
        servers = [self.choose([]) if self.choose else self]
        if servers[0] is None:
            raise CannotConnect("no inference server is known for this model")
        if self.trace is not None:
            lines, end_span = self.trace(request.info, lines, servers[0].base_url)
        try:
            sending = Deferred.fromCoroutine(
                self._send(request, servers, as_headers(lines), body)
            )
            if end_span is not None:
                sending.addBoth(end_span)
            response = await bound(sending)
            try:
                await self._answer(request, response, servers[-1].base_url)
            finally:
                servers[-1].relayed -= 1
        finally:
            if body is not None:
                body.close()

    async def _answer(
        self, request: ProxyRequest, response: IResponse, base_url: str
    ) -> None:
        lines = _with_length(request, response)
        lines = lead_back(lines, base_url, request.prefix)
        write_head(request, response.code, response.phrase, lines)
        request.write(b"")
        downstream = _Downstream(request, self.clock, self.timeout_s)
        response.deliverBody(downstream)
        await downstream.done

    async def _send(
        self,
        request: ProxyRequest,
        servers: list[Any],
        headers: Headers,
        body: BodyStream | None,
    ) -> IResponse:
        """Send to the last of *servers*, and then to others that are added there."""
        if not request.uri.startswith(b"/"):
            raise BadRequest("the request target must be a path")

        def attempt() -> Awaitable[IResponse]:
            return self._try(request, servers[-1], headers, body)

        if not is_pure(request.method, request.uri):
            return await self._retry_connecting(attempt, servers)
        if body is not None:
            body.keep()
        try:
            response = await self._retry_connecting(attempt, servers)
        except ConnectionBroken as error:
            # Not in this turn: Twisted tells us first, and then stops the body.
            await deferLater(self.clock, 0)
            if body is not None and not body.rewind():
                raise
            servers[-1].close_idle()
            self._turn_to_another(servers, error)
            response = await self._retry_connecting(attempt, servers)
        if body is not None:
            body.forget()
        return response

    async def _retry_connecting(
        self, attempt: Attempt, servers: list[Any]
    ) -> IResponse:
        """
        Retry as long as no server can be reached, with another if there is one.

        Nothing was sent then: the body is still all here, or to come.
        """
        until = self.clock.seconds() + self.connect_patience_s
        pause_s = FIRST_PAUSE_S
        while True:
            try:
                return await attempt()
            except (CannotConnect, HandshakeFailed) as error:
                if self._turn_to_another(servers, error):
                    continue
                left_s = until - self.clock.seconds()
                if left_s <= 0 or isinstance(error, HandshakeFailed):
                    raise
            await deferLater(self.clock, min(pause_s, left_s))
            pause_s = min(pause_s * 2, LONGEST_PAUSE_S)
            if self.choose is not None:
                servers.append(self.choose([]) or servers[-1])

    def _turn_to_another(self, servers: list[Any], error: ProxyError) -> bool:
        """Add another server to *servers* as the last one failed, if there is one."""
        if self.choose is None:
            return False
        servers[-1].note_failure(error)
        other = self.choose(servers)
        if other is not None:
            servers.append(other)
        return other is not None

    async def _try(
        self,
        request: ProxyRequest,
        server: Any,
        headers: Headers,
        body: BodyStream | None,
    ) -> IResponse:
        url = server.base_url.encode() + request.uri
        server.relayed += 1
        try:
            head = server.agent.request(request.method, url, headers, body)
            head.addTimeout(self.timeout_s, self.clock, timed_out)
            response: IResponse = await head
        except Exception as error:
            server.relayed -= 1
            if request.channel is None:
                # The failure came first, or in the place of the cancellation.
                raise CancelledError from None
            if isinstance(error, (CancelledError, ProxyError)):
                raise
            if isinstance(error, ValueError):
                message = f"the request cannot be sent on: {error}"
                raise BadRequest(message) from error
            raise to_proxy_error(error) from error
        return response


def _body_of(request: ProxyRequest) -> BodyStream | None:
    headers = request.requestHeaders
    if not headers.hasHeader(b"Content-Length") and not headers.hasHeader(
        b"Transfer-Encoding"
    ):
        return None
    if isinstance(request.content, BodyStream):
        return request.content
    content = cast("BinaryIO", request.content)
    content.seek(0)
    return BodyStream.of(content.read())


def _with_length(request: ProxyRequest, response: IResponse) -> HeaderList:
    lines = end_to_end(response.headers.getAllRawHeaders())
    lengths: list[bytes] = []
    if request.method == b"HEAD":
        lengths = response.headers.getRawHeaders(b"Content-Length", [])
    elif response.length != UNKNOWN_LENGTH and response.code not in NO_BODY_CODES:
        lengths = [b"%d" % response.length]
    return (*lines, *((b"Content-Length", length) for length in lengths[:1]))


@define(eq=False)
class _Downstream(Protocol):
    """Write what the upstream sends to the client, as it comes."""

    _request: ProxyRequest
    _clock: IReactorTime
    _silence_s: float
    done: Deferred[None] = field(init=False)
    _timer: IDelayedCall = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.done = Deferred(lambda _: self._stop())
        self._timer = self._clock.callLater(self._silence_s, self._stop)

    def connectionMade(self) -> None:
        if self._request.channel is not None:
            self._request.registerProducer(self.transport, streaming=True)

    def dataReceived(self, data: bytes) -> None:
        self._timer.reset(self._silence_s)
        self._request.write(data)

    def connectionLost(self, reason: Failure | None = None) -> None:
        if self._timer.active():
            self._timer.cancel()
        client = self._request.channel
        if client is not None:
            self._request.unregisterProducer()
            if reason is not None and not reason.check(ResponseDone, PotentialDataLoss):
                client.forceAbortClient()
        if not self.done.called:
            self.done.callback(None)

    def _stop(self) -> None:
        transport: Any = self.transport
        if transport is not None:
            transport.loseConnection()
