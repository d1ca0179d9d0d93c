"""
The upstream through Twisted's agent: its connections, and requests with treq.

Nothing is added to a request on its way and nothing is unpacked in a response:
no cookies of one client for the next, no compression that was not asked for.
"""

from collections.abc import Iterator, Sequence
from http.cookiejar import DefaultCookiePolicy
from typing import Any

from attrs import define, field, frozen
from treq.client import HTTPClient
from treq.cookies import IndexableCookieJar
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import ITransport
from twisted.internet.protocol import Protocol
from twisted.python.failure import Failure
from twisted.web._newclient import HTTP11ClientProtocol, _ensureValidURI
from twisted.web.client import (
    URI,
    Agent,
    HTTPConnectionPool,
    ResponseDone,
    _HTTP11ClientFactory,
)
from twisted.web.http import PotentialDataLoss
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IBodyProducer, IResponse
from zope.interface import implementer

from abproxy.errors import UpstreamBroken
from abproxy.http.headers import as_headers, end_to_end
from abproxy.http.messages import Response, UpstreamRequest

__all__ = [
    "IDLE_S",
    "ExactPathAgent",
    "TreqClient",
    "collect",
    "make_agent",
    "make_pool",
    "make_treq",
    "reply_of",
    "target_of",
    "too_long",
    "without_named",
]

IDLE_S = 15
"""
How long an unused connection is kept, in seconds.

Short of the idle timeout of common servers and balancers (uvicorn's 5 s
aside), so that a request seldom meets a connection that is just closing.
"""


class _Connection(HTTP11ClientProtocol):
    """
    A connection that takes off a response what is about the connection alone.

    Twisted takes off `Connection`, but not the lines that it names, and later on
    nothing tells which these are (RFC 9110, section 7.6.1).
    """

    def request(self, request: Any) -> Deferred[IResponse]:
        """Send *request*; fires with the response when its head is here."""
        response: Deferred[IResponse] = super().request(request)
        return response.addCallback(without_named, self._parser)


def without_named(response: IResponse, parser: Any) -> IResponse:
    """Remove from *response* the lines that its `Connection` names."""
    lines = parser.connHeaders.getRawHeaders(b"Connection", [])
    named = {token.strip().lower() for line in lines for token in line.split(b",")}
    for name, _ in list(response.headers.getAllRawHeaders()):
        if name.lower() in named:
            response.headers.removeHeader(name)
    return response


class _Connections(_HTTP11ClientFactory):
    """Makes connections, of which the log says nothing."""

    noisy = False

    def buildProtocol(self, addr: Any) -> _Connection:  # noqa: ARG002, N802
        """Make one."""
        return _Connection(self._quiescentCallback)


class _Pool(HTTPConnectionPool):
    """A pool of such connections."""

    _factory = _Connections


def make_pool(reactor: Any, max_connections: int) -> HTTPConnectionPool:
    """
    Make the pool that keeps connections open between batches.

    A pool never queues and keeps two connections by default; ours keeps as
    many as can be busy at once.
    """
    pool = _Pool(reactor)
    pool.maxPersistentPerHost = max_connections
    pool.cachedConnectionTimeout = IDLE_S
    # A request without a body Twisted sends again if its connection was just
    # closing; batches are sent again by us, knowingly.
    pool.retryAutomatically = True
    return pool


class ExactPathAgent(Agent):
    """
    An agent that sends the path as it is given.

    Twisted takes it apart and puts it together with `urlunparse`, which makes
    `/a` of `/a;` and of `/a?`, and since Python 3.12.4 four slashes of two at
    its beginning.
    """

    def request(
        self,
        method: bytes,
        uri: bytes,
        headers: Headers | None = None,
        bodyProducer: IBodyProducer | None = None,
    ) -> Deferred[IResponse]:
        """Send a request; fires with the response when its head is here."""
        # Before there is a connection: nothing would close it.
        target = _ensureValidURI(target_of(uri))
        parts = URI.fromBytes(uri)
        return self._requestWithEndpoint(
            (parts.scheme, parts.host, parts.port),
            self._getEndpoint(parts),
            method,
            parts,
            headers,
            bodyProducer,
            target,
        )


def target_of(uri: bytes) -> bytes:
    """Return what stands in the request line for *uri*."""
    _, _, rest = uri.partition(b"://")
    return b"/" + rest.partition(b"/")[2].partition(b"#")[0]


def make_agent(
    reactor: Any, pool: HTTPConnectionPool, connect_timeout_s: float
) -> Agent:
    """Make the agent that opens connections to the upstream."""
    return ExactPathAgent(reactor, pool=pool, connectTimeout=connect_timeout_s)


@implementer(IAgent)
@frozen
class _NoGzipAgent:
    """
    Undo what treq adds to every request: `Accept-Encoding: gzip`.

    treq would unpack the response, and its bytes would not be the upstream's.
    """

    agent: IAgent

    def request(
        self,
        method: bytes,
        uri: bytes,
        headers: Headers | None = None,
        bodyProducer: IBodyProducer | None = None,
    ) -> Deferred[IResponse]:
        """Send the request without the header."""
        plain = headers.copy() if headers is not None else Headers()
        plain.removeHeader(b"Accept-Encoding")
        return self.agent.request(method, uri, plain, bodyProducer)


def make_treq(agent: IAgent) -> HTTPClient:
    """
    Make a treq client.

    Its cookie jar accepts nothing: a jar shared by all clients would hand the
    session of one to the next.
    """
    jar = IndexableCookieJar(DefaultCookiePolicy(allowed_domains=[]))
    return HTTPClient(_NoGzipAgent(agent), cookiejar=jar)


_DONE = Failure(ResponseDone())


@define(eq=False)
class _Body(Protocol):
    max_bytes: int
    chunks: list[bytes] = field(init=False, factory=list)
    size: int = field(init=False, default=0)
    done: Deferred[bytes] = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.done = Deferred(self._stop)

    def dataReceived(self, data: bytes) -> None:
        self.size += len(data)
        if self.size <= self.max_bytes:
            self.chunks.append(data)
        elif not self.done.called:
            self._stop(self.done)
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

    def _stop(self, _done: Deferred[bytes]) -> None:
        self.chunks.clear()
        transport: ITransport | None = self.transport
        if transport is not None:
            transport.loseConnection()


def too_long(max_bytes: int) -> UpstreamBroken:
    """Return the error for a response over *max_bytes*."""
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


def _received(response: IResponse) -> Iterator[tuple[bytes, Sequence[bytes]]]:
    """
    Yield the header lines of *response*, but not the one that treq adds.

    Looking for something to unpack, it leaves an empty `Content-Encoding`.
    """
    for name, values in response.headers.getAllRawHeaders():
        if values != [b""] or name.lower() != b"content-encoding":
            yield name, values


def reply_of(response: IResponse, body: bytes) -> Response:
    """Return a *response* as Twisted has read it, with its *body*."""
    return Response(
        status=response.code,
        reason=response.phrase,
        headers=end_to_end(_received(response)),
        body=body,
    )


@define(kw_only=True, eq=False)
class TreqClient:
    """Sends requests with treq."""

    http: HTTPClient = field(repr=False)
    base_url: str
    max_answer_bytes: int

    def send(self, request: UpstreamRequest) -> Deferred[Response]:
        """
        Send *request* and receive the whole response.

        Cancelled, it fails with that and nothing else.
        """
        return _with_plain_cancel(Deferred.fromCoroutine(self._request(request)))

    async def _request(self, request: UpstreamRequest) -> Response:
        response = await self.http.request(
            request.method.decode("ascii"),
            self.base_url + request.path.decode("ascii"),
            headers=as_headers(request.headers),
            data=request.body or None,
            allow_redirects=False,
            unbuffered=True,
        )
        body = await collect(response.original, self.max_answer_bytes)
        return reply_of(response, body)


def _with_plain_cancel(work: Deferred[Response]) -> Deferred[Response]:
    """
    Return a Deferred of the same result that fails with nothing else if cancelled.

    Twisted takes a host for unknown if it was told to stop looking for it.
    """

    def cancel(ours: Deferred[Response]) -> None:
        ours.errback(CancelledError())
        work.cancel()

    def over(result: Response | Failure) -> None:
        if not ours.called:
            ours.callback(result)

    ours: Deferred[Response] = Deferred(cancel)
    work.addBoth(over)
    return ours
