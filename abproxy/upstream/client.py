"""
One request to the upstream, whoever carries it: one deadline, one whole reply.

The deadline spans the request and its body, because a body can stall as well
as a head.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

from attrs import define, field
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure
from twisted.web.iweb import IResponse

from abproxy.errors import ConnectionBroken, ProxyError
from abproxy.http.failures import as_headers, timed_out, to_proxy_error
from abproxy.http.headers import end_to_end
from abproxy.http.messages import Response, UpstreamRequest
from abproxy.upstream.agent import collect

__all__ = ["HTTPRequester", "TreqUpstream", "Upstream", "reply_of"]


@define(kw_only=True, eq=False)
class Upstream:
    """One inference server."""

    base_url: str
    clock: IReactorTime = field(repr=False)
    timeout_s: float
    max_answer_bytes: int

    forget_idle: Callable[[], object] = field(default=lambda: None, repr=False)
    """
    Called when a connection broke: those that are idle may be dead as well.

    A server that restarts closes all of them at once.  Whoever tries again
    would use up its tries on one after the other.
    """

    def send(self, request: UpstreamRequest) -> Deferred[Response]:
        """
        Carry *request* to the upstream and bring back the whole reply.

        Cancelling closes the connection: TEI then forgets what it has not
        begun to compute.

        Raises:
            UpstreamTimeout: no whole reply within the deadline.
            UpstreamBroken: no connection, or no usable reply.
        """
        exchange = self._exchange(request).addErrback(self._told)
        return exchange.addTimeout(self.timeout_s, self.clock, timed_out)

    def _exchange(self, request: UpstreamRequest) -> Deferred[Response]:
        """Send and receive; cancelled, it fails with that and nothing else."""
        raise NotImplementedError

    def _told(self, failure: Failure) -> Failure:
        if failure.check(CancelledError, ProxyError):
            return failure
        error: Any = failure.value
        told = to_proxy_error(error)
        if isinstance(told, ConnectionBroken):
            self.forget_idle()
        told.__cause__ = error
        return Failure(told)


def _received(response: IResponse) -> Iterator[tuple[bytes, Sequence[bytes]]]:
    """
    List the header lines of *response* without the one that treq adds.

    Looking for something to unpack, it leaves an empty `Content-Encoding`.
    """
    for name, values in response.headers.getAllRawHeaders():
        if values != [b""] or name.lower() != b"content-encoding":
            yield name, values


def reply_of(response: IResponse, body: bytes) -> Response:
    """Make a reply of a *response* as Twisted has read it."""
    return Response(
        status=response.code,
        reason=response.phrase,
        headers=end_to_end(_received(response)),
        body=body,
    )


class HTTPRequester(Protocol):
    """What of a treq client is used; `StubTreq` has it too."""

    def request(
        self, method: str, url: str, *args: Any, **kwargs: Any
    ) -> Deferred[Any]:
        """Send one request; fires with the response when its head is here."""


@define(kw_only=True, eq=False)
class TreqUpstream(Upstream):
    """One inference server, spoken to with treq."""

    http: HTTPRequester = field(repr=False)

    def _exchange(self, request: UpstreamRequest) -> Deferred[Response]:
        return _given_up_at_will(Deferred.fromCoroutine(self._request(request)))

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


def _given_up_at_will(work: Deferred[Response]) -> Deferred[Response]:
    """
    Make a Deferred of the same result that is cancelled and nothing else.

    Twisted takes a host for unknown if it was told to stop looking for it.
    """

    def give_up(ours: Deferred[Response]) -> None:
        ours.errback(CancelledError())
        work.cancel()

    def over(result: Response | Failure) -> None:
        if not ours.called:
            ours.callback(result)

    ours: Deferred[Response] = Deferred(give_up)
    work.addBoth(over)
    return ours
