"""What is forwarded alone and unchanged, and what comes back."""

import json
import re
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_twisted
from attrs import define, field
from twisted.internet.defer import fail
from twisted.internet.error import ConnectionRefusedError as Refused
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request

from abproxy.web.streaming import MAX_KEPT
from support.client import turn
from support.proxy import StartedProxy, in_memory_proxy, proxy_before_byte_server
from support.upstream import ByteServer, Peer, answering

GET = b"GET /docs HTTP/1.1\r\nHost: door\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\n"


@define(eq=False, slots=False)
class Upstream(Resource):
    """Keeps its requests until the test answers them."""

    isLeaf = True
    requests: list[Request] = field(factory=list)

    def __attrs_post_init__(self) -> None:
        super().__init__()

    def render(self, request: Request) -> int:
        self.requests.append(request)
        return NOT_DONE_YET


@define(eq=False, slots=False)
class Answering(Resource):
    """Answers at once, with a status and header lines."""

    isLeaf = True
    status: int = 200
    lines: tuple[tuple[bytes, bytes], ...] = ()
    body: bytes = b""

    def __attrs_post_init__(self) -> None:
        super().__init__()

    def render(self, request: Request) -> bytes:
        request.setResponseCode(self.status)
        for name, value in self.lines:
            request.responseHeaders.addRawHeader(name, value)
        return self.body


@pytest_twisted.async_yield_fixture
async def real() -> AsyncIterator[StartedProxy]:
    """Start a proxy on a free port of this machine."""
    async with proxy_before_byte_server() as started:
        yield started


@pytest.mark.parametrize("name", ["Set-Cookie", "X-Many"])
def test_each_of_many_lines_comes_back(name: str) -> None:
    """Also those that cannot be joined."""
    lines = ((name.encode(), b"a=1"), (name.encode(), b"b=2"))

    answer = in_memory_proxy(Answering(lines=lines)).ask("GET", "/docs")

    assert [value for key, value in answer.headers if key == name] == ["a=1", "b=2"]


def test_lines_about_the_connection_are_taken_off_a_request() -> None:
    """And those that the client names as such."""
    upstream = Upstream()
    client = in_memory_proxy(upstream).connect()

    client.ask(
        "GET",
        "/docs",
        b"",
        ("Connection", "x-hop, keep-alive"),
        ("X-Hop", "1"),
        ("Keep-Alive", "timeout=5"),
        ("TE", "trailers"),
        ("Upgrade", "h2c"),
        ("X-End", "1"),
    )

    sent = {name for name, _ in upstream.requests[0].requestHeaders.getAllRawHeaders()}
    assert sent == {b"Host", b"X-End", b"Connection"}
    assert upstream.requests[0].getHeader("Host") == "upstream"
    client.leave()


def test_lines_about_the_connection_are_taken_off_an_answer() -> None:
    """They were about the connection to the upstream."""
    lines = ((b"Keep-Alive", b"max=1"), (b"Upgrade", b"h2c"), (b"Trailer", b"X-T"))

    answer = in_memory_proxy(Answering(lines=lines)).ask("GET", "/docs")

    assert {name for name, _ in answer.headers} == {"Server", "Date", "Content-Length"}


def test_the_length_in_an_answer_to_head_is_that_of_the_body_elsewhere() -> None:
    """There is no body to count."""
    upstream = Answering(lines=((b"Content-Length", b"1234"),))

    answer = in_memory_proxy(upstream).ask("HEAD", "/docs")

    assert answer.header("Content-Length") == "1234"
    assert answer.body == b""


@pytest.mark.parametrize("status", [204, 304])
def test_an_answer_that_has_no_body_has_no_length(status: int) -> None:
    """A length of 0 would be about a body that there is."""
    proxy = in_memory_proxy(Answering(status=status))
    client = proxy.connect()

    client.send(GET)
    proxy.flush()
    client.send(GET)
    proxy.flush()

    first, second = client.answers()
    assert first.status == second.status == status
    assert first.header("Content-Length") is None
    assert first.header("Transfer-Encoding") is None
    client.leave()


@pytest.mark.parametrize(
    "method", ["PUT", "PATCH", "DELETE", "OPTIONS", "post", "PURGE"]
)
def test_any_method_is_passed_on(method: str) -> None:
    """As it is spelled, on a batched route as well."""
    upstream = Upstream()
    proxy = in_memory_proxy(upstream)
    client = proxy.connect()

    client.ask(method, "/embed", b"x")
    proxy.flush()

    assert upstream.requests[0].method == method.encode()
    client.leave()


@pytest.mark.parametrize("method", ["TRACE", "trace"])
@pytest.mark.parametrize("path", ["/", "/docs", "/embed"])
def test_a_trace_is_not_passed_on(method: str, path: str) -> None:
    """A server that answers it would show which key we show."""
    upstream = Upstream()

    answer = in_memory_proxy(upstream, upstream_key="ours").ask(method, path)

    assert upstream.requests == []
    assert answer.status == 405
    assert answer.header("Allow") == "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS"
    assert answer.json["error_type"] == "Validation"


def test_a_trace_of_an_openai_route_is_refused_in_its_words() -> None:
    """As every error of ours."""
    answer = in_memory_proxy(Upstream()).ask("TRACE", "/v1/embeddings")

    assert answer.json["code"] == 405


def test_a_trace_without_a_key_is_unauthorized() -> None:
    """What would be refused is not to be found out without a key."""
    answer = in_memory_proxy(Upstream(), api_keys=("one",)).ask("TRACE", "/embed")

    assert answer.status == 401


def test_an_upstream_that_falls_silent_is_given_up() -> None:
    """An answer that stops in the middle must not look complete."""
    upstream = Upstream()
    proxy = in_memory_proxy(upstream, upstream_timeout_s=7)
    client = proxy.connect()
    client.send(GET)
    upstream.requests[0].write(b"half")
    proxy.flush()
    proxy.clock.advance(6)
    upstream.requests[0].write(b" and half")
    proxy.flush()
    proxy.clock.advance(6)
    before = client.transport.connected

    proxy.clock.advance(1)
    proxy.flush()

    assert before
    assert not client.transport.connected
    assert client.transport.value().endswith(b"4\r\nhalf\r\n9\r\n and half\r\n")
    assert not proxy.clock.getDelayedCalls()


def test_an_answer_that_is_over_leaves_no_timer() -> None:
    """Nothing waits for more of it."""
    proxy = in_memory_proxy(Answering(body=b"done"))

    proxy.ask("GET", "/docs")

    assert not proxy.clock.getDelayedCalls()


def test_a_client_that_does_not_read_is_not_read_from() -> None:
    """It could make this process hold answers without end."""
    upstream = Upstream()
    proxy = in_memory_proxy(upstream)
    client = proxy.connect()
    client.send(GET)
    client.channel.pauseProducing()
    client.transport.pauseProducing()

    upstream.requests[0].finish()
    proxy.flush()

    assert client.transport.producerState == "paused"
    client.leave()


@pytest.mark.parametrize("target", ["*", "door:443", "http://door"])
def test_a_target_without_a_path_cannot_be_sent_on(target: str) -> None:
    """It would end up in the name of the host."""
    upstream = Upstream()

    answer = in_memory_proxy(upstream).ask("OPTIONS", target)

    assert answer.status == 400
    assert upstream.requests == []


def test_a_target_that_is_no_url_cannot_be_sent_on() -> None:
    """The client is told so, in JSON."""
    proxy = in_memory_proxy(Upstream())
    client = proxy.connect()

    client.send(b"GET /do\x7fcs HTTP/1.1\r\nHost: door\r\n\r\n")

    [answer] = client.answers("GET")
    assert answer.status == 400
    assert json.loads(answer.body)["error_type"] == "Validation"
    client.leave()


def test_a_body_that_is_no_call_is_sent_as_it_was_read() -> None:
    """It was read whole to be understood, and was not."""
    upstream = Upstream()
    proxy = in_memory_proxy(upstream)
    client = proxy.connect()
    body = b'{"inputs":"a"} and more ' + b"x" * 1_000

    client.embed(body)
    proxy.flush()

    assert upstream.requests[0].content.read() == body
    assert upstream.requests[0].getHeader("Content-Length") == str(len(body))
    client.leave()


def test_an_upstream_that_does_not_begin_to_answer_is_given_up() -> None:
    """The client is told, and the request is taken back."""
    upstream = Upstream()
    proxy = in_memory_proxy(upstream, upstream_timeout_s=7)
    client = proxy.connect()
    client.send(GET)
    gone: list[object] = []
    upstream.requests[0].notifyFinish().addErrback(gone.append)

    proxy.clock.advance(7)
    proxy.flush()

    assert client.answers("GET")[0].status == 504
    assert len(gone) == 1
    client.leave()


def test_a_client_that_has_its_answer_is_not_asked_to_continue() -> None:
    """`100 Continue` behind an answer would be taken for the next one."""
    client = in_memory_proxy(Upstream()).connect()

    client.send(
        b"OPTIONS * HTTP/1.1\r\nHost: door\r\nExpect: 100-continue\r\n"
        b"Content-Length: 5\r\n\r\n"
    )
    client.send(b"12345")

    [answer] = client.answers()
    assert answer.status == 400
    client.leave()


def test_a_client_that_asks_to_continue_is_told_so() -> None:
    """And the upstream hears nothing of it."""
    upstream = Upstream()
    proxy = in_memory_proxy(upstream)
    client = proxy.connect()

    client.send(
        b"PUT /other HTTP/1.1\r\nHost: door\r\nExpect: 100-continue\r\n"
        b"Content-Length: 5\r\n\r\n"
    )
    told = client.transport.value()
    client.send(b"12345")
    proxy.flush()

    assert told == b"HTTP/1.1 100 Continue\r\n\r\n"
    assert upstream.requests[0].getHeader("Expect") is None
    client.leave()


def test_a_refused_upload_is_not_held_up() -> None:
    """A client that sends everything before it reads would wait for ever."""
    proxy = in_memory_proxy(Upstream(), api_keys=("ours",))
    client = proxy.connect()

    client.send(b"PUT /other HTTP/1.1\r\nHost: door\r\nContent-Length: 99999\r\n\r\n")
    client.send(b"x" * 99_999)

    assert client.answers()[0].status == 401
    assert client.transport.producerState == "producing"
    client.leave()


@pytest.mark.parametrize(
    "host", [b"\xff", b"a..b", b"a" * 70, b"", b"[::1", b"door:port", b"xn--\x80"]
)
def test_any_host_is_as_good_as_another(host: bytes) -> None:
    """A client may call us what it likes."""
    proxy = in_memory_proxy(Answering(body=b"done"))
    client = proxy.connect()

    client.send(b"GET /docs HTTP/1.1\r\nHost: %b\r\n\r\n" % host)
    proxy.flush()

    assert client.answers()[0].body == b"done"
    client.leave()


def test_an_answer_under_way_when_draining_begins_goes_on() -> None:
    """Its head is with the client already and cannot say that it is the last."""
    upstream = Upstream()
    proxy = in_memory_proxy(upstream)
    client = proxy.connect()
    client.send(GET)
    upstream.requests[0].write(b"half")
    proxy.flush()

    proxy.site.drain()
    upstream.requests[0].write(b"done")
    upstream.requests[0].finish()
    proxy.flush()
    proxy.clock.advance(0)

    [answer] = client.answers("GET")
    assert answer.body == b"halfdone"
    assert answer.header("Connection") is None
    assert not client.transport.connected


@pytest_twisted.ensureDeferred
async def test_an_answer_is_sent_on_while_it_arrives(real: StartedProxy) -> None:
    """A client has the beginning before the upstream has the end."""
    real.upstream.asked = answering(OK + b"Content-Length: 8\r\n\r\nhalf")
    client = await real.byte_client()

    client.send(GET)
    await client.until(b"half")
    real.upstream.peers[0].transport.write(b"done")

    assert (await client.until(b"done")).endswith(b"\r\n\r\nhalfdone")


@pytest.mark.parametrize(
    "path",
    [b"//embed", b"///", b"//x/../y;z?a=//b", b"/;", b"/embed;", b"/x?", b"/x;?"],
)
@pytest_twisted.ensureDeferred
async def test_a_path_is_passed_on_to_the_letter(
    real: StartedProxy, path: bytes
) -> None:
    """What it means is for the server to say; Python has ideas of its own."""
    real.upstream.asked = answering(OK + b"Content-Length: 4\r\n\r\nfine")
    client = await real.byte_client()

    client.send(GET.replace(b"/docs", path))
    await client.until(b"fine")

    asked = b"GET " + path + b" HTTP/1.1\r\n"
    assert any(peer.received.startswith(asked) for peer in real.upstream.peers)


@pytest_twisted.ensureDeferred
async def test_a_path_that_cannot_be_asked_for_costs_no_connection(
    real: StartedProxy,
) -> None:
    """It would never be closed."""
    client = await real.byte_client()
    while not real.upstream.connections:
        await turn()  # the proxy asks with whom it speaks
    before = real.upstream.connections

    client.send(b"OPTIONS /do\x7fcs HTTP/1.1\r\nHost: door\r\n\r\n")
    refused = await client.until(b"}")
    for _ in range(10):
        await turn()

    assert refused.startswith(b"HTTP/1.1 400 ")
    assert real.upstream.connections == before


@pytest_twisted.ensureDeferred
async def test_a_request_is_sent_on_while_it_arrives(real: StartedProxy) -> None:
    """The upstream has the beginning before the client has sent the end."""
    client = await real.byte_client()

    client.send(b"PUT /docs HTTP/1.1\r\nHost: door\r\nContent-Length: 8\r\n\r\nhalf")
    while not real.upstream.peers or b"half" not in real.upstream.peers[0].received:
        await turn()
    real.upstream.asked = answering(OK + b"Content-Length: 4\r\n\r\nfine")
    client.send(b"done")
    await client.until(b"fine")

    assert real.upstream.peers[0].received.endswith(b"\r\n\r\nhalfdone")


@pytest.mark.parametrize(
    "head",
    [b"Content-Length: 8\r\n\r\nhalf", b"Transfer-Encoding: chunked\r\n\r\n4\r\nhalf"],
)
@pytest_twisted.ensureDeferred
async def test_an_answer_that_is_cut_short_is_cut_short(
    real: StartedProxy, head: bytes
) -> None:
    """The client sees that something is missing."""

    def cut(peer: Peer) -> None:
        peer.transport.write(OK + head)
        peer.transport.loseConnection()

    real.upstream.asked = cut
    client = await real.byte_client()

    client.send(GET)
    await client.lost

    assert not client.received.endswith(b"0\r\n\r\n")


@pytest_twisted.ensureDeferred
async def test_an_answer_without_a_length_is_sent_in_chunks(real: StartedProxy) -> None:
    """So that the connection can be used again."""

    def answer(peer: Peer) -> None:
        peer.transport.write(OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n")
        peer.transport.write(b"0\r\nX-Trailer: 1\r\n\r\n")

    real.upstream.asked = answer
    client = await real.byte_client()

    client.send(GET)

    assert (await client.until(b"0\r\n\r\n")).endswith(b"2\r\nok\r\n0\r\n\r\n")


@pytest_twisted.ensureDeferred
async def test_lines_that_an_answer_names_as_such_are_taken_off_it(
    real: StartedProxy,
) -> None:
    """Only the upstream knows which other lines are about its connection."""
    head = b"Connection: x-hop\r\nX-Hop: 1\r\nX-End: 1\r\nContent-Length: 2\r\n\r\n"
    real.upstream.asked = answering(OK + head + b"ok")
    client = await real.byte_client()

    client.send(GET)
    received = await client.until(b"ok")

    assert b"X-End: 1" in received
    assert b"X-Hop" not in received


@pytest_twisted.ensureDeferred
async def test_an_old_client_gets_no_chunks(real: StartedProxy) -> None:
    """HTTP/1.0 ends such an answer with the connection."""
    real.upstream.asked = answering(
        OK + b"Transfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n"
    )
    client = await real.byte_client()

    client.send(b"GET /docs HTTP/1.0\r\n\r\n")
    await client.lost

    assert client.received.endswith(b"\r\n\r\nok")


@pytest_twisted.ensureDeferred
async def test_packed_bytes_are_passed_on_packed(real: StartedProxy) -> None:
    """The client has asked for them and unpacks them."""
    head = b"Content-Encoding: gzip\r\nContent-Length: 4\r\n\r\n"
    real.upstream.asked = answering(OK + head + b"\x1f\x8bxx")
    client = await real.byte_client()

    client.send(GET.replace(b"\r\n\r\n", b"\r\nAccept-Encoding: gzip\r\n\r\n"))
    received = await client.until(b"\x1f\x8bxx")

    assert b"Content-Encoding: gzip\r\n" in received
    assert b"Accept-Encoding: gzip\r\n" in real.upstream.peers[0].received


@pytest.mark.parametrize("sent", [b"", OK + b"Content-Length: 8\r\n\r\nhalf"])
@pytest_twisted.ensureDeferred
async def test_a_client_that_leaves_closes_the_connection_upstream(
    real: StartedProxy, sent: bytes
) -> None:
    """Before the head of the answer and within its body, and no error is logged."""
    real.upstream.asked = answering(sent)
    client = await real.byte_client()
    client.send(GET)
    while not real.upstream.peers or not real.upstream.peers[0].received:
        await turn()
    await turn()

    client.transport.loseConnection()

    await real.upstream.peers[0].lost


@pytest_twisted.ensureDeferred
async def test_a_client_that_leaves_within_its_request_closes_the_connection_upstream(
    real: StartedProxy,
) -> None:
    """Half a request must not look complete either."""
    client = await real.byte_client()
    client.send(b"PUT /docs HTTP/1.1\r\nHost: door\r\nContent-Length: 8\r\n\r\nhalf")
    while not real.upstream.peers or b"half" not in real.upstream.peers[0].received:
        await turn()

    client.transport.loseConnection()

    await real.upstream.peers[0].lost


@pytest_twisted.ensureDeferred
async def test_a_chunk_that_is_none_breaks_both_connections(real: StartedProxy) -> None:
    """What has been sent on cannot be taken back, but it is never ended."""
    client = await real.byte_client()
    client.send(
        b"PUT /docs HTTP/1.1\r\nHost: door\r\nTransfer-Encoding: chunked\r\n\r\n"
        b"4\r\nhalf\r\n"
    )
    while not real.upstream.peers or b"half" not in real.upstream.peers[0].received:
        await turn()

    client.send(b"-1\r\n")
    await client.lost
    await real.upstream.peers[0].lost

    assert client.received == b"HTTP/1.1 400 Bad Request\r\n\r\n"
    assert b"\r\n0\r\n" not in real.upstream.peers[0].received


@pytest_twisted.ensureDeferred
async def test_an_early_answer_does_not_wait_for_the_upload(real: StartedProxy) -> None:
    """TEI refuses a large body before it has read it."""
    real.upstream.asked = answering(
        b"HTTP/1.1 413 Payload Too Large\r\nContent-Length: 3\r\n\r\nbig"
    )
    client = await real.byte_client()

    client.send(b"PUT /docs HTTP/1.1\r\nHost: door\r\nContent-Length: 8\r\n\r\nhalf")
    received = await client.until(b"big")
    await real.upstream.peers[0].lost
    client.send(b"done" + GET)
    real.upstream.asked = answering(OK + b"Content-Length: 4\r\n\r\nfine")

    assert received.startswith(b"HTTP/1.1 413 ")
    assert (await client.until(b"fine")).count(b"HTTP/1.1 ") == 2


@define(eq=False)
class Away:
    """An agent that cannot reach the upstream for a number of times."""

    agent: Any
    times: int

    def request(self, *asked: Any) -> Any:
        if not self.times:
            return self.agent.request(*asked)
        self.times -= 1
        return fail(Refused())


@pytest.mark.parametrize("path", ["/", "/rerank"])
def test_an_upstream_that_is_away_is_waited_for(path: str) -> None:
    """The request is sent when it comes back, with its body."""
    proxy = in_memory_proxy(Answering(body=b"fine"))
    proxy.model.relay.agent = Away(proxy.model.relay.agent, times=4)
    client = proxy.connect()

    client.ask("POST", path, b'{"query":"a"}', ("Content-Type", "application/json"))
    at_once = client.answers()
    proxy.be_patient(client)

    assert at_once == []
    assert [answer.body for answer in client.answers()] == [b"fine"]


def test_an_upstream_that_stays_away_is_a_502_when_patience_ends() -> None:
    """No client waits for ever."""
    proxy = in_memory_proxy(Answering())
    proxy.model.relay.agent = Away(proxy.model.relay.agent, times=1000)
    client = proxy.connect()
    client.send(GET)

    for _ in range(49):
        proxy.clock.advance(0.1)
    before = client.answers()
    proxy.clock.advance(0.2)

    assert before == []
    assert [answer.status for answer in client.answers()] == [502]


def test_a_client_that_leaves_while_the_upstream_is_away_is_forgotten() -> None:
    """No timer is left for it."""
    proxy = in_memory_proxy(Answering())
    proxy.model.relay.agent = Away(proxy.model.relay.agent, times=1000)
    client = proxy.connect()
    client.send(GET)

    client.leave()

    assert not proxy.clock.getDelayedCalls()


@pytest.mark.parametrize(("method", "path"), [("GET", "/x"), ("POST", "/embed")])
@pytest.mark.parametrize("is_fast", [True, False])
def test_a_redirect_leads_back_to_the_client_s_host(
    method: str, path: str, *, is_fast: bool
) -> None:
    """Starlette names its own address to say that a slash is missing."""
    lines = ((b"Location", b"http://upstream%b/" % path.encode()),)
    proxy = in_memory_proxy(Answering(status=307, lines=lines), is_fast=is_fast)

    answer = proxy.ask(
        method, path, b'{"inputs":"a"}', ("Content-Type", "application/json")
    )

    assert (answer.status, answer.header("Location")) == (307, f"{path}/")


GOOD = OK + b"Content-Length: 4\r\n\r\nfine"


def post(path: bytes, body: bytes, more: bytes = b"") -> bytes:
    """Write a request with a body."""
    head = b"POST %b HTTP/1.1\r\nHost: door\r\n%b" % (path, more)
    return head + b"Content-Length: %d\r\n\r\n%b" % (len(body), body)


def closing_first(server: ByteServer, answer: bytes, times: int = 1) -> None:
    """Close the connections of the first requests, and answer those that follow."""
    left = [None] * times

    def asked(peer: Peer) -> None:
        if not peer.received.endswith((b"}", b"half", b"half\r\n")):
            return
        if left:
            left.pop()
            peer.transport.loseConnection()
        else:
            peer.transport.write(answer)

    server.asked = asked


@pytest.mark.parametrize(
    "path",
    [b"/rerank", b"/rerank/?a=b", b"/similarity", b"/embed?a", b"/predict", b"/"],
)
@pytest_twisted.ensureDeferred
async def test_what_may_be_asked_twice_is_sent_again_when_its_connection_breaks(
    real: StartedProxy, path: bytes
) -> None:
    """Servers close connections that are idle, perhaps just as one is used."""
    closing_first(real.upstream, GOOD)
    client = await real.byte_client()
    body = b'{"query":"q","texts":["a"]}'

    client.send(post(path, body))
    answer = await client.until(b"fine")

    assert answer.startswith(b"HTTP/1.1 200 ")
    assert [peer.received.endswith(body) for peer in real.upstream.peers] == [
        True,
        True,
    ]


@pytest.mark.parametrize("more", [b"", b"Transfer-Encoding: chunked\r\n"])
@pytest_twisted.ensureDeferred
async def test_a_body_that_is_still_coming_is_sent_again_from_its_beginning(
    real: StartedProxy, more: bytes
) -> None:
    """What comes after the break follows what came before it."""
    chunked = bool(more)
    closing_first(real.upstream, b"")
    client = await real.byte_client()
    halves = [b"4\r\nhalf\r\n", b"4\r\ndone\r\n0\r\n\r\n"]
    pieces = halves if chunked else [b"half", b"done"]
    length = more or b"Content-Length: 8\r\n"

    client.send(b"POST /rerank HTTP/1.1\r\nHost: x\r\n" + length + b"\r\n" + pieces[0])
    while len(real.upstream.peers) < 2:
        await turn()
    real.upstream.asked = lambda peer: (
        peer.transport.write(GOOD) if b"done" in peer.received else None
    )
    client.send(pieces[1])
    await client.until(b"fine")

    assert b"".join(pieces) in real.upstream.peers[-1].received


@pytest.mark.parametrize(
    "request_",
    [
        post(b"/other", b"{}"),
        post(b"/rerank", b"{}").replace(b"POST", b"PATCH"),
        post(b"/rerank", b"{%b}" % (b"x" * MAX_KEPT)),
    ],
    ids=["unknown", "method", "long"],
)
@pytest_twisted.ensureDeferred
async def test_what_may_not_be_asked_twice_is_sent_once(
    real: StartedProxy, request_: bytes
) -> None:
    """It may have been done already, or is not all here any more."""
    closing_first(real.upstream, GOOD)
    client = await real.byte_client()

    client.send(request_)
    answer = await client.until(b"}")

    assert answer.startswith(b"HTTP/1.1 502 ")
    assert len(real.upstream.peers) == 1


@pytest_twisted.ensureDeferred
async def test_a_request_whose_connections_break_is_given_up_after_the_second(
    real: StartedProxy,
) -> None:
    """It may be what kills the server."""
    closing_first(real.upstream, GOOD, times=9)
    client = await real.byte_client()

    client.send(post(b"/rerank", b"{}"))
    answer = await client.until(b"}")

    assert answer.startswith(b"HTTP/1.1 502 ")
    assert len(real.upstream.peers) == 2


@pytest.mark.parametrize("path", [b"/other", b"/embed"])
@pytest.mark.parametrize("status", [b"200 OK\rSet-Cookie: evil", b"200 O\x00K\x1b[1m"])
@pytest_twisted.ensureDeferred
async def test_a_reason_has_no_control_characters(
    real: StartedProxy, status: bytes, path: bytes
) -> None:
    """Some reader would take them for the end of the line."""
    real.upstream.asked = answering(
        b"HTTP/1.1 %b\r\nContent-Length: 5\r\n\r\n[[1]]" % status
    )
    client = await real.byte_client()
    body = b'{"inputs":"a"}'

    client.send(post(path, body, b"Content-Type: application/json\r\n"))
    answer = await client.until(b"[[1]]")

    line = answer.partition(b"\r\n")[0]
    assert line == b"HTTP/1.1 " + re.sub(rb"[\x00-\x1f]", b" ", status)


@pytest.mark.parametrize("status", [b"099", b"1000", b"+20"])
@pytest_twisted.ensureDeferred
async def test_a_status_without_three_digits_is_no_answer(
    real: StartedProxy, status: bytes
) -> None:
    """It would be written in another way, or could not be read."""
    real.upstream.asked = answering(
        b"HTTP/1.1 %b OK\r\nContent-Length: 2\r\n\r\n[]" % status
    )
    client = await real.byte_client()

    client.send(post(b"/other", b"{}"))
    answer = await client.until(b"}")

    assert answer.startswith(b"HTTP/1.1 502 ")


@pytest.mark.parametrize("path", [b"/rerank", b"/embed"])
@pytest_twisted.ensureDeferred
async def test_a_wrong_scheme_is_not_waited_for(path: bytes) -> None:
    """It stays wrong, relayed or batched; the test would end with the patience."""
    async with proxy_before_byte_server(connect_patience_s=3600.0) as started:
        started.upstream.asked = answering(b"\x15\x03\x01\x00\x02\x02\x46")
        client = await started.byte_client()
        body = b'{"inputs":"a"}'

        client.send(post(path, body, b"Content-Type: application/json\r\n"))
        answer = await client.until(b"}")

    assert answer.startswith(b"HTTP/1.1 502 ")
    assert b"should begin with https://" in answer
