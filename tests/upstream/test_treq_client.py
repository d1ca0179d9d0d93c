"""The upstream through treq: one request, one deadline, one whole reply."""

from typing import Any

import pytest
from attrs import define, field
from treq.testing import StubTreq
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectionLost, DNSLookupError
from twisted.internet.error import ConnectionRefusedError as Refused
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.web.client import ResponseDone, ResponseFailed, ResponseNeverReceived
from twisted.web.http import PotentialDataLoss
from twisted.web.http_headers import Headers
from twisted.web.iweb import UNKNOWN_LENGTH, IAgent
from zope.interface import implementer

from abproxy.errors import (
    CannotConnect,
    ConnectionBroken,
    UpstreamBroken,
    UpstreamTimeout,
)
from abproxy.http.messages import Response, UpstreamRequest
from abproxy.upstream.client import Upstream
from abproxy.upstream.treq_client import TreqClient, make_treq
from support.upstream import HeldUpstream as Server
from support.upstream import make_upstream


@define(eq=False)
class Transport:
    """The upstream connection, as far as a body needs it."""

    is_open: bool = True

    def loseConnection(self) -> None:  # noqa: N802
        self.is_open = False


@define(eq=False)
class Served:
    """A response whose body the test delivers."""

    code: int = 200
    phrase: bytes = b"OK"
    length: object = UNKNOWN_LENGTH
    headers: Headers = field(factory=Headers)
    transport: Transport = field(factory=Transport)
    body: Any = None

    @property
    def original(self) -> "Served":
        return self

    def deliverBody(self, body: Any) -> None:  # noqa: N802
        self.body = body
        body.makeConnection(self.transport)

    def end(self, reason: Exception) -> None:
        self.body.connectionLost(Failure(reason))


@define(eq=False)
class FakeTreq:
    """Keeps the Deferred of each request."""

    asked: list[Deferred[Any]] = field(factory=list)

    def request(self, *_: Any, **__: Any) -> Deferred[Any]:
        self.asked.append(Deferred())
        return self.asked[-1]


@define(eq=False)
class Outcome:
    """What became of one request."""

    reply: Deferred[Response]
    results: list[Any] = field(factory=list)

    def __attrs_post_init__(self) -> None:
        self.reply.addBoth(self.results.append)

    @property
    def error(self) -> Any:
        [failure] = self.results
        assert isinstance(failure, Failure)
        return failure.value


def upstream(http: Any, clock: Clock | None = None, size: int = 100) -> Upstream:
    """Make an upstream with a deadline of 7 seconds."""
    client = TreqClient(http=http, base_url="http://upstream", max_answer_bytes=size)
    return make_upstream(client.send, clock)


def question(
    *headers: tuple[bytes, bytes], path: bytes = b"/embed?x=1"
) -> UpstreamRequest:
    """Make a request."""
    return UpstreamRequest(path=path, headers=headers, body=b"{}")


def stalled(clock: Clock | None = None, size: int = 100) -> tuple[Served, Outcome]:
    """Make an exchange of which the head has come and the body has not."""
    http, response = FakeTreq(), Served()
    outcome = Outcome(upstream(http, clock, size).send(question()))
    http.asked[0].callback(response)
    return response, outcome


def test_request_and_reply_are_passed_as_they_are() -> None:
    """Method, path, query, headers and body; status, reason, headers and body."""
    server = Server()
    stub = StubTreq(server)
    outcome = Outcome(upstream(stub).send(question((b"X-A", b"1"), (b"X-A", b"2"))))

    [request] = server.requests
    request.setResponseCode(418, b"I am a teapot")
    request.responseHeaders.addRawHeader(b"Set-Cookie", b"a=1")
    request.responseHeaders.addRawHeader(b"Set-Cookie", b"b=2")
    request.write(b"short and")
    request.write(b" stout")
    request.finish()
    stub.flush()

    assert (request.method, request.uri) == (b"POST", b"/embed?x=1")
    assert request.requestHeaders.getRawHeaders("X-A") == ["1", "2"]
    assert server.bodies == [b"{}"]
    [reply] = outcome.results
    assert (reply.status, reply.reason) == (418, b"I am a teapot")
    assert [line for line in reply.headers if line[0] == b"Set-Cookie"] == [
        (b"Set-Cookie", b"a=1"),
        (b"Set-Cookie", b"b=2"),
    ]
    assert reply.body == b"short and stout"


def test_a_redirect_is_an_answer() -> None:
    """Where it leads is the client's business."""
    server = Server()
    stub = StubTreq(server)
    outcome = Outcome(upstream(stub).send(question()))

    server.requests[0].redirect(b"/elsewhere")
    server.requests[0].finish()
    stub.flush()

    assert outcome.results[0].status == 302
    assert len(server.requests) == 1


def test_the_header_that_treq_leaves_empty_is_taken_off() -> None:
    """The upstream has sent no `Content-Encoding`."""
    response, outcome = stalled()
    response.headers.addRawHeader(b"Content-Encoding", b"")
    response.headers.addRawHeader(b"X-Empty", b"")

    response.end(ResponseDone())

    assert outcome.results[0].headers == ((b"X-Empty", b""),)


def test_headers_about_the_connection_stay_behind() -> None:
    """All others are passed on."""
    response, outcome = stalled()
    response.headers.addRawHeader(b"Keep-Alive", b"timeout=5")
    response.headers.addRawHeader(b"Content-Encoding", b"br")

    response.end(ResponseDone())

    assert outcome.results[0].headers == ((b"Content-Encoding", b"br"),)


def test_the_deadline_spans_the_head() -> None:
    """A server that says nothing is given up."""
    clock, http = Clock(), FakeTreq()
    outcome = Outcome(upstream(http, clock).send(question()))
    cancelled: list[Any] = []
    http.asked[0].addErrback(cancelled.append)

    clock.advance(7)

    assert isinstance(outcome.error, UpstreamTimeout)
    assert "within 7 seconds" in str(outcome.error)


def test_the_deadline_spans_the_body() -> None:
    """A body that stalls is given up as well, and its connection closed."""
    clock = Clock()
    response, outcome = stalled(clock)
    clock.advance(6)
    response.body.dataReceived(b"[[1")

    clock.advance(1)

    assert isinstance(outcome.error, UpstreamTimeout)
    assert not response.transport.is_open


def test_an_answer_leaves_no_timer() -> None:
    """A deadline that was met is forgotten."""
    clock = Clock()
    response, outcome = stalled(clock)

    response.end(ResponseDone())

    assert outcome.results[0].body == b""
    assert not clock.getDelayedCalls()


def test_cancelling_closes_the_connection_during_the_body() -> None:
    """TEI forgets what it has not begun to compute."""
    response, outcome = stalled()

    outcome.reply.cancel()
    response.body.dataReceived(b"late")
    response.end(ConnectionLost())

    assert isinstance(outcome.error, CancelledError)
    assert not response.transport.is_open


def test_a_request_cancelled_before_its_head_is_cancelled() -> None:
    """Twisted says that no response was received; the upstream is not to blame."""
    http = FakeTreq()
    outcome = Outcome(upstream(http).send(question()))

    http.asked[0].errback(ResponseNeverReceived([Failure(CancelledError())]))

    assert isinstance(outcome.error, CancelledError)


def test_an_answer_over_the_limit_is_refused() -> None:
    """Nobody can make this process hold more than it was told to."""
    response, outcome = stalled(size=10)

    response.body.dataReceived(b"x" * 11)
    response.body.dataReceived(b"x" * 11)
    response.end(ConnectionLost())

    assert type(outcome.error) is UpstreamBroken
    assert str(outcome.error) == "the inference server's answer is over 10 bytes"
    assert not response.transport.is_open


def test_an_answer_of_just_the_limit_is_taken() -> None:
    """The limit itself is allowed."""
    response, outcome = stalled(size=10)

    response.body.dataReceived(b"x" * 10)
    response.end(ResponseDone())

    assert outcome.results[0].body == b"x" * 10


def test_a_body_may_end_with_its_connection() -> None:
    """Without a length and not in chunks, there is no other end."""
    response, outcome = stalled()

    response.body.dataReceived(b"all")
    response.end(PotentialDataLoss())

    assert outcome.results[0].body == b"all"


@pytest.mark.parametrize(
    "error",
    [
        ConnectionLost(),
        ResponseFailed([Failure(ConnectionLost())]),
        ResponseFailed([Failure(ResponseNeverReceived([Failure(ConnectionLost())]))]),
    ],
)
def test_a_cut_body_is_a_broken_connection(error: Exception) -> None:
    """Half an answer is none, and the reason is said in words."""
    response, outcome = stalled()
    response.body.dataReceived(b"[[1],")

    response.end(error)

    assert type(outcome.error) is ConnectionBroken
    assert "Connection to the other side was lost" in str(outcome.error)


@pytest.mark.parametrize(
    "error", [Refused("no"), DNSLookupError("no"), ResponseFailed([Failure(Refused())])]
)
def test_no_connection_is_said_so(error: Exception) -> None:
    """Nothing was sent, so anything may be tried again."""
    http = FakeTreq()
    outcome = Outcome(upstream(http).send(question()))

    http.asked[0].errback(error)

    assert type(outcome.error) is CannotConnect
    assert str(outcome.error).startswith("cannot reach the inference server: ")


def test_an_error_without_words_is_named() -> None:
    """Better than an empty message."""
    http = FakeTreq()
    outcome = Outcome(upstream(http).send(question()))

    http.asked[0].errback(RuntimeError())

    assert str(outcome.error).endswith("broke: RuntimeError()")


@implementer(IAgent)
@define(eq=False)
class SilentAgent:
    """Keeps the headers that it is asked to send, and sends nothing."""

    headers: list[Headers] = field(factory=list)

    def request(
        self, method: bytes, uri: bytes, headers: Any = None, bodyProducer: Any = None
    ) -> Deferred[Any]:
        del method, uri, bodyProducer
        self.headers.append(headers)
        return Deferred()


def test_no_compression_is_asked_for() -> None:
    """By treq it would be, and unpacked: not the upstream's bytes any more."""
    agent = SilentAgent()
    sent = upstream(make_treq(agent)).send(question((b"Accept-Encoding", b"gzip")))

    assert not agent.headers[0].hasHeader(b"Accept-Encoding")
    sent.cancel()
    sent.addErrback(lambda _: None)


@pytest.mark.parametrize("say", [repr, str])
def test_a_request_does_not_tell_its_secrets(say: Any) -> None:
    """It may end up in a log or a traceback."""
    request = question((b"Authorization", b"Bearer secret"))

    assert "secret" not in say(request)
    assert "secret" not in say(upstream(FakeTreq()))
