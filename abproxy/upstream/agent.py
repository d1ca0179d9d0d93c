"""
The upstream through Twisted's agent: its connections, and whole responses.

Paths are sent as they are given, and a body that cannot be unpacked is an error.
"""

from collections.abc import Iterator, Sequence
from typing import Any

from attrs import define, field
from twisted.internet.defer import Deferred
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

from abproxy.errors import UpstreamBroken
from abproxy.http.headers import end_to_end
from abproxy.http.messages import Response
from abproxy.upstream.endpoints import EndpointFactory, uri_of, without_zone

__all__ = [
    "ExactPathAgent",
    "collect",
    "make_agent",
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


class _Unpacking(_GzipProtocol):
    """
    Unpacks a body, and fails if it cannot.

    Twisted raises where nothing catches it: the body looks like an empty one.
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
