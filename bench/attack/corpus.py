"""
Requests that servers have been seen to read in different ways.

Each is sent to a route that is batched and to one that is relayed.  What an attacker
would like to slip through asks for `/smuggled`, or is a header line `X-Smuggled`: no
reading of a case lets the inference server see either.
"""

from collections.abc import Iterator, Mapping, Sequence

from attrs import frozen

__all__ = ["CASES", "SMUGGLED", "Case"]

SMUGGLED = b"smuggled"
"""In a target or a name, and in lower case: nothing of it may arrive."""

GOOD = b'{"inputs":["ab","c"]}'
CHUNKED = b"Transfer-Encoding: chunked"
HIDDEN = b"GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n"
CHUNKS = b"15\r\n" + GOOD + b"\r\n0\r\n\r\n"
LENGTH = b"Content-Length: 21"

TARGETS = (b"/embed", b"/other")


@frozen
class Case:
    """Bytes for one connection."""

    name: str
    data: bytes


def _request(
    *lines: bytes, body: bytes = GOOD, first: bytes = b"POST %b HTTP/1.1"
) -> bytes:
    """Write a request; its first line has %b where the target belongs."""
    kind = b"Content-Type: application/json"
    return b"\r\n".join([first, b"Host: x", kind, *lines, b"", body])


def _lengths() -> Iterator[tuple[str, bytes]]:
    """Two lengths, or one that is no plain number."""
    values = (
        *(b"+21", b"-21", b"-0", b"0x15", b"21.0", b"2_1", b"1e1", b"21 ", b"021"),
        *(b"", b" ", b"\t21", b"21\t", b"21,21", b"21, 21", b"21,22", b"2 1", b"21;"),
        *(b"\xb2\xb1", b"21\x00", b"21\x0b", b"99999999999999999999", b"0", b"20"),
        *(b"21\r", b"0" * 300 + b"21", b'"21"', b"chunked", b"9" * 5000),
    )
    for value in values:
        yield (
            f"length {value[:24]!r}",
            _request(b"Content-Length: " + value),
        )
    for other in (b"21", b"0", b"22", b"+21", b""):
        second = b"Content-Length: " + other
        yield f"length twice, {other!r}", _request(LENGTH, second) + HIDDEN
        yield f"length twice, {other!r} first", _request(second, LENGTH) + HIDDEN
    yield "length in other letters", _request(LENGTH, b"content-length: 0") + HIDDEN
    yield "length with _", _request(LENGTH, b"Content_Length: 0")
    yield "length with blank", _request(b"Content-Length : 21") + HIDDEN
    yield "length with tab", _request(b"Content-Length\t: 21") + HIDDEN
    yield "length on the next line", _request(b"Content-Length:\r\n 21")
    yield "no length", _request(body=b"")
    yield "length of nothing", _request(b"Content-Length: 0", body=b"")


def _encodings() -> Iterator[tuple[str, bytes]]:
    """Chunks that may not be seen as such, in front of a hidden request."""
    values = (
        *(b"Transfer-Encoding : chunked", b"Transfer-Encoding\t: chunked"),
        *(b"Transfer-Encoding: xchunked", b"Transfer-Encoding: chunkedx"),
        *(b"Transfer-Encoding: chunked, identity", b"Transfer-Encoding: gzip"),
        *(b"Transfer-Encoding: gzip, chunked", b"Transfer-Encoding: chunked, chunked"),
        *(b'Transfer-Encoding: "chunked"', b"Transfer-Encoding: chunked;q=1"),
        *(b"Transfer-Encoding: \x0bchunked", b"Transfer-Encoding: chunked\x0b"),
        *(b"Transfer-Encoding: chunk\x00ed", b"Transfer-Encoding:\r\n chunked"),
        *(b"Transfer-Encoding:\r\n\tchunked", b"\x0bTransfer-Encoding: chunked"),
        *(b"X: y\r\n Transfer-Encoding: chunked", b"X: y\nTransfer-Encoding: chunked"),
        *(b"X: y\rTransfer-Encoding: chunked", b"Transfer-Encoding: identity, chunked"),
        *(b"Transfer\x00-Encoding: chunked", b"Transfer-Encoding"),
        *(b"Transfer-Encoding: ch\xfcnked", b"Transfer-Encoding: ,chunked"),
        *(b"Transfer-Encoding: chunked\r\nTransfer-Encoding: cow", b"TE: chunked"),
        *(b"Transfer-Encoding: cow\r\nTransfer-Encoding: chunked",),
    )
    smuggle = b"0\r\n\r\n" + HIDDEN
    for value in values:
        both = _request(b"Content-Length: 5", value, body=smuggle[:5])
        yield f"{value!r} beside a length", both
        yield f"{value!r} without a length", _request(value, body=CHUNKS)
    for value in (b"chunked", b"Chunked", b"CHUNKED", b" chunked", b"chunked ", b""):
        line = b"Transfer-Encoding: " + value
        cut = b"Content-Length: 4"
        yield f"{value!r} and a length", _request(cut, line, body=smuggle)
        yield f"a length and {value!r}", _request(line, cut, body=smuggle)
    yield "identity", _request(LENGTH, b"Transfer-Encoding: identity")
    old = b"POST %b HTTP/1.0"
    yield "chunks in HTTP/1.0", _request(CHUNKED, body=CHUNKS, first=old)


def _chunks() -> Iterator[tuple[str, bytes]]:
    """Chunks as they should be, and as they should not."""
    good = {
        "chunks": CHUNKS,
        "a size with zeros": b"00015\r\n" + GOOD + b"\r\n00\r\n\r\n",
        "a size in capitals": b"A\r\n%b\r\nB\r\n%b\r\n0\r\n\r\n"
        % (GOOD[:10], GOOD[10:]),
        "an extension": b"15;a=b\r\n" + GOOD + b"\r\n0;c\r\n\r\n",
        "an extension in quotes": b'15;a="b;c"\r\n' + GOOD + b"\r\n0\r\n\r\n",
        "trailers": b"15\r\n" + GOOD + b"\r\n0\r\nX-Smuggled: 1\r\n\r\n",
        "a length in trailers": b"15\r\n%b\r\n0\r\nContent-Length: 3\r\n\r\n" % GOOD,
        "single bytes": b"".join(b"1\r\n%c\r\n" % each for each in GOOD) + b"0\r\n\r\n",
    }
    for name, body in good.items():
        yield name, _request(CHUNKED, body=body)
    sizes = (
        *(b"0x15", b"+15", b"-15", b"15 ", b" 15", b"1 5", b"1_5", b"", b"zz", b"15\t"),
        *(b"15\x00", b"FFFFFFFFFFFFFFFFFF", b"15;a\x00b", b"15;a\nb", b"15\n", b"15\r"),
        *(b"15;" + b"a" * 70_000, b"0" * 5000 + b"15", b"15,15", b"15;\xff"),
    )
    for size in sizes:
        body = b"%b\r\n%b\r\n0\r\n\r\n" % (size, GOOD)
        yield f"chunk size {size[:24]!r}", _request(CHUNKED, body=body)
    bad = {
        "ends with a line feed": b"15\n" + GOOD + b"\n0\n\n",
        "data without an end": b"15\r\n" + GOOD + b"0\r\n\r\n",
        "data too long": b"14\r\n" + GOOD + b"\r\n0\r\n\r\n",
        "data too short": b"16\r\n" + GOOD + b"\r\n0\r\n\r\n",
        "data ended with XX": b"15\r\n" + GOOD + b"XX0\r\n\r\n",
        "bad trailer": b"15\r\n" + GOOD + b"\r\n0\r\nX-Smuggled\r\n\r\n",
        "folded trailer": b"15\r\n" + GOOD + b"\r\n0\r\nX: y\r\n z\r\n\r\n",
        "no last chunk": b"15\r\n" + GOOD + b"\r\n",
        "long trailer": b"0\r\nX: " + b"y" * 100_000 + b"\r\n\r\n",
        "many trailers": b"0\r\n" + b"X: y\r\n" * 2000 + b"\r\n",
    }
    for name, body in bad.items():
        yield name, _request(CHUNKED, body=body)


def _lines() -> Iterator[tuple[str, bytes]]:
    """Header lines that are none, or two."""
    lines = (
        *(b"X: a\rX-Smuggled: 1", b"X: a\nX-Smuggled: 1", b"X: a\r\r\nX-Two: 1"),
        *(
            b"X: a\x00b",
            b"X\x00: a",
            b" X: a",
            b"\tX: a",
            b"X: a\r\n b",
            b"X: a\r\n\tb",
        ),
        *(
            b"X : a",
            b"X\t: a",
            b": a",
            b"X",
            b"X Y: a",
            b"X:a",
            b"X:",
            b"X: ",
            b"X:\ta",
        ),
        *(b"X(: a", b"X\xe9: a", b"X: \xe9", b"X: \x7f", b"X: \x1b[0m", b'"X": a'),
        *(b"X: " + b"a" * 60_000, b"X" * 257 + b": a", b"X" * 256 + b": a"),
        *(b"X: " + b"a" * 70_000, b"Host: y", b"Host:", b"Host: x\r\nHost: y"),
        *(b"Host: a b", b"Connection: Content-Length", b"Connection: close"),
        *(b"Connection: Host, X", b"Connection: keep-alive, X-Y\r\nX-Y: 1"),
        *(b"Keep-Alive: timeout=1", b"Proxy-Connection: close", b"TE: trailers"),
        *(
            b"Trailer: Content-Length",
            b"X-Forwarded-For: 1.2.3.4\x00",
            b"Content-Type: ",
        ),
        *(b"Content-Type: text/plain", b"Content-Encoding: gzip", b"Range: bytes=0-1"),
        *(b"X-HTTP-Method-Override: GET", b"Cookie: a=b\r\nCookie: c=d"),
        *(b"\r\nX-Y: 1", b"Expect: 100-continue", b"Expect: 200-ok", b"Expect: "),
        *(b"Expect: 100-continue\r\nExpect: 100-continue", b"Upgrade: h2c"),
        *(b"Upgrade: websocket\r\nConnection: Upgrade", b"HTTP2-Settings: AAAA"),
        *(b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c", b"X-Request-Id: a b"),
    )
    for line in lines:
        yield f"line {line[:40]!r}", _request(line, LENGTH)
    yield "line feeds alone", _request(LENGTH).replace(b"\r\n", b"\n")
    yield "carriage returns alone", _request(LENGTH).replace(b"\r\n", b"\r")
    yield "many lines", _request(*[b"X: y"] * 400, LENGTH)
    yield "too many lines", _request(*[b"X: y"] * 1000, LENGTH)


def _first_lines() -> Iterator[tuple[str, bytes]]:
    """First lines that are odd."""
    firsts = (
        *(b"POST  %b HTTP/1.1", b"POST %b  HTTP/1.1", b"POST %b HTTP/1.1 ", b"POST %b"),
        *(b" POST %b HTTP/1.1", b"POST\t%b\tHTTP/1.1", b"post %b HTTP/1.1", b"P %b "),
        *(
            b"POST %b HTTP/1.0",
            b"POST %b HTTP/0.9",
            b"POST %b HTTP/2",
            b"POST %b http/1.1",
        ),
        *(
            b"POST %b HTTP/1.2",
            b"POST %b HTTP/11",
            b"POST %b HTTP/1.1.",
            b"POST %b HTTP/ 1",
        ),
        *(
            b"POST http://x%b HTTP/1.1",
            b"POST http://y%b HTTP/1.1",
            b"POST //x%b HTTP/1.1",
        ),
        *(b"POST http://x@y:1%b HTTP/1.1", b"POST x%b HTTP/1.1", b"POST *%b HTTP/1.1"),
        *(b"POST %b?a=b HTTP/1.1", b"POST %b?a b HTTP/1.1", b"POST %b#a HTTP/1.1"),
        *(b"POST %b\x00 HTTP/1.1", b"POST %b\xe9 HTTP/1.1", b"POST /%%2e%b HTTP/1.1"),
        *(b"POST %b/../x HTTP/1.1", b"POST %b\r HTTP/1.1", b"POST %b\n HTTP/1.1"),
        *(
            b"PO ST %b HTTP/1.1",
            b"P\x00ST %b HTTP/1.1",
            b"POST(%b HTTP/1.1",
            b"%b HTTP/1.1",
        ),
        *(b"CONNECT x:1%b HTTP/1.1", b"TRACE %b HTTP/1.1", b"OPTIONS %b HTTP/1.1"),
        *(
            b"GET %b HTTP/1.1",
            b"HEAD %b HTTP/1.1",
            b"PUT %b HTTP/1.1",
            b"BREW %b HTTP/1.1",
        ),
        *(
            b"\r\nPOST %b HTTP/1.1",
            b"\r\n\r\n\r\nPOST %b HTTP/1.1",
            b"\nPOST %b HTTP/1.1",
        ),
        *(b"\x00POST %b HTTP/1.1", b"\xef\xbb\xbfPOST %b HTTP/1.1"),
        b"POST %b" + b"x" * 70_000 + b" HTTP/1.1",
    )
    for first in firsts:
        yield f"first {first[:32]!r}", _request(LENGTH, first=first)
    yield "HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
    yield "TLS", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"a" * 100
    yield "a PROXY header", b"PROXY TCP4 1.1.1.1 2.2.2.2 1 2\r\n" + _request(LENGTH)
    yield "HTTP/0.9", b"GET %b\r\n"


def _pipelines() -> Iterator[tuple[str, bytes]]:
    """Several requests at once."""
    good = _request(LENGTH)
    closing = _request(LENGTH, b"Connection: close")
    chunked = _request(CHUNKED, body=CHUNKS)
    page = b"GET /-/nothing HTTP/1.1\r\nHost: x\r\n\r\n"
    bad = _request(LENGTH, LENGTH)
    yield "two", good + good
    yield "blank lines between two", good + b"\r\n\r\n" + good
    yield "a page between two", good + page + good
    yield "chunks, then a length", chunked + good
    yield "after closing", closing + HIDDEN
    yield "after a refusal", good + bad + HIDDEN
    yield "a body with GET", _request(LENGTH, first=b"GET %b HTTP/1.1") + good
    yield "a body too long", good + b"GET"
    yield "ten", good * 10
    yield (
        "a body that is a request",
        _request(b"Content-Length: %d" % len(HIDDEN), body=HIDDEN),
    )
    yield "HTTP/1.0, then more", _request(LENGTH, first=b"POST %b HTTP/1.0") + HIDDEN
    yield (
        "HTTP/1.0 kept alive",
        (_request(LENGTH, b"Connection: keep-alive", first=b"POST %b HTTP/1.0") + good),
    )


_KINDS: Mapping[str, Sequence[tuple[str, bytes]]] = {
    "lengths": [*_lengths()],
    "encodings": [*_encodings()],
    "chunks": [*_chunks()],
    "lines": [*_lines()],
    "first lines": [*_first_lines()],
    "pipelines": [*_pipelines()],
}


def _to(target: bytes, data: bytes) -> bytes:
    return data.replace(b"%%", b"%").replace(b"%b", target)


CASES: Sequence[Case] = [
    Case(f"{kind}: {name}, {target.decode()}", _to(target, data))
    for kind, named in _KINDS.items()
    for name, data in named
    for target in TARGETS
]
