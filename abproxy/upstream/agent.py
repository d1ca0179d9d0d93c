"""
The upstream through Twisted's agent: its connections, and requests with treq.

Nothing is added to a request on its way and nothing is unpacked in a response:
no cookies of one client for the next, no compression that was not asked for.
"""

from collections.abc import Iterator, Sequence
from http.cookiejar import DefaultCookiePolicy
from typing import Any

from attrs import define, field, frozen
from hyperlink import EncodedURL
from msgspec.structs import force_setattr
from treq.client import HTTPClient
from treq.cookies import IndexableCookieJar
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import ITransport
from twisted.internet.protocol import Protocol
from twisted.python.failure import Failure
from twisted.web._newclient import _ensureValidURI
from twisted.web.client import (
    Agent,
    ContentDecoderAgent,
    GzipDecoder,
    HTTPConnectionPool,
    ResponseDone,
    ResponseFailed,
    _GzipProtocol,
)
from twisted.web.http import PotentialDataLoss
from twisted.web.http_headers import Headers
from twisted.web.iweb import UNKNOWN_LENGTH, IAgent, IBodyProducer, IResponse
from zope.interface import implementer

from abproxy.errors import UpstreamBroken
from abproxy.http.headers import as_headers, end_to_end
from abproxy.http.messages import Response, UpstreamRequest
from abproxy.upstream.endpoints import EndpointFactory, uri_of, without_zone
from abproxy.upstream.identity import Generations

__all__ = [
    "ExactPathAgent",
    "TreqClient",
    "collect",
    "make_agent",
    "make_treq",
    "reply_of",
    "target_of",
    "too_long",
    "unpacking",
]


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
        parts = uri_of(uri)
        return self._requestWithEndpoint(
            (parts.scheme, parts.host, parts.port),
            self._getEndpoint(parts),
            method,
            parts,
            headers,
            bodyProducer,
            target,
        )

    def _computeHostValue(self, scheme: bytes, host: bytes, port: int) -> bytes:  # noqa: N802
        value: bytes = super()._computeHostValue(scheme, without_zone(host), port)
        return value


class _ExactURL(EncodedURL):
    """
    A URL that treq takes as it is given.

    It would write some in another way, and refuse names of hosts that may not be
    registered.
    """

    text: str

    def to_uri(self) -> "_ExactURL":
        return self

    def to_text(self, with_password: bool = False) -> str:  # noqa: ARG002, FBT001, FBT002
        return self.text


def _exact(url: str) -> _ExactURL:
    exact = _ExactURL()
    exact.text = url
    return exact


def target_of(uri: bytes) -> bytes:
    """Return what stands in the request line for *uri*."""
    _, _, rest = uri.partition(b"://")
    return b"/" + rest.partition(b"/")[2].partition(b"#")[0]


def make_agent(pool: HTTPConnectionPool, endpoints: EndpointFactory) -> Agent:
    """Return the agent that opens connections to the upstream."""
    agent: Agent = ExactPathAgent.usingEndpointFactory(
        endpoints.reactor, endpoints, pool
    )
    return agent


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


class _Unpacking(_GzipProtocol):
    """
    Unpacks a body, and fails if it cannot.

    Twisted raises where nothing hears of it: the body looks like an empty one.
    """

    _has_begun = False

    def dataReceived(self, data: bytes) -> None:
        """Unpack a piece."""
        self._has_begun = True
        try:
            super().dataReceived(data)
        except ResponseFailed as error:
            self.original.connectionLost(Failure(error))

    def connectionLost(self, reason: Failure) -> None:
        """End, unless the end of what was packed is missing."""
        if self._has_begun and not self._zlibDecompress.eof:
            reason = Failure(ResponseFailed([Failure(EOFError("packed, and cut off"))]))
        super().connectionLost(reason)


class _Gzip(GzipDecoder):
    """A response that is unpacked so."""

    def deliverBody(self, protocol: Any) -> None:  # noqa: N802
        """Unpack the body for *protocol*."""
        self.original.deliverBody(_Unpacking(protocol, self.original))


def unpacking(agent: IAgent) -> IAgent:
    """Return an agent that unpacks what it was not asked to leave packed."""
    return ContentDecoderAgent(agent, [(b"gzip", _Gzip)])


def make_treq(agent: IAgent) -> HTTPClient:
    """
    Return a treq client.

    Its cookie jar accepts nothing: a jar shared by all clients would hand the
    session of one to the next.
    """
    jar = IndexableCookieJar(DefaultCookiePolicy(allowed_domains=[]))
    return HTTPClient(unpacking(_NoGzipAgent(agent)), cookiejar=jar)


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
            self.refuse()

    def refuse(self) -> None:
        """Fail, and wait for no more."""
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
        UpstreamBroken: the body is over *max_bytes*, or is going to be.
    """
    body = _Body(max_bytes)
    response.deliverBody(body)
    announced = response.length
    if announced != UNKNOWN_LENGTH and announced > max_bytes and not body.done.called:
        body.refuse()
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
    generations: Generations = field(factory=Generations, repr=False)
    """Of the server."""

    def send(self, request: UpstreamRequest) -> Deferred[Response]:
        """
        Send *request* and receive the whole response.

        Cancelled, it fails with that and nothing else.
        """
        return _with_plain_cancel(Deferred.fromCoroutine(self._request(request)))

    async def _request(self, request: UpstreamRequest) -> Response:
        source = self.generations.source
        response = await self.http.request(
            request.method.decode("ascii"),
            _exact(self.base_url + request.path.decode("ascii")),
            headers=as_headers(request.headers),
            data=request.body or None,
            allow_redirects=False,
            unbuffered=True,
        )
        body = await collect(response.original, self.max_answer_bytes)
        answer = reply_of(response, body)
        force_setattr(answer, "source", self.generations.of_answer(source))
        return answer


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
