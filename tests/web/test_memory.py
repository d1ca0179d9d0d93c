"""How much clients may make the proxy hold, and who makes room."""

import json
from typing import Any

import pytest
from attrs import define, evolve, field
from twisted.internet.task import Clock

from abproxy.errors import ProxyError
from abproxy.events import Observer
from abproxy.web.memory import BEGUN_S, GRACE_S, Memory
from support.client import Client
from support.proxy import InMemoryProxy, in_memory_proxy
from support.upstream import HeldUpstream, Saying

ways = pytest.mark.parametrize("is_fast", [True, False])


@define(eq=False)
class Unsent:
    """A transport with something in its buffer."""

    dataBuffer: bytes = b""  # noqa: N815
    offset: int = 0


@define(eq=False)
class Connection:
    """What the memory needs of a connection."""

    name: str = ""
    may_be_refused: bool = True
    transport: Unsent = field(factory=Unsent)
    said: list[str] = field(factory=list)
    memory: Any = None

    def pause_reading(self) -> None:
        """Note it."""
        self.said.append("pause")

    def resume_reading(self) -> None:
        """Note it."""
        self.said.append("resume")

    def refuse_arriving(self, error: ProxyError) -> None:
        """Note it, and hold nothing more."""
        self.said.append(f"{error.status} {error.retry_after_s}")
        self.memory.receive(self, 0)

    def cut(self) -> None:
        """Note it."""
        self.said.append("cut")


class Cuts(Observer):
    """Counts connections that are cut."""

    def __init__(self) -> None:
        self.reasons: list[str] = []

    def connection_cut(self, reason: str) -> None:
        """Count one."""
        self.reasons.append(reason)


@define(eq=False)
class Here:
    """A memory of 100 bytes, and connections."""

    clock: Clock = field(factory=Clock)
    cuts: Cuts = field(factory=Cuts)
    memory: Memory = field(init=False)

    def __attrs_post_init__(self) -> None:
        """Make it."""
        self.memory = Memory(clock=self.clock, max_bytes=100, observer=self.cuts)

    def receiving(self, size: int, **how: Any) -> Connection:
        """Let a connection hold so much of a request."""
        connection = Connection(memory=self.memory, **how)
        self.memory.receive(connection, size)
        return connection

    def reading(self, size: int) -> Connection:
        """Let so much be written to a connection that it does not take."""
        connection = Connection(memory=self.memory, transport=Unsent(b"x" * size))
        self.memory.send(connection)
        return connection

    def begin_reading(self, size: int) -> Connection:
        """Let the same have begun, so that it can be judged."""
        connection = self.reading(size)
        self.clock.advance(BEGUN_S)
        return connection


def test_both_kinds_count_together() -> None:
    """Until they are gone."""
    here = Here()
    one, other = here.receiving(30), here.reading(40)

    full = here.memory.held
    here.memory.receive(one, 0)
    here.memory.sent(other)

    assert (full, here.memory.held) == (70, 0)


def test_young_requests_wait_and_go_on_when_there_is_room() -> None:
    """None of them is slow yet."""
    here = Here()
    first, second = here.receiving(60), here.receiving(50)

    here.memory.receive(first, 0)

    assert (first.said, second.said) == ([], ["pause", "resume"])


def test_a_request_alone_is_never_paused() -> None:
    """Nothing would go on by it."""
    here = Here()

    only = here.receiving(1000)

    assert only.said == []


def test_the_slowest_request_is_refused_first() -> None:
    """It is told to come again; what is fast enough is not."""
    here = Here()
    slow, fast = here.receiving(10), here.receiving(30)
    here.clock.advance(GRACE_S)

    last = here.receiving(70)

    assert slow.said == ["429 1"]
    assert fast.said == ["429 1"]
    assert last.said == []
    assert here.memory.held == 70


def test_a_request_that_waits_for_its_answer_is_not_refused() -> None:
    """The work has begun."""
    here = Here()
    busy = here.receiving(90, may_be_refused=False)
    slow = here.receiving(5)
    here.clock.advance(GRACE_S)

    here.receiving(10)

    assert busy.said == []
    assert slow.said == ["429 1"]


def test_an_answer_that_is_not_read_is_cut_when_memory_is_full() -> None:
    """And counted."""
    here = Here()
    silent = here.begin_reading(60)
    here.clock.advance(GRACE_S)

    here.reading(50)

    assert silent.said == ["cut"]
    assert here.cuts.reasons == ["slow_reader"]
    assert here.memory.held == 50


def test_an_answer_that_is_not_read_may_stay_while_there_is_room() -> None:
    """Its client may have its reasons."""
    here = Here()
    silent = here.reading(60)

    here.clock.advance(60)
    here.memory.look()

    assert silent.said == []


def test_what_the_system_takes_at_once_was_not_read() -> None:
    """It has megabytes for a connection, and some clients want them to be held."""
    here = Here()
    silent = here.reading(60)
    silent.transport.offset = 40
    here.clock.advance(BEGUN_S)
    here.clock.advance(GRACE_S)

    here.reading(50)

    assert silent.said == ["cut"]


def test_an_answer_that_is_being_read_is_not_cut() -> None:
    """As far as its reader is fast; what it has read is held with the rest."""
    here = Here()
    reader = here.begin_reading(60)
    here.clock.advance(GRACE_S)
    reader.transport.offset = 20

    here.reading(50)

    assert reader.said == []
    assert here.memory.held == 110


def test_far_too_many_answers_are_cut_however_fast() -> None:
    """But for the largest: it may be larger than all that is allowed."""
    here = Here()

    large, small, last = here.reading(150), here.reading(40), here.reading(30)

    assert large.said == []
    assert small.said == ["cut"]
    assert last.said == ["cut"]


def test_those_who_were_seen_to_read_are_cut_last() -> None:
    """Even if most of their answers is left, and others have just begun."""
    here = Here()
    here.reading(30)
    steady = here.begin_reading(30)
    here.clock.advance(GRACE_S)
    steady.transport.offset = 5
    here.memory.look()

    flood = [here.reading(40) for _ in range(4)]

    assert steady.said == []
    assert flood[0].said == ["cut"]


def test_a_reader_who_has_read_all_holds_nothing() -> None:
    """Also where nothing says so."""
    here = Here()
    reader = here.reading(60)
    reader.transport.dataBuffer = b""

    here.memory.look()

    assert here.memory.held == 0


def test_a_closed_connection_holds_nothing() -> None:
    """Whatever it held."""
    here = Here()
    one, other = here.receiving(60), here.reading(30)

    here.memory.forget(one)
    here.memory.forget(other)

    assert here.memory.held == 0


# In the proxy


def begin(
    proxy: InMemoryProxy, sent: int, length: int = 3_000_000, path: str = "/embed"
) -> Client:
    """Begin to send a body."""
    client = proxy.connect()
    head = (
        f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
        f"Content-Length: {length}\r\n\r\n"
    )
    client.send(head.encode())
    client.send(b" " * sent)
    return client


@ways
@pytest.mark.parametrize("length", [200_000, 3_000_000])
def test_the_slowest_body_is_refused_in_the_words_of_its_route(
    length: int,
    is_fast: bool,  # noqa: FBT001
) -> None:
    """With a 429; the other one is answered."""
    proxy = in_memory_proxy(Saying(b"[[1]]"), is_fast=is_fast, max_memory_bytes=150_000)
    slow = begin(proxy, 50_000, length, "/v1/embeddings")
    fast = begin(proxy, 90_000, 130_000)
    proxy.clock.advance(1)

    fast.send(b" " * 24_000 + b'{"inputs":["a"]}')
    fast.send(b" " * (130_000 - 114_016))
    proxy.flush()

    [refused] = slow.answers()
    assert refused.status == 429
    assert refused.header("Retry-After") == "1"
    assert "too much memory" in json.loads(refused.body)["message"]
    assert not slow.transport.connected
    assert fast.answers()[0].body == b"[[1]]"
    fast.leave()
    assert proxy.site.memory.held == 0


@ways
def test_no_large_body_is_begun_while_memory_is_full(is_fast: bool) -> None:  # noqa: FBT001
    """A small call is answered as ever."""
    proxy = in_memory_proxy(Saying(b"[[1]]"), is_fast=is_fast, max_memory_bytes=9000)
    begin(proxy, 10_000)

    large, small = begin(proxy, 0), proxy.connect()
    small.embed(b'{"inputs":["a"]}')
    proxy.flush()

    assert large.answers()[0].status == 429
    assert small.answers()[0].body == b"[[1]]"
    assert proxy.figure("refusals_total", reason="memory") == 1


@ways
def test_what_is_held_is_shown(is_fast: bool) -> None:  # noqa: FBT001
    """In metrics and on the page; it is given back with the connection."""
    proxy = in_memory_proxy(Saying(b"[[1]]"), is_fast=is_fast, max_memory_bytes=99_999)

    client = begin(proxy, 10_000)
    held = proxy.figure("arriving_bytes")
    shown = proxy.page("/-/status.json")["flow"]
    client.leave()

    assert held is not None
    assert 10_000 <= held < 10_200
    assert shown["arriving_bytes"] == held
    assert shown["memory_max_bytes"] == 99_999
    assert proxy.figure("arriving_bytes") == 0


@ways
def test_an_unfinished_head_is_held_as_well(is_fast: bool) -> None:  # noqa: FBT001
    """It needs no key, and may have 64 kB."""
    proxy = in_memory_proxy(Saying(b""), is_fast=is_fast)
    client = proxy.connect()

    client.send(b"GET / HTTP/1.1\r\nCookie: " + b"x" * 50_000)

    assert proxy.site.memory.held > 50_000
    client.leave()
    assert proxy.site.memory.held == 0


def test_a_body_is_held_until_it_is_answered() -> None:
    """It may have to be sent again."""
    upstream = HeldUpstream()
    proxy = in_memory_proxy(upstream)
    client = begin(proxy, 300_000, 300_016)
    client.send(b'{"inputs":["a"]}')
    proxy.flush()
    before = proxy.site.memory.held

    upstream.answer(0, b"[[1]]")
    proxy.flush()

    assert before > 300_000
    assert client.answers()[0].body == b"[[1]]"
    assert proxy.site.memory.held == 0


def test_a_relayed_body_is_not_kept_to_be_sent_again_when_memory_is_full() -> None:
    """It goes on its way all the same."""
    upstream = HeldUpstream()
    proxy = in_memory_proxy(upstream, max_memory_bytes=50_000)
    client = begin(proxy, 20_000, 40_000, "/rerank")
    full = begin(proxy, 60_000)
    proxy.flush()

    client.send(b" " * 20_000)
    proxy.flush()

    assert proxy.site.memory.held < 62_000
    upstream.answer(0, b"done")
    proxy.flush()
    assert client.answers()[0].body == b"done"
    full.leave()


def test_the_limit_can_be_changed() -> None:
    """By a reload, from then on."""
    proxy = in_memory_proxy(Saying(b""))
    reloading: Any = proxy.service.reload
    configuration = reloading.__self__
    configuration.read = lambda: evolve(configuration.settings, max_memory_bytes=12_345)

    proxy.service.reload()

    assert proxy.site.memory.max_bytes == 12_345


@ways
def test_rows_of_a_large_call_are_held_until_all_are_there(is_fast: bool) -> None:  # noqa: FBT001
    """Together with what clients send and read."""
    upstream = HeldUpstream()
    proxy = in_memory_proxy(upstream, is_fast=is_fast, max_batch_inputs=1, budget=1)
    client = proxy.connect()
    client.embed(b'{"inputs":["a","b"]}')
    proxy.flush()
    before = proxy.site.memory.held

    upstream.answer(0, b"[[%b]]" % (b"1" * 5000))
    proxy.flush()
    meanwhile = proxy.site.memory.held
    upstream.answer(1, b"[[2]]")
    proxy.flush()

    assert meanwhile - before == 5002
    assert len(client.answers()[0].body) == 5008
    assert proxy.site.memory.held == 0
