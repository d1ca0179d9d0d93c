"""Which heads are plain enough for the fast path."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from abproxy.web.fast.heads import LONGEST, MOST_LINES, find_length, read_head

HEAD = (
    b"POST /embed?x=1 HTTP/1.1\r\nhost: 127.0.0.1:8081\r\nAccept: */*\r\n"
    b"Connection: keep-alive\r\nContent-Type: application/json\r\n"
    b"Content-Length: 15\r\n\r\n"
)


def _with(line: bytes) -> bytes:
    return HEAD[:-2] + line + b"\r\n\r\n"


def _instead(old: bytes, new: bytes) -> bytes:
    assert old in HEAD
    return HEAD.replace(old, new)


def test_a_plain_head_is_read_as_twisted_reads_it() -> None:
    """Names are spelled in one way, and values stay as they came."""
    head = read_head(HEAD)

    assert head is not None
    assert head.target == b"/embed?x=1"
    assert list(head.headers.getAllRawHeaders()) == [
        (b"Host", [b"127.0.0.1:8081"]),
        (b"Accept", [b"*/*"]),
        (b"Connection", [b"keep-alive"]),
        (b"Content-Type", [b"application/json"]),
        (b"Content-Length", [b"15"]),
    ]


@pytest.mark.parametrize("name", [b"Content-Length", b"content-length"])
def test_the_length_is_found_in_the_head_only(name: bytes) -> None:
    """One in the body does not count."""
    head = _instead(b"Content-Length", name)
    data = head + b"\r\nContent-Length: 99\r\n"

    found = find_length(data, len(head))

    assert found is not None
    assert found[1] == b"15"


@pytest.mark.parametrize(
    "head",
    [
        _instead(b"POST", b"post"),
        _instead(b"POST", b"GET"),
        _instead(b"HTTP/1.1", b"HTTP/1.0"),
        _instead(b"HTTP/1.1", b"HTTP/1.1 "),
        _instead(b" HTTP/1.1", b"  HTTP/1.1"),
        _instead(b"/embed", b"http://proxy/embed"),
        _instead(b"/embed", b"*"),
        _instead(b"/embed", b"/emb\xc3\xa9d"),
        _instead(b"/embed?x=1", b"/embed#part"),
        _instead(b"host: ", b"host : "),
        _instead(b"host: ", b"host:"),
        _instead(b"host: ", b"host:  "),
        _instead(b"host: ", b"host:\t"),
        _instead(b"host: 127.0.0.1:8081\r\n", b""),
        _instead(b"*/*", b"*/* "),
        _instead(b"*/*", b""),
        _instead(b"*/*", b"\xc3\xa9"),
        _instead(b"*/*", b"a\x00b"),
        _instead(b"*/*\r\n", b"*/*\n"),
        _instead(b"*/*", b"*/*\r"),
        _instead(b"keep-alive", b"close"),
        _instead(b"keep-alive", b"keep-alive, x-private"),
        _instead(b"Accept: */*\r\n", b"Accept: */*\r\n folded\r\n"),
        _instead(b"Accept", b"Acc ept"),
        _with(b"Host: another"),
        _with(b"Content-Length: 15"),
        _with(b"content-length: 16"),
        _with(b"Content-Type: text/plain"),
        _with(b"Transfer-Encoding: chunked"),
        _with(b"transfer-encoding: identity"),
        _with(b"Expect: 100-continue"),
        _with(b"Upgrade: h2c"),
        _with(b"TE: trailers"),
        _with(b"Trailer: x"),
        _with(b"X-Long: " + b"x" * LONGEST),
        HEAD[:-2] + b"X: y\r\n" * MOST_LINES + b"\r\n",
    ],
    ids=repr,
)
def test_what_is_not_plain_is_not_read(head: bytes) -> None:
    """Another server on the way might read it otherwise."""
    assert read_head(head) is None


@pytest.mark.parametrize(
    "length", [b"", b"0", b"+15", b"-1", b"015", b"1_5", b"15 ", b"15, 15", b"1e1"]
)
def test_what_is_no_plain_length_is_not_found(length: bytes) -> None:
    """Twisted, which knows all of HTTP, decides what it is."""
    head = _instead(b"15", length)

    assert find_length(head, len(head)) is None


@given(st.data())
def test_no_byte_can_be_put_anywhere_without_being_noticed(data: st.DataObject) -> None:
    """It is either part of what was read, or the head is not plain."""
    at = data.draw(st.integers(0, len(HEAD) - 3))
    byte = data.draw(st.sampled_from([b"\r", b"\n", b" ", b"\t", b"\x00", b"\x0b"]))

    head = read_head(HEAD[:at] + byte + HEAD[at:])

    read = [] if head is None else list(head.headers.getAllRawHeaders())
    values = b"".join(value for _, values in read for value in values)
    assert head is None or (byte == b" " and values.count(byte) == 1)
