"""A store that several proxies share, and that is never needed."""

from collections.abc import Callable
from typing import Any

import pytest
from attrs import define, field
from hypothesis import assume, given
from hypothesis import strategies as st
from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent

from abproxy.reuse.entry import Keys
from abproxy.reuse.redis import (
    DEADLINE_S,
    FAILURES,
    FIRST_PAUSE_S,
    LONGEST_PAUSE_S,
    STOP_S,
    RedisStore,
    read_address,
)
from abproxy.reuse.shared import MOST_ITEMS, SharedCache
from support.batching import Outcome, call_of
from support.reuse import BAD, Computer, alone, may_join, source_of


@define
class Server:
    """What a client of Redis does, in memory."""

    values: dict[bytes, bytes] = field(factory=dict)
    asked: int = 0
    is_silent: bool = False
    is_broken: bool = False

    def _answer(self, answer: Callable[[], Any]) -> Deferred[Any]:
        self.asked += 1
        if self.is_silent:
            return Deferred()
        return fail(ConnectionError("gone")) if self.is_broken else succeed(answer())

    def mget(self, keys: list[bytes]) -> Deferred[Any]:
        """Return values, None for each that is not there."""
        return self._answer(lambda: [self.values.get(key) for key in keys])

    def set(self, key: bytes, value: bytes, *, pexpire: int) -> Deferred[Any]:
        """Keep a value."""
        assert pexpire == 60_000
        return self._answer(lambda: self.values.update({key: value}))

    def disconnect(self) -> Deferred[Any]:
        """Close."""
        return self._answer(lambda: None)


@define
class Proxy:
    """One of the proxies that share a server."""

    server: Server
    clock: Clock = field(factory=Clock)
    computer: Computer = field(factory=Computer)
    cache: SharedCache = field(init=False)

    def __attrs_post_init__(self) -> None:
        store = RedisStore(client=self.server, clock=self.clock)
        self.cache = SharedCache(
            compute=self.computer.compute,
            store=store,
            keys=Keys(
                epoch=["m"], by_client=False, are_ours=False, source=source_of(0)
            ),
            may_join=may_join,
            ttl_s=60.0,
            is_certain=lambda: True,
        )

    def submit(self, *texts: str) -> Outcome:
        """Submit one call, and follow it."""
        call = call_of(*texts)
        return Outcome(call, self.cache.submit(call))

    def ask(self, *texts: str) -> Outcome:
        """Submit one call, and let the model answer."""
        outcome = self.submit(*texts)
        self.clock.advance(DEADLINE_S)
        self.computer.answer_all()
        return outcome


def test_what_one_proxy_has_computed_the_other_knows() -> None:
    """Rows are the same bytes."""
    server = Server()
    one, two = Proxy(server), Proxy(server)
    first = one.ask("a", "b")
    again = two.submit("b", "a", "b")
    assert again.is_right
    assert first.is_right
    assert not two.computer.asked


def test_only_the_rows_that_are_not_known_are_asked_for() -> None:
    """Each item by itself."""
    proxy = Proxy(Server())
    proxy.ask("a")
    assert proxy.ask("a", "b").is_right
    assert proxy.computer.batches == [["a"], ["b"]]


def test_failures_are_not_kept() -> None:
    """Another proxy asks for itself."""
    proxy = Proxy(Server())
    assert proxy.ask(BAD).reply.body == alone([BAD]).body
    assert not proxy.server.values


def test_nothing_is_kept_that_another_model_may_have_computed() -> None:
    """Other proxies may still be in front of the model whose keys these are."""
    proxy = Proxy(Server())
    call = proxy.submit("a")
    proxy.computer.model = 1
    proxy.computer.answer()
    assert call.reply.body == alone(["a"], 1).body
    assert not proxy.server.values


def test_known_rows_are_not_joined_with_those_of_another_model() -> None:
    """The call is computed again, all of it."""
    proxy = Proxy(Server())
    proxy.ask("a")
    proxy.computer.model = 1
    assert proxy.ask("a", "b").reply.body == alone(["a", "b"], 1).body
    assert proxy.computer.batches == [["a"], ["b"], ["a", "b"]]


def test_nothing_is_kept_across_a_change_of_the_model() -> None:
    """It was asked for under the keys of the first, and the second computed it."""
    proxy = Proxy(Server())
    proxy.submit("a")
    proxy.cache.keys = Keys(epoch=["other"], by_client=False, are_ours=False)
    proxy.computer.answer()
    assert not proxy.server.values


def test_a_server_that_does_not_answer_costs_one_deadline() -> None:
    """Then it is a miss, and after some of them it is not asked for a while."""
    proxy = Proxy(Server(is_silent=True))
    call = proxy.submit("a")
    proxy.clock.advance(DEADLINE_S - 0.001)
    assert not proxy.computer.asked
    proxy.clock.advance(0.001)
    assert proxy.computer.batches == [["a"]]
    proxy.computer.answer_all()
    assert call.is_right
    proxy.clock.advance(DEADLINE_S)
    for text in "bcde":
        proxy.ask(text)
    asked = proxy.server.asked
    assert proxy.submit("f").is_open
    assert proxy.server.asked == asked
    assert proxy.computer.batches[-1] == ["f"]


def test_questions_at_the_same_time_fail_as_one() -> None:
    """A moment in which it does not answer fifty of them costs no half minute."""
    server, clock = Server(is_silent=True), Clock()
    store = RedisStore(client=server, clock=clock)
    for _ in range(50):
        store.get([b"a"])
    clock.advance(DEADLINE_S)
    assert store.is_away
    clock.advance(FIRST_PAUSE_S)
    assert not store.is_away


def test_a_server_that_hangs_does_not_keep_the_proxy_from_its_end() -> None:
    """With TLS a connection closes only when the other side says so, too."""
    store = RedisStore(client=Server(is_silent=True), clock=(clock := Clock()))
    stopped = store.stop()
    assert not stopped.called
    clock.advance(STOP_S)
    assert stopped.called
    assert not clock.getDelayedCalls()


def test_the_log_says_once_in_words_why_it_is_not_used() -> None:
    """An operator knows no Deferred."""
    proxy = Proxy(Server(is_silent=True))
    with capturedLogs() as logged:
        for text in "abcdef":
            proxy.ask(text)
    assert [formatEvent(event) for event in logged] == [
        "The shared cache is not used for now: no answer within 20 ms"
    ]


def test_a_server_that_comes_back_is_used_again() -> None:
    """It is tried after a second at first, and after half a minute at most."""
    proxy = Proxy(Server(is_broken=True))
    for text in "abc":
        proxy.ask(text)
    assert proxy.cache.store.is_away
    pauses = []
    for _ in range(8):
        began_at = proxy.clock.seconds()
        while proxy.cache.store.is_away:
            proxy.clock.advance(0.5)
        pauses.append(proxy.clock.seconds() - began_at)
        proxy.ask("d")
    assert pauses[0] <= FIRST_PAUSE_S
    assert max(pauses) <= LONGEST_PAUSE_S + 0.5
    assert pauses[:5] == sorted(pauses[:5])
    proxy.server.is_broken = False
    proxy.clock.advance(LONGEST_PAUSE_S)
    proxy.ask("e")
    assert proxy.submit("e").is_right


@pytest.mark.parametrize("number", range(1, FAILURES))
def test_single_failures_change_nothing(number: int) -> None:
    """It is asked again for the next call."""
    proxy = Proxy(Server(is_broken=True))
    for _ in range(number // 2):
        proxy.ask("a")
    proxy.server.is_broken = False
    assert proxy.ask("b").is_right
    assert proxy.submit("b").is_right


@given(st.binary(max_size=40), st.booleans())
def test_what_is_no_entry_is_a_miss(garbage: bytes, is_cut: bool) -> None:  # noqa: FBT001
    """Whatever another program has written there, or a disk has lost."""
    proxy = Proxy(Server())
    proxy.ask("a")
    [(key, value)] = proxy.server.values.items()
    changed = value[: len(garbage)] if is_cut else garbage
    assume(changed != value)
    proxy.server.values[key] = changed
    assert proxy.ask("a").is_right
    assert len(proxy.computer.asked) == 2


@given(st.integers(0, 10_000), st.integers(1, 255))
def test_a_changed_byte_is_noticed(at: int, change: int) -> None:
    """Never is a wrong row given."""
    proxy = Proxy(Server())
    proxy.ask("a")
    [(key, value)] = proxy.server.values.items()
    damaged = bytearray(value)
    damaged[at % len(value)] ^= change
    proxy.server.values[key] = bytes(damaged)
    assert proxy.ask("a").is_right


def test_a_huge_call_is_not_looked_up() -> None:
    """It would hold up all others on the one connection."""
    proxy = Proxy(Server())
    texts = [f"t{number}" for number in range(MOST_ITEMS + 1)]
    assert proxy.ask(*texts).is_right
    assert not proxy.server.asked


def test_a_caller_that_leaves_cancels_what_is_computed() -> None:
    """Also while rows are looked up."""
    proxy = Proxy(Server())
    call = proxy.submit("a")
    call.done.cancel()
    assert not proxy.computer.open
    silent = Proxy(Server(is_silent=True))
    call = silent.submit("a")
    call.done.cancel()
    silent.clock.advance(1)
    assert not silent.computer.asked


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://host", ("host", 6379, "", False, None, None, None)),
        ("rediss://me:a%40b@host:1/3", ("host", 1, "", True, "me", "a@b", 3)),
        ("redis://:secret@[::1]:2", ("::1", 2, "", False, None, "secret", None)),
        ("unix:///run/redis.sock", ("", 6379, "/run/redis.sock", False, *[None] * 3)),
    ],
)
def test_an_address_is_a_url(url: str, expected: tuple[Any, ...]) -> None:
    """With or without TLS, a login and a database."""
    found = read_address(url)
    assert expected == (
        *(found.host, found.port, found.path, found.is_tls),
        *(found.user, found.password, found.database),
    )


@pytest.mark.parametrize(
    "url", ["", "host", "http://secret", "redis://", "redis://secret/x", "unix://a/b"]
)
def test_what_is_no_address_is_refused(url: str) -> None:
    """The message does not repeat it, as a password may be in it."""
    with pytest.raises(ValueError, match="expected a URL") as error:
        read_address(url)
    assert "secret" not in str(error.value)
