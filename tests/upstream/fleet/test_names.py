"""The servers at the addresses of a name: they come and go with them."""

from typing import Any

from attrs import define, field
from twisted.internet.defer import Deferred

from abproxy.errors import CannotConnect
from abproxy.http.headers import Credentials
from abproxy.upstream.client import Upstream
from abproxy.upstream.fleet.resolve import Lookup, NamedServers
from support.fleet import Servers
from support.names import Resolver
from support.upstream import RecordingUpstream, make_upstream, reply

A, B, SIX = "10.0.0.1", "10.0.0.2", "fd00::3"
URL = "http://tei:8080"
INFO = reply(
    200,
    b'{"model_id":"m","max_client_batch_size":32,"max_concurrent_requests":512}',
)


@define(eq=False)
class Named:
    """A fleet of the servers behind one name."""

    resolver: Resolver = field(factory=Resolver)
    servers: Servers = field(factory=lambda: Servers(0))
    names: NamedServers = field(init=False)
    left: list[Deferred[Any]] = field(factory=list)
    """Of each that is gone, what fires when nothing of it is left."""

    def __attrs_post_init__(self) -> None:
        fleet, clock = self.servers.fleet, self.servers.clock
        self.names = NamedServers(
            base_url=URL,
            lookup=Lookup(
                host="tei", clock=clock, resolver=self.resolver, every_s=30.0
            ),
            make=self._make,
            add=fleet.add,
            remove=lambda member: self.left.append(fleet.remove(member)),
        )
        fleet.names.append(self.names)

    def _make(self, address: str) -> Upstream:
        end = self.servers.ends[address] = RecordingUpstream()
        return make_upstream(
            end.send, self.servers.clock, base_url=URL, address=address
        )

    def at(self, *addresses: str) -> None:
        """Be found at these addresses from now on, which is noticed."""
        self.resolver.found = addresses
        self.names.lookup.doubt()
        self.servers.clock.advance(1.0)

    def tell_model(self, address: str) -> None:
        """Let a server answer all questions, also which model it has."""
        for each in self.servers.questions(address):
            each.done.callback(INFO)

    @property
    def working(self) -> set[str]:
        """Where requests go."""
        for _ in range(40):
            self.servers.send()
        at = {each for each in self.servers.ends if self.servers.batches(each)}
        for address in self.servers.ends:
            while self.servers.batches(address):
                self.servers.answer(address)
        return at


def named(*addresses: str) -> Named:
    """Make one that has started."""
    here = Named()
    here.resolver.found = addresses
    here.servers.fleet.start()
    return here


def test_each_address_of_a_name_is_a_server() -> None:
    """They have the same base URL, and are told apart by their addresses."""
    here = named(A, B)
    said = here.servers.fleet.describe()

    assert here.working == {A, B}
    assert said["url"] == URL
    assert [each["address"] for each in said["servers"]] == [
        "10.0.0.1:8080",
        "10.0.0.2:8080",
    ]


def test_an_ipv6_address_is_told_as_in_a_url() -> None:
    """With brackets."""
    [said] = named(SIX).servers.fleet.describe()["servers"]

    assert said["address"] == "[fd00::3]:8080"


def test_without_an_address_requests_fail_as_without_a_connection() -> None:
    """So they wait as long as for a server that is away."""
    here = named()

    assert isinstance(here.servers.send().error, CannotConnect)
    assert not here.servers.fleet.is_certain


def test_the_first_server_gets_work_as_soon_as_it_is_found() -> None:
    """Whoever waits for it has waited long enough."""
    here = named()

    here.at(A)

    assert here.working == {A}


def test_a_new_address_gets_work_when_it_has_said_which_model_it_has() -> None:
    """Until then it may be any server, or none."""
    here = named(A)
    here.tell_model(A)
    here.at(A, B)
    before = here.working

    here.tell_model(B)

    assert (before, here.working) == ({A}, {A, B})


def test_a_new_server_that_is_not_ready_yet_gets_work_when_it_is() -> None:
    """A name may have its address before the server listens."""
    here = named(A)
    here.tell_model(A)
    here.at(A, B)
    here.servers.questions(B)[0].fail(CannotConnect("refused"))
    before = here.working
    here.servers.clock.advance(1.0)

    here.tell_model(B)

    assert (before, here.working) == ({A}, {A, B})


def test_an_address_that_is_gone_gets_no_more_work() -> None:
    """And what is in flight there is answered."""
    here = named(A, B)
    asked = [here.servers.send() for _ in range(40)]

    here.at(A)
    for address in (A, B):
        while here.servers.batches(address):
            here.servers.answer(address)

    assert {each.status for each in asked} == {200}
    assert here.working == {A}


def test_the_connections_to_an_address_that_is_gone_are_closed() -> None:
    """When its last request is answered, and not before."""
    here = named(A)
    here.servers.send()

    here.at(B)
    [left] = here.left
    before = left.called
    here.servers.answer(A)

    assert (before, left.called) == (False, True)


def test_a_server_that_is_lost_leads_to_a_lookup() -> None:
    """It may have moved."""
    here = named(A, B)
    here.servers.clock.advance(5)
    here.resolver.found = (B,)
    here.servers.questions(A)[0].fail(CannotConnect("refused"))

    here.servers.clock.advance(0)

    assert here.working == {B}


def test_who_comes_later_is_shown_the_key_that_is_in_force() -> None:
    """It may have changed since the start."""
    here = named(A)
    key = Credentials(key="later")
    here.servers.fleet.use(key)
    here.servers.fleet.set_timeout(3)

    here.at(A, B)

    upstream = here.names.members[B].upstream
    assert (upstream.credentials, upstream.timeout_s) == (key, 3)


def test_a_stopped_fleet_looks_nothing_up() -> None:
    """Nothing is left behind."""
    here = named(A)

    here.servers.fleet.stop()

    asked = len(here.resolver.asked)
    here.at(A, B)
    assert len(here.resolver.asked) == asked
