"""Whatever bytes a client sends, both paths answer with the same bytes."""

import json
import re
from itertools import pairwise, takewhile

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.error import ConnectionDone
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.web.resource import Resource
from twisted.web.server import Request

from support.proxy import in_memory_proxy

_OF_THE_MOMENT = re.compile(rb"\r\n(?:Date|X-Request-Id): [^\r]*")
GOOD = b'{"inputs":["ab","c"]}'


class Server(Resource):
    """Answers a call with the lengths of its inputs, and all else with what it saw."""

    isLeaf = True

    def render(self, request: Request) -> bytes:
        """Answer."""
        body = request.content.read()
        try:
            inputs = json.loads(body)["inputs"]
            return json.dumps([[len(text)] for text in inputs]).encode()
        except (ValueError, TypeError, KeyError):
            request.setResponseCode(422)
            return b"%b %b %b" % (request.method, request.uri, body)


def _answers(pieces: list[bytes], *, is_fast: bool) -> bytes:
    """Send *pieces* until the connection is closed, and return what came back."""
    proxy = in_memory_proxy(Server(), is_fast=is_fast)
    channel = proxy.site.buildProtocol(None)
    # A connection that is told to close does so a moment later, as a real one.
    transport = StringTransport()
    channel.makeConnection(transport)
    for piece in takewhile(lambda _: not transport.disconnecting, pieces):
        channel.dataReceived(piece)
        proxy.flush()
    proxy.clock.advance(1)
    proxy.flush()
    channel.connectionLost(Failure(ConnectionDone()))
    return _OF_THE_MOMENT.sub(b"", transport.value())


first_lines = st.one_of(
    st.just(b"POST /embed HTTP/1.1"),
    st.sampled_from(
        [
            b"POST /embed?a=b HTTP/1.1",
            b"POST http://proxy/embed HTTP/1.1",
            b"POST /nowhere HTTP/1.1",
            b"POST /embed HTTP/1.0",
            b"POST  /embed HTTP/1.1",
            b"POST /embed  HTTP/1.1",
            b"POST /embed HTTP/1.1 ",
            b"POST /embed",
            b"post /embed HTTP/1.1",
            b"\r\nPOST /embed HTTP/1.1",
            b"GET /embed HTTP/1.1",
            b"GET /-/answered/at/once HTTP/1.1",
            b"POST /%65mbed HTTP/1.1",
            b"POST //embed HTTP/1.1",
        ]
    ),
)
lengths = st.one_of(
    st.just(b"Content-Length: %d" % len(GOOD)),
    st.sampled_from(
        [
            b"content-length: %d" % len(GOOD),
            b"Content-length: %d" % len(GOOD),
            b"Content-Length:%d" % len(GOOD),
            b"Content-Length : %d" % len(GOOD),
            b"Content-Length: 0%d" % len(GOOD),
            b"Content-Length: +%d" % len(GOOD),
            b"Content-Length: %d " % len(GOOD),
            b"Content-Length: %d, %d" % (len(GOOD), len(GOOD)),
            b"Content-Length: 3",
            b"Content-Length: 0",
            b"X: y",
        ]
    ),
)
lines = st.one_of(
    st.sampled_from([b"Host: proxy", b"Accept: */*", b"Connection: keep-alive"]),
    st.sampled_from(
        [
            b"Connection: close",
            b"Connection: X-Secret",
            b"Content-Length: %d" % len(GOOD),
            b"Content-Length: 4",
            b"Transfer-Encoding: chunked",
            b"transfer-encoding: identity",
            b"Transfer-Encoding : chunked",
            b"Expect: 100-continue",
            b"Upgrade: h2c",
            b"Host: other",
            b"Host:",
            b"X-Tab:\tx",
            b" folded: yes",
            b"no colon",
            b"bad name: x",
            b"X-Nul: a\x00b",
            b"X-Bare: a\rb",
            b"X-Line: a\nContent-Length: 5",
            b"X-High: \xff",
            b"Content-Type: text/plain",
            b"X-Request-Id: mine",
        ]
    ),
)
heads = st.builds(
    lambda first, length, others, place: b"\r\n".join(
        [
            first,
            *others[:place],
            b"Content-Type: application/json",
            length,
            *others[place:],
            b"\r\n",
        ]
    ),
    first_lines,
    lengths,
    st.lists(lines, max_size=3),
    st.integers(0, 3),
)
request_bodies = st.sampled_from(
    [GOOD, GOOD, GOOD, GOOD[:-1], b"", GOOD + b"\r\n", b"0\r\n\r\n", GOOD + GOOD]
)


@settings(max_examples=400)
@given(
    requests=st.lists(st.tuples(heads, request_bodies), min_size=1, max_size=3),
    data=st.data(),
)
def test_both_paths_answer_alike(
    requests: list[tuple[bytes, bytes]], data: st.DataObject
) -> None:
    """Good requests, doubtful and bad ones, in pieces of any size."""
    raw = b"".join(head + body for head, body in requests)
    cuts = data.draw(st.sets(st.integers(1, len(raw) - 1), max_size=5))
    pieces = [raw[start:end] for start, end in pairwise([0, *sorted(cuts), len(raw)])]

    expected = _answers(pieces, is_fast=False)

    assert _answers(pieces, is_fast=True) == expected
