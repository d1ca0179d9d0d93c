"""The fast path: which calls take it, and that no client can tell."""

import json
from typing import Any

import pytest
from attrs import define, evolve, field
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.address import IPv4Address
from twisted.web.resource import Resource
from webdoubles import Client, InMemoryProxy, Upstream, in_memory_proxy

from abproxy.events import Observer, RequestInfo
from abproxy.http.headers import Credentials
from abproxy.web.auth import ApiKeys
from abproxy.web.calls import CallReader
from abproxy.web.fast.connection import AHEAD, LARGEST_BODY
from abproxy.web.fast.request import MOST_HEADS, FastRequest
from abproxy.web.server import IDLE_S


@define(eq=False)
class Gatekeeper(Observer):
    """Notes which requests took the fast path, and how they ended."""

    ways: list[bool] = field(factory=list)
    ends: list[tuple[int, bool]] = field(factory=list)

    def request_began(self, request: RequestInfo) -> None:
        """Note which way a request takes."""
        self.ways.append(isinstance(request, FastRequest))

    def request_ended(self, request: RequestInfo, *, gone: bool) -> None:
        """Note its status, and whether the client had gone."""
        self.ends.append((request.status, gone))


@define(eq=False)
class Pair:
    """A proxy, its upstream and somebody at the gate."""

    upstream: Upstream = field(factory=Upstream)
    keeper: Gatekeeper = field(factory=Gatekeeper)
    proxy: InMemoryProxy = field(init=False)
    options: dict[str, Any] = field(factory=dict)

    def __attrs_post_init__(self) -> None:
        """Open."""
        self.proxy = in_memory_proxy(self.upstream, **self.options)
        self.proxy.site.observer = self.keeper

    def answer(self) -> None:
        """Answer everybody who waits, and who comes by that."""
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
        """All inputs that came to the upstream, in order."""
        bodies = map(json.loads, self.upstream.bodies)
        return [text for body in bodies for text in body["inputs"]]


def fast_path_of(door: Pair) -> Any:
    """Return what its connections know of heads."""
    site: Any = door.proxy.site
    return site.fast_path


def _rows(inputs: list[str]) -> bytes:
    return json.dumps([[len(text), ord(text[0])] for text in inputs]).encode()


def call(*texts: str, **lines: str) -> bytes:
    """Write a plain call with more header lines."""
    body = json.dumps({"inputs": texts}).encode()
    more = "".join(f"{name.replace('_', '-')}: {it}\r\n" for name, it in lines.items())
    head = (
        "POST /embed HTTP/1.1\r\nHost: door\r\nContent-Type: application/json\r\n"
        f"{more}Content-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


def bodies(client: Client) -> list[Any]:
    """What a client has got so far."""
    return [answer.json for answer in client.answers()]


def test_a_plain_call_takes_the_fast_path() -> None:
    """It is answered and watched as any other."""
    door = Pair()
    client = door.proxy.connect()

    client.send(call("ab"))
    door.answer()

    assert bodies(client) == [[[2, 97]]]
    assert door.keeper.ways == [True]
    assert door.keeper.ends == [(200, False)]


def test_calls_on_the_fast_path_and_others_share_a_batch() -> None:
    """Which way somebody came makes no difference afterwards."""
    door = Pair(options={"max_wait_s": 1})
    fast, other = door.proxy.connect(), door.proxy.connect()

    fast.send(call("a"))
    other.send(call("b").replace(b"Host: ", b"Host:"))
    door.proxy.clock.advance(1)
    door.answer()

    assert door.keeper.ways == [True, False]
    assert [json.loads(body)["inputs"] for body in door.upstream.bodies] == [["a", "b"]]
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
def test_whatever_is_special_takes_the_other_way(raw: bytes) -> None:
    """And is answered there."""
    door = Pair()
    client = door.proxy.connect()

    client.send(raw)
    door.proxy.flush()
    door.upstream.answer(0, b"[[1]]")
    door.proxy.flush()

    assert door.keeper.ways == [False]
    [answer] = client.answers()
    assert answer.json == [[1]]


def test_a_connection_changes_ways_from_request_to_request() -> None:
    """As often as it likes."""
    door = Pair()
    client = door.proxy.connect()

    for each in ("a", "b", "c", "d"):
        client.send(call(each, **({"Expect": "x"} if each in "bd" else {})))
        door.answer()

    assert door.keeper.ways == [True, False, True, False]
    assert [rows[0][1] for rows in bodies(client)] == [97, 98, 99, 100]


@given(st.data())
def test_however_bytes_arrive_the_answers_are_the_same(data: st.DataObject) -> None:
    """Requests may come in pieces, several at once, and of both kinds in turn."""
    lines = st.sampled_from([{}, {}, {"Expect": "x"}, {"Connection": "keep-alive"}])
    drawn = data.draw(st.lists(lines, min_size=1, max_size=5))
    raw = b"".join(call(chr(97 + at), **more) for at, more in enumerate(drawn))
    cuts = sorted(data.draw(st.sets(st.integers(1, len(raw) - 1), max_size=9)))
    door = Pair()
    client = door.proxy.connect()

    for start, end in zip([0, *cuts], [*cuts, len(raw)], strict=True):
        client.send(raw[start:end])
    door.answer()

    codes = [rows[0][1] for rows in bodies(client)]
    assert codes == [97 + at for at in range(len(drawn))]
    assert door.asked() == [chr(code) for code in codes]
    assert door.keeper.ends == [(200, False)] * len(drawn)
    client.leave()


@pytest.mark.parametrize("at", range(1, len(call("ab"))))
def test_a_call_may_break_at_any_byte(at: int) -> None:
    """Its answer is the same, whichever way it ends up on."""
    door = Pair()
    client = door.proxy.connect()

    client.send(call("ab")[:at])
    client.send(call("ab")[at:])
    door.answer()

    assert bodies(client) == [[[2, 97]]]


def test_pipelined_calls_are_answered_in_their_order() -> None:
    """The next one does not even leave before the one before is answered."""
    door = Pair()
    client = door.proxy.connect()

    client.send(call("a") + call("b") + call("c"))
    door.proxy.flush()
    early = door.asked()
    door.answer()

    assert early == ["a"]
    assert [rows[0][1] for rows in bodies(client)] == [97, 98, 99]


def test_who_sends_far_ahead_is_not_read_from() -> None:
    """Until the answers have caught up."""
    door = Pair()
    client = door.proxy.connect()

    client.send(call("a"))
    client.send(call("b" * AHEAD) + call("c"))
    paused = client.transport.producerState
    door.answer()

    assert paused == "paused"
    assert client.transport.producerState == "producing"
    assert len(bodies(client)) == 3


def test_who_does_not_read_answers_is_not_served_more() -> None:
    """What waits for them would have no end."""
    door = Pair()
    client = door.proxy.connect()
    client.send(call("a") + call("b"))
    door.proxy.flush()

    client.channel.pauseProducing()
    door.answer()
    early = door.asked()
    client.channel.resumeProducing()
    door.answer()

    assert early == ["a"]
    assert door.asked() == ["a", "b"]
    assert len(bodies(client)) == 2


def test_a_client_that_leaves_takes_its_call_along() -> None:
    """Its neighbour is answered as if nobody had been there."""
    door = Pair(options={"max_wait_s": 1})
    leaver, neighbour = door.proxy.connect(), door.proxy.connect()
    leaver.send(call("a"))
    neighbour.send(call("b"))

    leaver.leave()
    door.proxy.clock.advance(1)
    door.answer()

    assert door.asked() == ["b"]
    assert bodies(neighbour) == [[[1, 98]]]
    assert door.keeper.ends == [(0, True), (200, False)]


def test_a_client_that_leaves_in_the_middle_of_a_call_leaves_nothing() -> None:
    """Neither a request nor a connection is remembered."""
    door = Pair()
    client = door.proxy.connect()
    client.send(call("a")[:-3])

    client.leave()

    assert not door.keeper.ways
    assert not door.proxy.site.channels


def test_a_drain_answers_the_call_and_closes_the_connection() -> None:
    """The client is told that it was the last."""
    door = Pair()
    client = door.proxy.connect()
    client.send(call("a"))
    door.proxy.flush()

    drained: list[None] = []
    door.proxy.site.drain().addCallback(drained.append)
    door.answer()
    client.send(call("b"))
    door.proxy.clock.advance(0)

    [answer] = client.answers()
    assert answer.header("Connection") == "close"
    assert not client.transport.connected
    assert drained == [None]
    assert door.asked() == ["a"]


def test_a_call_that_cannot_wait_is_refused_in_the_same_words() -> None:
    """Both doors say what is wrong, and when to come back."""
    refusals = []
    for is_fast in (True, False):
        door = Pair(options={"max_waiting_items": 1, "slots": 1, "is_fast": is_fast})
        clients = [door.proxy.connect() for _ in range(3)]
        for client in clients:
            client.send(call("a", X_Request_Id="mine"))
            door.proxy.clock.advance(0)
        refusals.append(clients[2].transport.value())
        door.answer()

    ours, theirs = (_without_date(each) for each in refusals)
    assert b"429 Too Many Requests" in ours
    assert b"X-Request-Id: mine" in ours
    assert ours == theirs


def _without_date(raw: bytes) -> bytes:
    return b"\r\n".join(
        line for line in raw.split(b"\r\n") if not line.startswith(b"Date: ")
    )


class Broken:
    """Has a bug wherever one looks."""

    def takes(self, _items: object) -> bool:
        """Take everything in."""
        return True

    def submit(self, *_: object) -> None:
        """Break down."""
        raise RuntimeError

    answer = submit


def test_a_bug_is_answered_and_logged(nothing_leaked: list[object]) -> None:
    """The connection goes on."""
    door = Pair()
    client = door.proxy.connect()
    broken: Any = Broken()

    door.proxy.app.collector = broken
    client.send(call("a"))
    door.proxy.app.collector = door.proxy.collector
    client.send(call("b"))
    door.answer()

    assert [answer.status for answer in client.answers()] == [500, 200]
    assert len(nothing_leaked) == 1
    nothing_leaked.clear()


def test_an_answer_that_cannot_be_written_is_an_error_of_ours(
    nothing_leaked: list[object],
) -> None:
    """Nobody waits for ever."""
    door = Pair()
    client = door.proxy.connect()
    fast_path = fast_path_of(door)
    fast_path.encoder = Broken()

    client.send(call("a"))
    door.answer()

    assert [answer.status for answer in client.answers()] == [500]
    assert len(nothing_leaked) == 1
    nothing_leaked.clear()


def test_a_call_that_arrives_too_slowly_is_told_so() -> None:
    """In the words of its own route, and with its own name."""
    door = Pair()
    client = door.proxy.connect()

    client.send(call("a", X_Request_Id="mine")[:-3])
    door.proxy.clock.pump([1] * 61)

    [answer] = client.answers()
    assert answer.status == 408
    assert answer.header("X-Request-Id") == "mine"
    client.leave()


def test_a_quiet_connection_is_closed_without_a_word() -> None:
    """After a while in which a client might have come back."""
    door = Pair()
    client = door.proxy.connect()
    client.send(call("a"))
    door.answer()
    got = client.transport.value()

    door.proxy.clock.pump([1] * (IDLE_S - 1))
    is_open = client.transport.connected
    door.proxy.clock.pump([1] * 2)

    assert is_open
    assert not client.transport.connected
    assert client.transport.value() == got
    client.leave()


def test_who_comes_after_a_quiet_time_may_be_quiet_as_long_as_others() -> None:
    """With nobody there, nobody looks."""
    door = Pair()
    door.proxy.connect().leave()
    door.proxy.clock.advance(10 * IDLE_S)

    client = door.proxy.connect()
    door.proxy.clock.pump([1] * (IDLE_S - 1))

    assert client.transport.connected
    client.leave()


def test_new_keys_count_for_the_next_call_on_an_open_connection() -> None:
    """What a head was understood to be is forgotten with the old ones."""
    door = Pair()
    client = door.proxy.connect()
    client.send(call("a"))
    door.answer()

    app = door.proxy.app
    app.policy = evolve(app.policy, keys=ApiKeys(accepted=("sesame",)))
    client.send(call("b"))
    client.send(call("c", Authorization="Bearer sesame"))
    door.answer()

    assert [answer.status for answer in client.answers()] == [200, 401, 200]
    assert door.asked() == ["a", "c"]


@pytest.mark.parametrize("texts", [["a"], ["a" * 10], ["a" * 3000, "b"]])
def test_a_head_is_known_again_with_any_length(texts: list[str]) -> None:
    """The next call of a client is seldom as long as the last."""
    door = Pair()
    client = door.proxy.connect()
    client.send(call("first"))
    door.answer()
    fast_path = fast_path_of(door)
    fast_path._heads.clear()

    client.send(call(*texts))
    door.answer()

    assert door.keeper.ways == [True, True]
    assert fast_path._heads == {}
    assert bodies(client)[1] == [[len(text), ord(text[0])] for text in texts]


@pytest.mark.parametrize(
    "length", [b"019", b"+19", b" 19", b"19 ", b"1_9", b"0000000019", b"", b"-1", b"x"]
)
def test_a_head_is_not_known_again_by_an_odd_length(length: bytes) -> None:
    """Whatever is no plain number is left to the way that knows all of HTTP."""
    door = Pair()
    client = door.proxy.connect()
    client.send(call("a"))
    door.answer()

    client.send(call("abc").replace(b": 19", b": " + length))
    door.answer()

    assert door.keeper.ways[1:] in ([], [False])


def test_a_path_may_come_to_mean_something_else() -> None:
    """The model behind `/` is another after a restart."""
    door = Pair()
    app, credentials = door.proxy.app, Credentials()
    known = CallReader(credentials=credentials, task="embedding")
    app.policy = evolve(app.policy, reader=known)
    client = door.proxy.connect()
    client.send(call("a").replace(b"/embed", b"/"))
    door.answer()

    known = CallReader(credentials=credentials, task="reranker")
    app.policy = evolve(app.policy, reader=known)
    client.send(call("b").replace(b"/embed", b"/"))
    door.answer()

    assert door.keeper.ways == [True, False]
    assert len(bodies(client)) == 2


def test_heads_that_never_repeat_leave_no_memory_behind() -> None:
    """Every request may have a name of its own."""
    door = Pair()
    fast_path = fast_path_of(door)

    def look(name: int) -> int:
        fast_path.find(call("a", X_Request_Id=str(name)))
        return len(fast_path._heads)

    assert max(map(look, range(MOST_HEADS + 10))) == MOST_HEADS


def test_two_clients_with_the_same_head_are_told_apart() -> None:
    """By their addresses, where they show no key."""
    door = Pair(options={"rate_limit": 1.0})
    one, other = door.proxy.connect(), door.proxy.connect()
    other.transport.peerAddr = IPv4Address("TCP", "10.0.0.9", 1)

    one.send(call("a", "b", "c"))
    door.answer()
    one.send(call("d"))
    other.send(call("e"))
    door.answer()

    assert [answer.status for answer in one.answers()] == [200, 429]
    assert [answer.status for answer in other.answers()] == [200]


def test_a_body_behind_an_answered_request_is_not_taken_for_a_call() -> None:
    """Twisted had begun to read its request when it answered the one before."""
    door = Pair()
    client = door.proxy.connect()
    body = call("a")

    client.send(
        b"GET /-/nothing HTTP/1.1\r\nHost: door\r\n\r\n"
        b"POST /other HTTP/1.1\r\nHost: door\r\nContent-Length: %d\r\n\r\n" % len(body)
    )
    client.send(body)
    door.proxy.flush()

    assert door.keeper.ways == [False, False]
    assert door.upstream.bodies == [body]
    client.leave()


def test_a_call_that_still_arrives_is_waited_for_while_draining() -> None:
    """It was half sent when SIGTERM came: it is accepted, and answered."""
    door = Pair()
    client = door.proxy.connect()
    client.send(call("a")[:-3])

    door.proxy.site.drain()
    door.proxy.clock.pump([1, 1])
    client.send(call("a")[-3:])
    door.answer()
    door.proxy.clock.advance(0)

    [answer] = client.answers()
    assert answer.header("Connection") == "close"
    assert not client.transport.connected


def test_a_surplus_connection_is_told_so() -> None:
    """It does not slip in by the fast path."""
    proxy = in_memory_proxy(Resource(), max_connections=1)
    proxy.connect()
    surplus = proxy.connect()

    surplus.send(call("a"))

    [answer] = surplus.answers()
    assert answer.status == 429
    for client in proxy.channels:
        client.leave()
