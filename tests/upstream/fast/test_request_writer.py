"""What is sent to the upstream: the same bytes as treq sends."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from abproxy.errors import ConnectionBroken
from abproxy.http.messages import UpstreamRequest
from abproxy.upstream.fast.client import HEADS, LONGEST_HEAD, RequestWriter
from upstream.clients import fast, question, treq

JSON = (b"Content-Type", b"application/json")
BASES = [
    "http://upstream",
    "http://upstream:80",
    "http://upstream:8080",
    "http://127.0.0.1:8080/prefix",
    "http://upstream//a",
    "https://upstream",
    "https://upstream:443",
    "https://upstream:80",
]

# treq loses a question mark that nothing follows; ours keeps it.
paths = (
    st.text("ab/.~!$&'()*+,;=:@?%20F", max_size=12)
    .map(lambda text: b"/" + text.encode())
    .filter(lambda path: not path.endswith(b"?"))
)
names = st.sampled_from(
    [
        b"authorization",
        b"X-A",
        b"x-a",
        b"COOKIE",
        b"Accept-Encoding",
        b"etag",
        b"User-Agent",
    ]
)
values = st.sampled_from([b"", b"1", b" 1 2 ", b"Bearer k", b"a=1; b=2", b"\xff\t"])
requests = st.builds(
    question,
    st.tuples(names, values),
    st.tuples(names, values),
    st.tuples(names, values),
    path=paths,
    method=st.sampled_from([b"POST", b"POST", b"GET", b"HEAD", b"PUT", b"DELETE"]),
    body=st.sampled_from([b"", b"{}", b'{"inputs":["a"]}']),
)


@given(base_url=st.sampled_from(BASES), request=requests)
@example(base_url=BASES[0], request=question(JSON, path=b"/embed?truncate=true"))
@example(base_url=BASES[3], request=question(JSON, path=b"//a;b?c=;%zz"))
@example(base_url=BASES[4], request=question(body=b""))
def test_the_bytes_are_those_that_treq_sends(
    base_url: str, request: UpstreamRequest
) -> None:
    """Request line, lines in their order and spelling, length and body."""
    ours, theirs = fast(base_url), treq(base_url)

    asked = ours.send(request), theirs.send(request)

    assert ours.ends.last.asked() == theirs.ends.last.asked()
    [one.reply.cancel() for one in asked]


@pytest.mark.parametrize(
    ("base_url", "host"),
    [
        ("http://[::1]", b"[::1]"),
        ("http://[::1]:8080", b"[::1]:8080"),
        ("http://my_server:8080", b"my_server:8080"),
        ("http://UpStream:80", b"UpStream"),
    ],
)
def test_hosts_that_treq_cannot_spell_are_spelled(base_url: str, host: bytes) -> None:
    """As Twisted's agent does for requests that are relayed."""
    written = RequestWriter(base_url).write(question())

    assert b"\r\nHost: %b\r\n\r\n" % host in written


def test_a_target_is_sent_to_the_letter() -> None:
    """As it is when a request is relayed; treq would write some of it otherwise."""
    written = RequestWriter("http://upstream").write(question(path=b"//a|b?{c}"))

    assert written.startswith(b"POST //a|b?{c} HTTP/1.1\r\n")


def test_a_batch_looks_like_this() -> None:
    """An example says more."""
    client = fast("http://upstream:8080/tei")

    asked = client.send(question(JSON, (b"x-a", b"1"), body=b'{"inputs":"a"}'))

    assert client.ends.last.asked() == (
        b"POST /tei/embed HTTP/1.1\r\n"
        b"Content-Length: 14\r\n"
        b"Content-Type: application/json\r\n"
        b"X-A: 1\r\n"
        b"Host: upstream:8080\r\n"
        b"\r\n"
        b'{"inputs":"a"}'
    )
    asked.reply.cancel()


@pytest.mark.parametrize(
    "line",
    [(b"X-A", b"1\r\nX-Evil: 1"), (b"X-A", b"1\nX-Evil: 1"), (b"X-A", b"1\rX-Evil: 1")],
)
def test_a_value_cannot_smuggle_a_line_in(line: tuple[bytes, bytes]) -> None:
    """It stays on its line."""
    assert b"X-A: 1 X-Evil: 1\r\n" in RequestWriter("http://upstream").write(
        question(line)
    )


@pytest.mark.parametrize(
    "bad",
    [
        question((b"X A", b"1")),
        question((b"X-A: 1\r\nX-Evil", b"1")),
        question(path=b"/\xff"),
        question(method=b"GET /evil HTTP/1.1\r\n"),
    ],
)
def test_what_is_no_http_is_not_sent(bad: UpstreamRequest) -> None:
    """The door lets none of that in; but who knows."""
    client = fast()

    asked = client.send(bad)

    assert type(asked.error) is ConnectionBroken
    assert client.ends.all == []


def test_lengths_and_credentials_are_not_mixed_up() -> None:
    """What is remembered of a head is what it has in common with the next."""
    questions = RequestWriter("http://upstream")

    first = questions.write(question((b"X-A", b"1"), body=b"1"))
    other = questions.write(question((b"X-A", b"2"), body=b"22"))
    again = questions.write(question((b"X-A", b"1"), body=b"333"))

    assert b"Content-Length: 1\r\nX-A: 1\r\n" in first
    assert b"Content-Length: 2\r\nX-A: 2\r\n" in other
    assert b"Content-Length: 3\r\nX-A: 1\r\n" in again


def test_not_all_heads_are_remembered() -> None:
    """Clients may send what they like for ever."""
    questions = RequestWriter("http://upstream")

    written = [
        questions.write(question((b"X-A", b"%d" % number)))
        for number in range(HEADS + 10)
    ]

    assert len(set(written)) == HEADS + 10
    assert len(questions._heads) <= HEADS


def test_a_long_head_is_not_remembered() -> None:
    """Clients decide how long theirs are."""
    questions = RequestWriter("http://upstream")

    written = questions.write(question((b"X-A", b"a" * LONGEST_HEAD)))

    assert b"a" * LONGEST_HEAD in written
    assert not questions._heads
