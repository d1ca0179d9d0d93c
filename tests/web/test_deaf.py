"""After a refusal nothing is read, parsed or answered any more."""

import re
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.interfaces import ITCPTransport
from twisted.internet.testing import StringTransport
from twisted.logger import capturedLogs
from twisted.web.http_headers import _nameEncoder
from zope.interface import directlyProvides

from abproxy.web.channel import MAX_LINES, MAX_NAME_BYTES
from support.client import Client
from support.proxy import in_memory_proxy
from support.upstream import HeldUpstream, Saying

GET = b"GET /-/nothing HTTP/1.1\r\nHost: x\r\n\r\n"
EXPECTING = (
    b"POST /embed HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    b"Expect: 100-continue\r\nContent-Length: 14\r\n\r\n"
)
CALL = b'{"inputs":"a"}'.join(
    [EXPECTING.replace(b"Expect: 100-continue\r\n", b""), b""]
)

good = st.sampled_from([GET, CALL, EXPECTING + b'{"inputs":"a"}'])
bad = st.sampled_from(
    [
        b"no request\r\nHost: x\r\n\r\n",
        b"GET /embed HTTP/1.1\r\nExpect: 100-continue\r\nContent-Length: 27\r\n"
        b"Content-Length: 27\r\nHost: x\r\n\r\n" + b"x" * 27,
        b"GET /embed HTTP/1.1\r\nno colon\r\nExpect: 100-continue\r\nHost: x\r\n\r\n",
        b"GET /embed HTTP/1.1\r\n" + b"X" * 300 + b": y\r\nHost: x\r\n\r\n",
        b"POST /embed HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"POST /other HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nabzz\r\n",
        b"POST /embed HTTP/1.1\r\nContent-Length: 9999999\r\n\r\n{",
        b"GET /" + b"x" * 70_000 + b" HTTP/1.1\r\n\r\n",
    ]
)


class Open(StringTransport):
    """A transport that never looks as if it were about to close."""

    disconnecting = False

    def loseWriteConnection(self) -> None:  # noqa: N802
        """Stay open for what the client still sends."""

    def setTcpNoDelay(self, enabled: bool) -> None:  # noqa: N802, FBT001
        """Have no such option."""

    def unregisterProducer(self) -> None:  # noqa: N802
        """Forget the producer, if there is one."""
        self.producer = None


def statuses(sent: bytes) -> list[bytes]:
    """Return the statuses of all answers in *sent*, those of 100 among them."""
    return re.findall(rb"HTTP/1\.1 (\d+) ", sent)


@settings(max_examples=200, deadline=None)
@given(
    before=st.lists(good, max_size=2),
    refused=bad,
    after=st.lists(st.one_of(good, bad), min_size=1, max_size=3),
    is_fast=st.booleans(),
    data=st.data(),
)
def test_nothing_behind_a_refused_request_is_answered(
    before: list[bytes],
    refused: bytes,
    after: list[bytes],
    is_fast: bool,  # noqa: FBT001
    data: st.DataObject,
) -> None:
    """However it is cut into pieces, and though the connection is still open."""
    raw = b"".join([*before, refused, *after])
    cuts = data.draw(st.sets(st.integers(1, len(raw) - 1), max_size=5))
    proxy = in_memory_proxy(Saying(b"[[1]]"), is_fast=is_fast, max_body_bytes=1000)
    channel: Any = proxy.site.buildProtocol(None)
    transport = Open()
    directlyProvides(transport, ITCPTransport)
    channel.makeConnection(transport)

    for start, end in pairwise([0, *sorted(cuts), len(raw)]):
        channel.dataReceived(raw[start:end])
        proxy.flush()
    channel.dataReceived(GET + CALL)
    proxy.flush()

    final = [status for status in statuses(transport.value()) if status != b"100"]
    assert len(final) == len(before) + 1
    assert final[-1][:1] == b"4"
    assert statuses(transport.value())[-1] == final[-1]
    proxy.clock.advance(1000)


@pytest.mark.parametrize("is_fast", [True, False])
def test_a_relayed_request_that_turns_out_bad_is_not_answered_later(
    is_fast: bool,  # noqa: FBT001
) -> None:
    """Its 400 is the last that the client hears, whatever the upstream says."""
    upstream = HeldUpstream()
    proxy = in_memory_proxy(upstream, is_fast=is_fast)
    client = proxy.connect()
    directlyProvides(client.transport, ITCPTransport)
    client.transport.loseWriteConnection = lambda: None  # type: ignore[attr-defined]
    client.send(b"POST /x HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n")
    proxy.flush()

    client.send(b"zz\r\n")
    proxy.flush()

    assert client.transport.value() == b"HTTP/1.1 400 Bad Request\r\n\r\n"
    assert not proxy.site.requests
    client.leave()


# What is too much for a head


def named(size: int, *, is_fast: bool, path: bytes = b"/embed") -> Client:
    """Send a call with a header name of *size* bytes."""
    proxy = in_memory_proxy(Saying(b"[[1]]"), is_fast=is_fast)
    client = proxy.connect()
    line = b"x" * size + b": y\r\nContent-Length"
    client.send(CALL.replace(b"Content-Length", line).replace(b"/embed", path))
    proxy.flush()
    return client


@pytest.mark.parametrize("is_fast", [True, False])
def test_the_longest_name_of_a_header_is_taken(is_fast: bool) -> None:  # noqa: FBT001
    """No client has one nearly as long."""
    [answer] = named(MAX_NAME_BYTES, is_fast=is_fast).answers()

    assert answer.status == 200


@pytest.mark.parametrize("is_fast", [True, False])
def test_a_longer_name_is_refused_before_twisted_remembers_it(
    is_fast: bool,  # noqa: FBT001
) -> None:
    """It keeps the names of 10,000 lines for good."""
    [answer] = named(MAX_NAME_BYTES + 1, is_fast=is_fast).answers()

    assert answer.status == 431
    assert b"256 bytes" in answer.body
    longest = max(map(len, _nameEncoder._canonicalHeaderCache))
    assert longest <= MAX_NAME_BYTES


def test_a_long_name_is_refused_in_the_words_of_the_route() -> None:
    """OpenAI's clients read `message`."""
    both = [
        named(257, is_fast=is_fast, path=b"/v1/embeddings").answers()[0]
        for is_fast in (True, False)
    ]

    assert both[0].body == both[1].body
    assert b'"message":"the name of a header' in both[0].body


@pytest.mark.parametrize(("lines", "status"), [(MAX_LINES, 404), (MAX_LINES + 1, 431)])
def test_a_request_has_so_many_lines_at_most(lines: int, status: int) -> None:
    """Each costs more than its bytes."""
    proxy = in_memory_proxy(Saying(b""))
    client = proxy.connect()

    client.send(b"GET /-/nothing HTTP/1.1\r\n" + b"X: y\r\n" * lines + b"\r\n")

    assert client.answers("GET")[0].status == status


@pytest.mark.parametrize("sent", [b"", b"POST /embed HTTP/1.1\r\n", CALL])
def test_a_connection_that_is_closed_writes_no_line(sent: bytes) -> None:
    """Anyone could fill the log by connecting and doing nothing."""
    proxy = in_memory_proxy(Saying(b"[[1]]"))
    client = proxy.connect()
    client.send(sent)
    proxy.flush()

    with capturedLogs() as events:
        for _ in range(30):
            proxy.clock.advance(10)
        proxy.site.abort()

    assert not client.transport.connected
    assert events == []
