"""Whatever is answered, in whatever pieces: the same comes of it as with treq."""

import gc
import sys
from collections.abc import Callable, Sequence
from gzip import compress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from abproxy.errors import ConnectionBroken, UpstreamBroken
from abproxy.http.messages import Response, UpstreamRequest
from abproxy.upstream.fast.response import (
    _LINES,
    LONGEST_LINE,
    MOST_LINES,
    PlainResponse,
    TwistedResponse,
    begin_response,
)
from support.recorded import Exchange, exchanges
from upstream.clients import Client, ask, fast, question, treq

POSTED = [each for each in exchanges() if each.method == "POST"]
BODY = b"[[1,2],[3,4]]"
PACKED = compress(BODY, mtime=0)


def chunked(body: bytes, size: int = 5) -> bytes:
    """Write *body* in chunks."""
    pieces = [body[at : at + size] for at in range(0, len(body), size)]
    chunks = b"".join(b"%x\r\n%b\r\n" % (len(each), each) for each in pieces)
    return chunks + b"0\r\n\r\n"


def head(*lines: bytes, status: bytes = b"HTTP/1.1 200 OK") -> bytes:
    """Write a head."""
    return b"\r\n".join([status, *lines, b"", b""])


LENGTH = b"content-length: %d" % len(BODY)
CHUNKED = b"transfer-encoding: chunked"
NAMED = head(LENGTH, b"Connection: x-hop, close", b"X-Hop: 1", b"X-End: 1")
ANSWERS = {
    "length": head(b"content-type: application/json", LENGTH) + BODY,
    "no body": head(b"Content-Length: 0"),
    "chunks": head(CHUNKED) + chunked(BODY),
    "chunks with more": head(CHUNKED) + b"5;a=b\r\n[[1,2\r\n0\r\nX-Trailer: 1\r\n\r\n",
    "until it closes": head(b"X-A: 1") + BODY,
    "until it closes, 1.0": head(status=b"HTTP/1.0 200 OK") + BODY,
    "1.0": head(LENGTH, status=b"HTTP/1.0 200 OK") + BODY,
    "no content": head(b"X-A: 1", status=b"HTTP/1.1 204 No Content"),
    "not modified": head(LENGTH, status=b"HTTP/1.1 304 Not Modified"),
    "no reason": head(LENGTH, status=b"HTTP/1.1 418") + BODY,
    "odd reason": head(LENGTH, status=b"HTTP/1.1 200 Very\tfine \xff") + BODY,
    "interim": head(status=b"HTTP/1.1 100 Continue") * 2 + head(LENGTH) + BODY,
    "hints": head(b"Link: x", status=b"HTTP/1.1 103 Early") + head(LENGTH) + BODY,
    "packed": head(b"content-encoding: gzip", b"content-length: %d" % len(PACKED))
    + PACKED,
    "packed otherwise": head(b"content-encoding: br", LENGTH) + BODY,
    "named": NAMED + BODY,
    "kept": head(LENGTH, b"Connection: Keep-Alive", b"Keep-Alive: timeout=5") + BODY,
    "grouped": head(b"Set-Cookie: a", b"x-a: 1", LENGTH, b"set-cookie: b") + BODY,
    "spelled": head(b"etag: 1", b"WWW-authenticate: x", b"x-a:", LENGTH) + BODY,
    "left out": head(b"TE: x", b"Trailers: 1", b"Host: h", b"Upgrade: 1", LENGTH)
    + BODY,
    "length twice": head(LENGTH, LENGTH) + BODY,
    "length twice in one": head(b"Content-Length: 13, 13") + BODY,
    "blanks": head(b"X-A: \t 1 \t", b"content-length:  13 ") + BODY,
    "folded": head(b"X-A: 1", b"  2", LENGTH) + BODY,
    "bare line feeds": b"HTTP/1.1 200 OK\nContent-Length: 13\n\n" + BODY,
    "bare carriage return": head(b"X-A: 1\r2", LENGTH) + BODY,
    "control characters": head(b"X-A: 1\x00\x0b2\xff", LENGTH) + BODY,
}
BROKEN = {
    "no http": b"SSH-2.0-OpenSSH\r\n",
    "two lengths": head(LENGTH, b"Content-Length: 12") + BODY,
    "no number": head(b"Content-Length: 1x") + BODY,
    "a number and none": head(LENGTH, b"Content-Length: 1x") + BODY,
    "no number and one": head(b"Content-Length: 1x", LENGTH) + BODY,
    "less than nothing": head(b"Content-Length: -1") + BODY,
    "a sign": head(b"Content-Length: +13") + BODY,
    "no colon": head(b"X-A", LENGTH) + BODY,
    "no name": head(b": 1", LENGTH) + BODY,
    "blank in a name": head(b"X-A : 1", LENGTH) + BODY,
    "status of two digits": head(LENGTH, status=b"HTTP/1.1 99 OK") + BODY,
    "status of zero": head(LENGTH, status=b"HTTP/1.1 099 OK") + BODY,
    "status of four digits": head(LENGTH, status=b"HTTP/1.1 1000 OK") + BODY,
    "status with a sign": head(LENGTH, status=b"HTTP/1.1 +20 OK") + BODY,
    "packed and cut": head(b"Content-Encoding: gzip", b"Content-Length: 9")
    + PACKED[:9],
    "two framings": head(LENGTH, CHUNKED) + chunked(BODY),
    "another protocol": head(b"Upgrade: x", status=b"HTTP/1.1 101 Switching"),
    "odd status": head(LENGTH, status=b"HTTP/1.1 2oo OK") + BODY,
    "other coding": head(b"Transfer-Encoding: gzip, chunked") + chunked(BODY),
    "odd chunk": head(CHUNKED) + b"5\r\n[[1,2x\r\n0\r\n\r\n",
    "odd chunk size": head(CHUNKED) + b"-5\r\n[[1,2\r\n0\r\n\r\n",
    "badly packed": head(b"Content-Encoding: gzip", LENGTH) + BODY,
    "endless line": b"HTTP/1.1 200 OK\r\nX-A: " + b"a" * 20_000,
}
ALL = ANSWERS | BROKEN


def _bytes(exchange: Exchange) -> bytes:
    lines = [
        f"{name}: {value}".encode()
        for name, value in exchange.reply_headers
        if name.lower() not in {"content-length", "transfer-encoding"}
    ]
    lines.append(b"content-length: %d" % len(exchange.reply_body))
    status = f"HTTP/1.1 {exchange.status} {exchange.reason}".encode()
    return head(*lines, status=status) + exchange.reply_body


@pytest.mark.parametrize("exchange", POSTED, ids=[each.name for each in POSTED])
def test_recorded_answers_are_the_same_replies(exchange: Exchange) -> None:
    """Status, reason, header lines and body."""
    answer = _bytes(exchange)
    size = len(answer)
    lines = [(name.encode(), value.encode()) for name, value in exchange.headers]
    request = question(*lines, path=exchange.path.encode(), body=exchange.body)

    ours = ask(fast(size=size), [answer], request)

    assert isinstance(ours, Response)
    assert ours.body == exchange.reply_body
    assert ours == ask(treq(size=size), [answer], request)


@pytest.mark.parametrize("ends", [False, True])
@pytest.mark.parametrize("name", ALL)
def test_answers_of_every_kind_are_the_same_replies(name: str, *, ends: bool) -> None:
    """Or the same errors, in the same words."""
    assert ask(fast(), [ALL[name]], ends=ends) == ask(treq(), [ALL[name]], ends=ends)


@pytest.mark.parametrize("name", ANSWERS)
def test_a_good_answer_is_a_reply(name: str) -> None:
    """So that both clients do not agree on nothing."""
    assert isinstance(ask(fast(), [ANSWERS[name]], ends=True), Response)


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_answer_is_a_broken_connection(name: str) -> None:
    """Which is closed, whatever else may come of it."""
    client = fast()

    kind, _ = ask(client, [BROKEN[name]], ends=True)

    assert kind is ConnectionBroken
    assert client.ends.last.is_given_up


@pytest.mark.parametrize("name", ALL)
def test_cut_anywhere_both_clients_say_the_same(name: str) -> None:
    """Half an answer is none, except where its end is the connection's."""
    answer = ALL[name][:200]
    cuts = [[answer[:at]] for at in range(len(answer))]

    ours = [ask(fast(), cut, ends=True) for cut in cuts]

    assert ours == [ask(treq(), cut, ends=True) for cut in cuts]


@pytest.mark.parametrize("name", ANSWERS)
def test_the_pieces_do_not_matter(name: str) -> None:
    """Every way to cut it in two, and byte by byte."""
    answer = ANSWERS[name]
    whole = ask(fast(), [answer], ends=True)
    ways = [[answer[:at], answer[at:]] for at in range(len(answer))]
    ways.append([answer[at : at + 1] for at in range(len(answer))])

    assert [ask(fast(), way, ends=True) for way in ways] == [whole] * len(ways)


def pieces(data: st.DataObject, answer: bytes) -> Sequence[bytes]:
    """Draw how *answer* is cut."""
    cuts = data.draw(st.lists(st.integers(0, len(answer)), max_size=4).map(sorted))
    ends = [*cuts, len(answer)]
    return [answer[a:b] for a, b in zip([0, *cuts], ends, strict=True)]


statuses = st.sampled_from(
    [b"HTTP/1.1 200 OK"] * 12
    + [b"HTTP/1.1 %d X" % code for code in (100, 103, 204, 304, 413, 500, 99, 2000)]
    + [b"HTTP/1.0 200 OK", b"HTTP/1.1 200", b"HTTP/1.1  200 OK", b"HTTP/2 200", b""]
)
good_lines = st.sampled_from(
    [
        b"Connection: keep-alive",
        b"connection: Keep-Alive",
        b"Keep-Alive: timeout=5",
        b"X-A: 1",
        b"x-a: 2 ",
        b"x-b:\t",
        b"etag: 3",
        b"TE: 4",
    ]
)
odd_lines = st.one_of(
    st.sampled_from(
        [
            LENGTH,
            CHUNKED,
            b"Content-Length: 5",
            b"Connection: close",
            b"Connection: keep-alive, x-a",
            b"Content-Encoding: identity",
            b"Content-Encoding:",
            b" folded",
            b"\x0bX-C: 1",
            b"X-\xc4: 1",
            b"no colon",
            b"",
        ]
    ),
    st.binary(max_size=6),
)
bodies = st.sampled_from(
    [
        (LENGTH, BODY),
        (b"CONTENT-LENGTH:13", BODY),
        (b"Content-Length: 13, 13", BODY),
        (LENGTH, BODY[:5]),
        (b"Content-Length: 0", b""),
        (CHUNKED, chunked(BODY)),
        (b"Transfer-Encoding: Chunked", chunked(BODY, 100)),
        (CHUNKED, BODY),
        (CHUNKED, chunked(BODY)[:-3]),
        (b"X-C: 1", BODY),
    ]
)
line_ends = st.sampled_from([b"\r\n"] * 9 + [b"\n", b"\r", b"\n\r"])


@st.composite
def answers(draw: st.DrawFn) -> bytes:
    """Draw an answer, good or bad."""
    framing, body = draw(bodies)
    lines = [framing, *draw(st.lists(good_lines, max_size=4))]
    lines += draw(st.lists(odd_lines, max_size=1))
    drawn = [draw(statuses), *draw(st.permutations(lines)), b"", b""]
    return draw(line_ends).join(drawn) + body


@settings(deadline=None)
@given(answer=answers(), ends=st.booleans(), data=st.data())
def test_whatever_is_answered_both_clients_agree(
    answer: bytes, *, ends: bool, data: st.DataObject
) -> None:
    """Also that they want none of what has two framings."""
    ours = ask(fast(), pieces(data, answer), ends=ends)

    theirs = ask(treq(), [answer], ends=ends)

    assert ours == theirs


@pytest.mark.parametrize("body", [chunked(BODY), BODY])
def test_a_length_and_chunks_together_are_neither(body: bytes) -> None:
    """Others on the way may have seen another end."""
    client = fast()

    kind, said = ask(client, [head(LENGTH, CHUNKED) + body])

    assert kind is ConnectionBroken
    assert "a length and chunks" in said
    assert client.ends.last.is_given_up
    assert (kind, said) == ask(treq(), [head(LENGTH, CHUNKED) + body])


def test_another_protocol_is_refused() -> None:
    """None was asked for."""
    client = fast()
    switching = head(b"Upgrade: x", status=b"HTTP/1.1 101 Switching Protocols")

    kind, said = ask(client, [switching])

    assert kind is ConnectionBroken
    assert "another protocol" in said
    assert client.ends.last.is_given_up
    assert (kind, said) == ask(treq(), [switching])


@pytest.mark.parametrize("make", [fast, treq])
def test_an_announced_answer_over_the_limit_is_not_waited_for(
    make: Callable[..., Client],
) -> None:
    """Its end might come as late as the deadline."""
    client = make(size=12)

    told = ask(client, [head(b"Content-Length: 999999999999") + b"[[1"])

    assert told == (UpstreamBroken, "the inference server's answer is over 12 bytes")
    assert client.ends.last.is_given_up


@pytest.mark.parametrize(
    "answer",
    [
        head(LENGTH) + BODY,
        head(CHUNKED) + chunked(BODY),
        head() + BODY,
        head(b"Content-Encoding: gzip", b"Content-Length: %d" % len(PACKED)) + PACKED,
    ],
)
def test_an_answer_over_the_limit_is_refused(answer: bytes) -> None:
    """However it is told where it ends, and however it is packed."""
    client = fast(size=12)

    told = ask(client, [answer])

    assert told == (UpstreamBroken, "the inference server's answer is over 12 bytes")
    assert told == ask(treq(size=12), [answer])
    assert client.ends.last.is_given_up


def test_an_answer_of_just_the_limit_is_taken() -> None:
    """The limit itself is allowed."""
    assert ask(fast(size=13), [head(LENGTH) + BODY]).body == BODY


def test_an_answer_that_is_too_long_is_not_waited_for() -> None:
    """Its head says enough."""
    kind, _ = ask(fast(size=12), [head(LENGTH)])

    assert kind is UpstreamBroken


@pytest.mark.parametrize("size", [1, 5000, 70_000])
def test_a_large_head_is_read_in_pieces_of_any_size(size: int) -> None:
    """A server may have much to say of itself."""
    lines = [b"X-%d: %b" % (number, b"a" * 1000) for number in range(64)]
    answer = head(*lines, LENGTH) + BODY
    pieces = [answer[at : at + size] for at in range(0, len(answer), size)]

    ours = ask(fast(), pieces)

    assert isinstance(ours, Response)
    assert len(ours.headers) == 64
    assert ours == ask(treq(), [answer])


@pytest.mark.parametrize("method", [b"HEAD", b"GET"])
def test_other_methods_are_answered_as_well(method: bytes) -> None:
    """An answer to HEAD has a length, but no body."""
    request: UpstreamRequest = question(method=method, body=b"")
    answer = head(LENGTH) + (BODY if method == b"GET" else b"")

    ours = ask(fast(), [answer], request)

    assert isinstance(ours, Response)
    assert ours == ask(treq(), [answer], request)


def test_what_is_remembered_of_lines_is_bounded() -> None:
    """Whatever a server has in them: ids that never repeat, and very long ones."""
    for number in range(2 * MOST_LINES):
        long = b"X-Long: %d%b" % (number, b"a" * LONGEST_LINE)
        ours = begin_response(
            b"POST", head(LENGTH, b"X-Id: %d" % number, long) + BODY, 1000
        )
        assert isinstance(ours, PlainResponse)
        assert ours.headers[0] == (b"X-Id", b"%d" % number)

    assert len(_LINES) <= MOST_LINES
    assert max(map(len, _LINES)) <= LONGEST_LINE


def test_an_answer_lets_go_of_what_it_has_given_away() -> None:
    """A body may be large, and garbage is looked for seldom."""
    answer = TwistedResponse(b"POST", 1000)
    gc.disable()
    try:
        reply = answer.receive(head(LENGTH, b"Connection: close") + BODY)
        del answer
        held = sys.getrefcount(reply) - 1  # the call itself holds it
    finally:
        gc.enable()

    assert reply is not None
    assert reply.body == BODY
    assert held == 1
