"""The fast path: which calls take it, and that no client can tell."""

import json
from typing import Any

import pytest
from attrs import define, evolve, field
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.address import IPv4Address
from twisted.web.resource import Resource

from abproxy.events import Observer, RequestInfo
from abproxy.http.headers import Credentials
from abproxy.web.auth import ApiKeys
from abproxy.web.calls import CallReader
from abproxy.web.channel import IDLE_S
from abproxy.web.fast.connection import AHEAD, LARGEST_BODY
from abproxy.web.fast.heads import LONGEST
from abproxy.web.fast.request import MOST_BYTES, MOST_HEADS, FastRequest
from support.client import Client
from support.proxy import InMemoryProxy, in_memory_proxy
from support.upstream import HeldUpstream


@define(eq=False)
class Ways(Observer):
    """Notes which requests took the fast path, and how they ended."""

    ways: list[bool] = field(factory=list)
    ends: list[tuple[int, bool]] = field(factory=list)

    def request_began(self, request: RequestInfo) -> None:
        """Note whether a request takes the fast path."""
        self.ways.append(isinstance(request, FastRequest))

    def request_ended(self, request: RequestInfo, *, gone: bool) -> None:
        """Note its status, and whether the client had gone."""
        self.ends.append((request.status, gone))


@define(eq=False)
class Pair:
    """A proxy, its upstream and an observer."""

    upstream: HeldUpstream = field(factory=HeldUpstream)
    observer: Ways = field(factory=Ways)
    proxy: InMemoryProxy = field(init=False)
    options: dict[str, Any] = field(factory=dict)

    def __attrs_post_init__(self) -> None:
        """Put the proxy together."""
        self.proxy = in_memory_proxy(self.upstream, **self.options)
        self.proxy.site.observer = self.observer

    def answer(self) -> None:
        """Answer all calls that wait, and those that are sent because of it."""
        self.proxy.flush()
        at = len(self.upstream.bodies) - len(self._unanswered())
        while at < len(self.upstream.bodies):
            inputs = json.loads(self.upstream.bodies[at])["inputs"]
            self.upstream.answer(at, _rows(inputs))
            self.proxy.flush()
            at += 1

    def _unanswered(self) -> list[Any]:
        return [each for each in self.upstream.requests if not each.finished]

    def asked(self) -> list[str]:
        """Return all inputs that came to the upstream, in order."""
        bodies = map(json.loads, self.upstream.bodies)
        return [text for body in bodies for text in body["inputs"]]


def fast_path_of(here: Pair) -> Any:
    """Return what its connections know of heads."""
    site: Any = here.proxy.site
    return site.fast_path


def _rows(inputs: list[str]) -> bytes:
    return json.dumps([[len(text), ord(text[0])] for text in inputs]).encode()


def call(*texts: str, **lines: str) -> bytes:
    """Write a plain call with more header lines."""
    body = json.dumps({"inputs": texts}).encode()
    more = "".join(f"{name.replace('_', '-')}: {it}\r\n" for name, it in lines.items())
    head = (
        "POST /embed HTTP/1.1\r\nHost: proxy\r\nContent-Type: application/json\r\n"
        f"{more}Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def bodies(client: Client) -> list[Any]:
    """Return the answers that a client has so far."""
    return [answer.json for answer in client.answers()]


def test_a_plain_call_takes_the_fast_path() -> None:
    """It is answered and watched as any other."""
    here = Pair()
    client = here.proxy.connect()

    client.send(call("ab"))
    here.answer()

    assert bodies(client) == [[[2, 97]]]
    assert here.observer.ways == [True]
    assert here.observer.ends == [(200, False)]


def test_calls_on_the_fast_path_and_others_share_a_batch() -> None:
    """The path by which a call came makes no difference afterwards."""
    here = Pair(options={"max_wait_ms": 1000})
    fast, other = here.proxy.connect(), here.proxy.connect()

    fast.send(call("a"))
    other.send(call("b").replace(b"Host: ", b"Host:"))
    here.proxy.clock.advance(1)
    here.answer()

    assert here.observer.ways == [True, False]
    assert [json.loads(body)["inputs"] for body in here.upstream.bodies] == [["a", "b"]]
    assert (bodies(fast), bodies(other)) == ([[[1, 97]]], [[[1, 98]]])


@pytest.mark.parametrize(
    "raw",
    [
        call("a", Connection="close"),
        call("a", Transfer_Encoding="identity"),
        call("a", Expect="100-continue"),
        call("a").replace(b"HTTP/1.1", b"HTTP/1.0"),
        call("a").replace(b"/json", b"/x-www-form-urlencoded"),
        call("a").replace(b'["a"]', b'[""] '),
        call("a").replace(b"/embed", b"/rerank"),
        call("x" * LARGEST_BODY),
    ],
    ids=lambda raw: repr(raw[-60:]),
)
def test_whatever_is_special_takes_the_ordinary_path(raw: bytes) -> None:
    """And is answered there."""
    here = Pair()
    client = here.proxy.connect()

    client.send(raw)
    here.proxy.flush()
    here.upstream.answer(0, b"[[1]]")
    here.proxy.flush()

    assert here.observer.ways == [False]
    [answer] = client.answers()
    assert answer.json == [[1]]


def test_a_connection_changes_paths_from_request_to_request() -> None:
    """As often as it likes."""
    here = Pair()
    client = here.proxy.connect()

    for each in ("a", "b", "c", "d"):
        client.send(call(each, **({"Expect": "x"} if each in "bd" else {})))
        here.answer()

    assert here.observer.ways == [True, False, True, False]
    assert [rows[0][1] for rows in bodies(client)] == [97, 98, 99, 100]


@given(st.data())
def test_however_bytes_arrive_the_answers_are_the_same(data: st.DataObject) -> None:
    """Requests may come in pieces, several at once, and of both kinds in turn."""
    lines = st.sampled_from([{}, {}, {"Expect": "x"}, {"Connection": "keep-alive"}])
    drawn = data.draw(st.lists(lines, min_size=1, max_size=5))
    raw = b"".join(call(chr(97 + at), **more) for at, more in enumerate(drawn))
    cuts = sorted(data.draw(st.sets(st.integers(1, len(raw) - 1), max_size=9)))
    here = Pair()
    client = here.proxy.connect()

    for start, end in zip([0, *cuts], [*cuts, len(raw)], strict=True):
        client.send(raw[start:end])
    here.answer()

    codes = [rows[0][1] for rows in bodies(client)]
    assert codes == [97 + at for at in range(len(drawn))]
    assert here.asked() == [chr(code) for code in codes]
    assert here.observer.ends == [(200, False)] * len(drawn)
    client.leave()


@pytest.mark.parametrize("at", range(1, len(call("ab"))))
def test_a_call_may_break_at_any_byte(at: int) -> None:
    """Its answer is the same, whichever path it takes in the end."""
    here = Pair()
    client = here.proxy.connect()

    client.send(call("ab")[:at])
    client.send(call("ab")[at:])
    here.answer()

    assert bodies(client) == [[[2, 97]]]


def test_pipelined_calls_are_answered_in_their_order() -> None:
    """The next one is not even sent on before the one before is answered."""
    here = Pair()
    client = here.proxy.connect()

    client.send(call("a") + call("b") + call("c"))
    here.proxy.flush()
    early = here.asked()
    here.answer()

    assert early == ["a"]
    assert [rows[0][1] for rows in bodies(client)] == [97, 98, 99]


def test_a_client_that_sends_far_ahead_is_not_read_from() -> None:
    """Until the answers have caught up."""
    here = Pair()
    client = here.proxy.connect()

    client.send(call("a"))
    client.send(call("b" * AHEAD) + call("c"))
    paused = client.transport.producerState
    here.answer()

    assert paused == "paused"
    assert client.transport.producerState == "producing"
    assert len(bodies(client)) == 3


def test_a_client_that_does_not_read_answers_is_not_served_more() -> None:
    """There would be no end to the answers that wait to be read."""
    here = Pair()
    client = here.proxy.connect()
    client.send(call("a") + call("b"))
    here.proxy.flush()

    client.channel.pauseProducing()
    here.answer()
    early = here.asked()
    client.channel.resumeProducing()
    here.answer()

    assert early == ["a"]
    assert here.asked() == ["a", "b"]
    assert len(bodies(client)) == 2


def test_the_call_of_a_client_that_disconnects_is_cancelled() -> None:
    """The call beside it is answered as if there had been no other."""
    here = Pair(options={"max_wait_ms": 1000})
    gone, other = here.proxy.connect(), here.proxy.connect()
    gone.send(call("a"))
    other.send(call("b"))

    gone.leave()
    here.proxy.clock.advance(1)
    here.answer()

    assert here.asked() == ["b"]
    assert bodies(other) == [[[1, 98]]]
    assert here.observer.ends == [(0, True), (200, False)]


def test_a_client_that_disconnects_in_the_middle_of_a_call_leaves_nothing() -> None:
    """Neither a request nor a connection is remembered."""
    here = Pair()
    client = here.proxy.connect()
    client.send(call("a")[:-3])

    client.leave()

    assert not here.observer.ways
    assert not here.proxy.site.channels


def test_a_drain_answers_the_call_and_closes_the_connection() -> None:
    """The client is told that it was the last."""
    here = Pair()
    client = here.proxy.connect()
    client.send(call("a"))
    here.proxy.flush()

    drained: list[None] = []
    here.proxy.site.drain().addCallback(drained.append)
    here.answer()
    client.send(call("b"))
    here.proxy.clock.advance(0)

    [answer] = client.answers()
    assert answer.header("Connection") == "close"
    assert not client.transport.connected
    assert drained == [None]
    assert here.asked() == ["a"]


def test_a_call_that_cannot_wait_is_refused_in_the_same_words() -> None:
    """Both paths say what is wrong, and when to try again."""
    refusals = []
    for is_fast in (True, False):
        here = Pair(options={"max_waiting_inputs": 1, "slots": 1, "is_fast": is_fast})
        clients = [here.proxy.connect() for _ in range(3)]
        for client in clients:
            client.send(call("a", X_Request_Id="mine"))
            here.proxy.clock.advance(0)
        refusals.append(clients[2].transport.value())
        here.answer()

    ours, theirs = (_without_date(each) for each in refusals)
    assert b"429 Too Many Requests" in ours
    assert b"X-Request-Id: mine" in ours
    assert ours == theirs


def _without_date(raw: bytes) -> bytes:
    return b"\r\n".join(
        line for line in raw.split(b"\r\n") if not line.startswith(b"Date: ")
    )


class Broken:
    """Has a bug in everything."""

    def takes(self, _items: object) -> bool:
        """Accept everything."""
        return True

    def submit(self, *_: object) -> None:
        """Raise."""
        raise RuntimeError

    answer = submit


def test_a_bug_is_answered_and_logged(nothing_leaked: list[object]) -> None:
    """The connection goes on."""
    here = Pair()
    client = here.proxy.connect()
    submit = here.proxy.served.compute
    here.proxy.serve(compute=Broken().submit)
    client.send(call("a"))
    here.proxy.serve(compute=submit)
    client.send(call("b"))
    here.answer()

    assert [answer.status for answer in client.answers()] == [500, 200]
    assert len(nothing_leaked) == 1
    nothing_leaked.clear()


def test_a_bug_that_is_met_before_a_call_is_one_is_met_on_the_ordinary_path(
    nothing_leaked: list[object],
) -> None:
    """It is logged once, and the client gets an answer."""
    here = Pair()
    client = here.proxy.connect()
    here.proxy.serve(reader=evolve(here.proxy.served.reader, takes=Broken().submit))

    client.send(call("a"))

    assert here.observer.ways == [False]
    assert [answer.status for answer in client.answers()] == [500]
    assert len(nothing_leaked) == 1
    nothing_leaked.clear()


def test_an_answer_that_cannot_be_written_is_an_error_of_ours(
    nothing_leaked: list[object],
) -> None:
    """The client does not wait for ever."""
    here = Pair()
    client = here.proxy.connect()
    fast_path = fast_path_of(here)
    fast_path.encoder = Broken()

    client.send(call("a"))
    here.answer()

    assert [answer.status for answer in client.answers()] == [500]
    assert len(nothing_leaked) == 1
    nothing_leaked.clear()


def test_a_call_that_arrives_too_slowly_is_told_so() -> None:
    """In the words of its own route, and with its own request id."""
    here = Pair()
    client = here.proxy.connect()

    client.send(call("a", X_Request_Id="mine")[:-3])
    here.proxy.clock.pump([1] * 61)

    [answer] = client.answers()
    assert answer.status == 408
    assert answer.header("X-Request-Id") == "mine"
    client.leave()


def test_a_quiet_connection_is_closed_without_a_word() -> None:
    """After a while in which a client might have come back."""
    here = Pair()
    client = here.proxy.connect()
    client.send(call("a"))
    here.answer()
    got = client.transport.value()

    here.proxy.clock.pump([1] * (IDLE_S - 1))
    is_open = client.transport.connected
    here.proxy.clock.pump([1] * 2)

    assert is_open
    assert not client.transport.connected
    assert client.transport.value() == got
    client.leave()


def test_a_client_after_a_quiet_time_may_be_quiet_as_long_as_others() -> None:
    """Without connections there is no check that would note the time."""
    here = Pair()
    here.proxy.connect().leave()
    here.proxy.clock.advance(10 * IDLE_S)

    client = here.proxy.connect()
    here.proxy.clock.pump([1] * (IDLE_S - 1))

    assert client.transport.connected
    client.leave()


def test_new_keys_count_for_the_next_call_on_an_open_connection() -> None:
    """What a head was understood to be is forgotten with the old ones."""
    here = Pair()
    client = here.proxy.connect()
    client.send(call("a"))
    here.answer()

    app = here.proxy.app
    app.policy = evolve(app.policy, keys=ApiKeys(accepted=("sesame",)))
    client.send(call("b"))
    client.send(call("c", Authorization="Bearer sesame"))
    here.answer()

    assert [answer.status for answer in client.answers()] == [200, 401, 200]
    assert here.asked() == ["a", "c"]


@pytest.mark.parametrize("texts", [["a"], ["a" * 10], ["a" * 3000, "b"]])
def test_a_head_is_known_again_with_any_length(texts: list[str]) -> None:
    """The next call of a client is seldom as long as the last."""
    here = Pair()
    client = here.proxy.connect()
    client.send(call("first"))
    here.answer()
    fast_path = fast_path_of(here)
    fast_path._heads.clear()

    client.send(call(*texts))
    here.answer()

    assert here.observer.ways == [True, True]
    assert fast_path._heads == {}
    assert bodies(client)[1] == [[len(text), ord(text[0])] for text in texts]


@pytest.mark.parametrize(
    "length", [b"019", b"+19", b" 19", b"19 ", b"1_9", b"0000000019", b"", b"-1", b"x"]
)
def test_a_head_is_not_known_again_by_an_odd_length(length: bytes) -> None:
    """Whatever is no plain number is left to Twisted, which knows all of HTTP."""
    here = Pair()
    client = here.proxy.connect()
    client.send(call("a"))
    here.answer()

    client.send(call("abc").replace(b": 19", b": " + length))
    here.answer()

    assert here.observer.ways[1:] in ([], [False])


def test_a_path_may_come_to_mean_something_else() -> None:
    """The model behind `/` is another after a restart."""
    here = Pair()
    credentials = Credentials()
    known = CallReader(credentials=credentials, task="embedding")
    here.proxy.serve(reader=known)
    client = here.proxy.connect()
    client.send(call("a").replace(b"/embed", b"/"))
    here.answer()

    known = CallReader(credentials=credentials, task="reranker")
    here.proxy.serve(reader=known)
    client.send(call("b").replace(b"/embed", b"/"))
    here.answer()

    assert here.observer.ways == [True, False]
    assert len(bodies(client)) == 2


def test_heads_that_never_repeat_leave_no_memory_behind() -> None:
    """Every request may have an id of its own."""
    here = Pair()
    fast_path = fast_path_of(here)

    def look(name: int) -> int:
        fast_path.find(call("a", X_Request_Id=str(name)))
        return len(fast_path._heads)

    assert max(map(look, range(MOST_HEADS + 10))) == MOST_HEADS


@pytest.mark.parametrize(
    "length", [b"", b"0", b"07", b"+7", b" 7", b"1_0", b"7 ", b"7x", b"\xb2", b"1" * 10]
)
def test_a_length_is_no_more_plain_after_the_same_head(length: bytes) -> None:
    """What is compared with the head before is read as strictly as the first."""
    fast_path = fast_path_of(Pair())
    plain = call("a")
    known = fast_path.find(plain)
    assert known is not None
    before, after = known[0].before, known[0].after

    assert fast_path.find(before + b"17" + after + b"x" * 17, known[0]) == (
        known[0],
        len(before + b"17" + after),
        len(before + b"17" + after) + 17,
    )
    assert fast_path.find(before + length + after + b"x" * 17, known[0]) is None


def test_long_heads_are_remembered_up_to_a_number_of_bytes() -> None:
    """Each may be as long as 8 kB, and no key is needed to send one."""
    here = Pair()
    fast_path = fast_path_of(here)

    def look(name: int) -> int:
        fast_path.find(call("a", X_Long=f"{name}{'x' * 7000}"))
        return sum(map(len, fast_path._heads))

    assert max(map(look, range(MOST_HEADS))) < MOST_BYTES + LONGEST


@pytest.mark.parametrize(("size", "is_kept"), [(100, True), (100_000, False)])
def test_long_options_are_forgotten_with_their_call(
    size: int,
    is_kept: bool,  # noqa: FBT001
) -> None:
    """They may be as long as a body, and there are many heads to keep one each."""
    here = Pair()
    client = here.proxy.connect()

    body = '{"inputs":["a"],"x":"%s"}' % ("y" * size)
    client.embed(body.encode())
    here.answer()

    [head] = fast_path_of(here)._heads.values()
    assert head is not None
    kept = [head.call_head._lane, *here.proxy.served.reader._last.values()]
    assert any(kept) == is_kept


def test_two_clients_with_the_same_head_are_told_apart() -> None:
    """By their addresses, where they show no key."""
    here = Pair(options={"rate_limit": 1.0})
    one, other = here.proxy.connect(), here.proxy.connect()
    other.transport.peerAddr = IPv4Address("TCP", "10.0.0.9", 1)

    one.send(call("a", "b", "c"))
    here.answer()
    one.send(call("d"))
    other.send(call("e"))
    here.answer()

    assert [answer.status for answer in one.answers()] == [200, 429]
    assert [answer.status for answer in other.answers()] == [200]


def test_a_body_behind_an_answered_request_is_not_taken_for_a_call() -> None:
    """Twisted had begun to read its request when it answered the one before."""
    here = Pair()
    client = here.proxy.connect()
    body = call("a")

    client.send(
        b"GET /-/nothing HTTP/1.1\r\nHost: proxy\r\n\r\n"
        b"POST /other HTTP/1.1\r\nHost: proxy\r\nContent-Length: %d\r\n\r\n" % len(body)
    )
    client.send(body)
    here.proxy.flush()

    assert here.observer.ways == [False, False]
    assert here.upstream.bodies == [body]
    client.leave()


def test_a_call_that_still_arrives_is_waited_for_while_draining() -> None:
    """It was half sent when SIGTERM came: it is accepted, and answered."""
    here = Pair()
    client = here.proxy.connect()
    client.send(call("a")[:-3])

    here.proxy.site.drain()
    here.proxy.clock.pump([1, 1])
    client.send(call("a")[-3:])
    here.answer()
    here.proxy.clock.advance(0)

    [answer] = client.answers()
    assert answer.header("Connection") == "close"
    assert not client.transport.connected


def test_a_surplus_connection_is_told_so() -> None:
    """The fast path is no way around the limit."""
    proxy = in_memory_proxy(Resource(), max_connections=1)
    proxy.connect()
    surplus = proxy.connect()

    surplus.send(call("a"))

    [answer] = surplus.answers()
    assert answer.status == 429
    for client in proxy.clients:
        client.leave()
