"""
Requests to the upstream with treq, where they are not sent by our own client.

treq would keep cookies, ask for compression, and write some URLs in another way;
here it does neither.
"""

from http.cookiejar import DefaultCookiePolicy

from attrs import define, field, frozen
from hyperlink import EncodedURL
from msgspec.structs import force_setattr
from treq.client import HTTPClient
from treq.cookies import IndexableCookieJar
from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure
from twisted.web.http_headers import Headers
from twisted.web.iweb import IAgent, IBodyProducer, IResponse
from zope.interface import implementer

from abproxy.http.headers import as_headers
from abproxy.http.messages import Response, UpstreamRequest
from abproxy.upstream.agent import collect, reply_of, unpacking
from abproxy.upstream.identity import Generations

__all__ = ["TreqClient", "make_treq"]


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
    Return a treq client.

    Its cookie jar accepts nothing: a jar shared by all clients would hand the
    session of one to the next.
    """
    jar = IndexableCookieJar(DefaultCookiePolicy(allowed_domains=[]))
    return HTTPClient(unpacking(_NoGzipAgent(agent)), cookiejar=jar)


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
