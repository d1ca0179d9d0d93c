"""Answers on the fast path are written as Twisted writes them."""

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import succeed
from twisted.web.resource import Resource

from abproxy.http.messages import HeaderList, Response
from abproxy.web.replies import _WRITTEN, LONGEST_LINE, MOST_LINES, encode
from support.proxy import in_memory_proxy

TOKEN = st.text("abcXYZ-1", min_size=1, max_size=6).map(lambda name: "x" + name)
NAME = st.one_of(
    TOKEN,
    st.sampled_from(
        ["Date", "etag", "Server-Timing", "x-compute-characters", "set-cookie", "dnt"]
    ),
).map(str.encode)
VALUE = st.text("ab ,;=", max_size=9).map(lambda value: value.strip().encode())
HEADERS = st.lists(st.tuples(NAME, VALUE), max_size=6).map(tuple)
ROWS = b"[[0.1],[0.2]]"


def _answer(reply: Response, *, is_fast: bool, calls: int) -> bytes:
    """Return what the last of so many calls is sent that share a batch."""
    proxy = in_memory_proxy(Resource(), is_fast=is_fast, max_wait_ms=1000)
    proxy.collector.sender.send_request = lambda _: succeed(reply)
    clients = [proxy.connect() for _ in range(calls)]
    for client in clients:
        client.embed(b'{"inputs":["a"]}')
    proxy.clock.advance(1)
    written = clients[-1].transport.value()
    for client in clients:
        client.leave()
    return written


def _dated(headers: HeaderList) -> HeaderList:
    """Add a date if there is none: ours would be that of the moment."""
    has_date = any(name == b"Date" for name, _ in headers)
    return headers if has_date else (*headers, (b"Date", b"today"))


@given(headers=HEADERS)
def test_a_shared_answer_has_the_same_bytes(headers: HeaderList) -> None:
    """Lines are in the same order, and spelled in the same way."""
    reply = Response(status=200, reason=b"OK", headers=_dated(headers), body=ROWS)

    expected = _answer(reply, is_fast=False, calls=2)

    assert expected.endswith(b"\r\n\r\n[[0.2]]")
    assert _answer(reply, is_fast=True, calls=2) == expected


@given(
    headers=HEADERS,
    status=st.sampled_from([200, 204, 304, 400, 413, 422, 424, 500]),
    reason=st.sampled_from([b"OK", b"", b"As we like it"]),
    body=st.sampled_from([b"", b"null", ROWS]),
)
def test_an_answer_that_is_passed_on_has_the_same_bytes(
    headers: HeaderList, status: int, reason: bytes, body: bytes
) -> None:
    """A status without a body has none, whatever the upstream says."""
    reply = Response(status=status, reason=reason, headers=_dated(headers), body=body)

    expected = _answer(reply, is_fast=False, calls=1)

    assert expected.startswith(b"HTTP/1.1 %d " % status)
    assert _answer(reply, is_fast=True, calls=1) == expected


def test_an_answer_without_a_date_gets_one() -> None:
    """As RFC 9110 wants it of a server that has a clock."""
    reply = Response(status=200, reason=b"OK", headers=(), body=ROWS)

    assert b"\r\nDate: " in _answer(reply, is_fast=True, calls=2)


def test_what_is_remembered_of_lines_is_bounded() -> None:
    """Whatever a server has in them: ids that never repeat, and very long ones."""
    for number in range(2 * MOST_LINES):
        value = b"%d" % number
        long = value + b"a" * LONGEST_LINE
        headers = (b"X-Id", value), (b"X-Long", long)
        reply = Response(status=200, reason=b"OK", headers=headers, body=ROWS)
        written, _ = encode(reply, closes=False)
        assert b"\r\nX-Id: %b\r\nX-Long: %b\r\n" % (value, long) in written

    assert len(_WRITTEN) <= MOST_LINES
    assert max(len(line) for _, line in _WRITTEN.values()) <= LONGEST_LINE
