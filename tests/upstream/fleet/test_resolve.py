"""The addresses of a name: looked up again, and told when they change."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from random import Random
from typing import Any

from attrs import define, field
from pytest_twisted import ensureDeferred
from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent

from abproxy.upstream.fleet.resolve import Lookup
from bench.breakable.names import Names, NameServer
from support.client import the_reactor, until
from support.names import Resolver

A, B, C = "10.0.0.1", "10.0.0.2", "10.0.0.3"
SIX_A, SIX_B = "fd00::1", "fd00::2"

OFTEN_S = 30.0


@define(eq=False)
class Name:
    """A name that is looked up, and what was told of it."""

    resolver: Any = field(factory=Resolver)
    clock: Any = field(factory=Clock)
    is_away: bool = False
    told: list[tuple[list[str], list[str]]] = field(factory=list)
    lookup: Lookup = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.lookup = Lookup(
            host="tei",
            clock=self.clock,
            resolver=self.resolver,
            every_s=OFTEN_S,
            on_change=lambda added, removed: self.told.append(([*added], [*removed])),
            is_away=lambda: self.is_away,
            random=Random(1),  # noqa: S311
        )

    def has(self, *addresses: str) -> None:
        """Be found so from now on."""
        self.resolver.found = addresses

    @property
    def count(self) -> int:
        """How often it was looked up."""
        return len(self.resolver.asked)


def a_name(*addresses: str) -> Name:
    """Make a name that was looked up once."""
    name = Name()
    name.has(*addresses)
    name.lookup.start()
    return name


def test_all_addresses_of_a_name_are_told_at_the_start() -> None:
    """Each is a server."""
    name = a_name(A, B)

    assert name.told == [([A, B], [])]
    assert name.lookup.addresses == (A, B)


def test_a_name_is_looked_up_again_in_time() -> None:
    """Never later than asked for."""
    name = a_name(A)

    name.clock.pump([1.0] * int(10 * OFTEN_S))

    assert 1 + 10 <= name.count <= 1 + 10 / 0.8


def test_lookups_do_not_keep_in_step() -> None:
    """Many proxies that start at once would all ask at once, for ever."""
    name = a_name(A)
    pauses = []
    for _ in range(5):
        before = name.clock.seconds()
        count = name.count
        while name.count == count:
            name.clock.advance(0.01)
        pauses.append(round(name.clock.seconds() - before, 1))

    assert len(set(pauses)) > 1
    assert max(pauses) <= OFTEN_S


def test_only_what_has_changed_is_told() -> None:
    """Who stays is not touched."""
    name = a_name(A, B)

    name.has(C, B)
    name.clock.advance(OFTEN_S)

    assert name.told[1:] == [([C], [A])]


def test_another_order_is_no_change() -> None:
    """Name servers turn their answers round."""
    name = a_name(A, B)

    name.has(B, A)
    name.clock.advance(OFTEN_S)

    assert name.told == [([A, B], [])]


def test_the_old_addresses_stay_if_the_name_is_not_found() -> None:
    """A name server that is away ends no server; and the log says so once."""
    name = a_name(A, B)

    name.has()
    with capturedLogs() as events:
        name.clock.pump([OFTEN_S] * 3)

    assert name.told == [([A, B], [])]
    assert name.lookup.addresses == (A, B)
    said = [str(formatEvent(each)) for each in events]
    assert said == ["Cannot look up tei; its addresses stay: 10.0.0.1, 10.0.0.2"]


def test_a_name_that_is_not_found_at_the_start_is_looked_up_each_second() -> None:
    """Whoever waits for the first server does not wait long."""
    name = a_name()
    name.clock.advance(1.0)
    name.has(A)

    name.clock.advance(1.0)

    assert name.told == [([A], [])]


def test_a_failed_connection_leads_to_a_lookup() -> None:
    """Perhaps the server has moved."""
    name = a_name(A)
    name.clock.advance(5)
    name.has(B)

    name.lookup.doubt()
    name.clock.advance(0)

    assert name.told[1:] == [([B], [A])]


def test_failed_connections_lead_to_one_lookup_a_second_at_most() -> None:
    """However many fail."""
    name = a_name(A)
    name.clock.advance(5)
    before = name.count

    for _ in range(100):
        name.lookup.doubt()
        name.clock.advance(0.05)

    assert name.count - before <= 6


def after_a_lookup_without_end() -> Name:
    """Let the first lookup get no answer in its time, and the next one find A."""
    name = Name()
    name.resolver.is_slow = True
    name.lookup.start()
    name.resolver.is_slow = False
    name.has(A)
    name.clock.pump([1.0] * 33)
    return name


def test_a_lookup_that_never_ends_is_given_up() -> None:
    """The next one may find something."""
    name = after_a_lookup_without_end()

    assert name.told == [([A], [])]


def test_an_answer_that_comes_too_late_is_not_used() -> None:
    """It is older than what was found since."""
    name = after_a_lookup_without_end()

    name.has(B)
    [(_, first), *_rest] = name.resolver.asked
    name.resolver.answer(first)

    assert name.told == [([A], [])]


def test_a_name_that_is_stopped_is_looked_up_no_more() -> None:
    """Also if an answer is on its way."""
    name = Name()
    name.resolver.is_slow = True
    name.lookup.start()
    [(_, receiver)] = name.resolver.asked

    name.lookup.stop()
    name.has(A)
    name.resolver.answer(receiver)
    name.lookup.doubt()
    name.clock.advance(OFTEN_S)

    assert (name.count, name.told) == (1, [])
    assert not name.clock.getDelayedCalls()


def test_a_server_under_two_families_counts_once() -> None:
    """The family is that of the address which the system puts first."""
    assert a_name(SIX_A, SIX_B, A, B).told == [([SIX_A, SIX_B], [])]
    assert a_name(A, SIX_A, SIX_B, B).told == [([A, B], [])]


def test_a_family_stays_whatever_comes_first_later() -> None:
    """Others in all places at once would be a new start for all."""
    name = a_name(SIX_A, A)

    name.has(A, B, SIX_A)
    name.clock.advance(OFTEN_S)

    assert name.told == [([SIX_A], [])]


def test_the_other_family_has_its_turn_if_none_can_be_reached() -> None:
    """A server may listen on one of them only."""
    name = a_name(SIX_A, A)

    name.is_away = True
    name.lookup.doubt()
    name.clock.advance(1.0)

    assert name.told[1:] == [([A], [SIX_A])]


def test_families_do_not_take_turns_quickly() -> None:
    """While all servers are away, nothing is gained by it."""
    name = a_name(SIX_A, A)
    name.is_away = True

    for _ in range(25):
        name.lookup.doubt()
        name.clock.advance(1.0)

    assert len(name.told) == 2


def test_the_other_family_is_used_if_one_is_gone() -> None:
    """As when a cluster moves to IPv6."""
    name = a_name(A, SIX_A)

    name.has(SIX_A, SIX_B)
    name.clock.advance(OFTEN_S)

    assert name.told[1:] == [([SIX_A, SIX_B], [A])]


def test_an_address_keeps_its_zone() -> None:
    """It says by which interface a link-local address is reached."""
    assert a_name("fe80::1%3").told == [(["fe80::1%3"], [])]


def test_an_address_that_comes_twice_counts_once() -> None:
    """As when /etc/hosts names it twice."""
    assert a_name(A, A).told == [([A], [])]


@asynccontextmanager
async def looked_up(server: NameServer) -> AsyncIterator[Name]:
    """Look a name up at a name server, each twentieth of a second."""
    resolver = Names(the_reactor(), server.port)
    name = Name(clock=the_reactor(), resolver=resolver)
    lookup = name.lookup
    lookup.every_s = 0.05
    lookup.start()
    try:
        yield name
    finally:
        lookup.stop()
        await until(lambda: not resolver.asking)
        await server.stop()


@ensureDeferred
async def test_a_name_server_that_changes_its_answers_is_followed() -> None:
    """Over UDP, as a cluster's name server is."""
    server = NameServer(the_reactor())
    server.addresses["tei"] = [A, B]
    server.start()
    async with looked_up(server) as name:
        await until(lambda: name.lookup.addresses == (A, B))
        server.addresses["tei"] = [B, C]
        await until(lambda: name.lookup.addresses == (B, C))
        server.is_broken = True
        count = len(server.asked)
        await until(lambda: len(server.asked) > count + 4)
        assert name.lookup.addresses == (B, C)
        server.is_broken = False
        server.addresses["tei"] = [SIX_A, SIX_B]
        await until(lambda: name.lookup.addresses == (SIX_A, SIX_B))
        del server.addresses["tei"]
        await until(lambda: len(server.asked) > count + 10)

    assert name.lookup.addresses == (SIX_A, SIX_B)


@ensureDeferred
async def test_the_system_is_asked_for_names() -> None:
    """What is in /etc/hosts counts, as it does for any other connection."""
    name = Name()
    lookup = name.lookup
    lookup.host, lookup.clock = "localhost", the_reactor()
    lookup.resolver = the_reactor().nameResolver
    lookup.start()
    await until(lambda: lookup.addresses)
    lookup.stop()

    assert lookup.addresses in {("127.0.0.1",), ("::1",)}
