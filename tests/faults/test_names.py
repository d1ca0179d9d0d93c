"""Servers behind one name, whose addresses change under load: nobody notices."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

from attrs import define, field
from pytest_twisted import ensureDeferred

from bench.breakable import Breakable, Traits
from bench.breakable.names import Names, NameServer
from faults.loaded import load
from support.client import sleep, the_reactor, until
from support.proxy import StartedProxy, in_front_of

TRAITS = Traits(ms=4, ms_per_input=0.2)
NAME = "tei.test"


@define(eq=False)
class Cluster:
    """Servers at addresses of this machine, all on one port, and their name server."""

    names: NameServer = field(factory=lambda: NameServer(the_reactor()))
    servers: dict[str, Breakable] = field(factory=dict)
    port: int = 0

    def add(self, address: str, traits: Traits = TRAITS) -> Breakable:
        """Start a server; the name has its address later."""
        server = self.servers[address] = Breakable(
            reactor=the_reactor(), traits=traits, ip=address, port=self.port
        )
        server.start()
        self.port = server.port
        return server

    def name(self, *addresses: str) -> None:
        """Let the name have these addresses."""
        self.names.addresses[NAME] = addresses

    @property
    def url(self) -> str:
        """What INFERENCE_SERVICE_URL is."""
        return f"http://{NAME}:{self.port}"

    @property
    def work(self) -> "Cluster":
        """What is computed, of all of them."""
        return self

    @property
    def inputs(self) -> int:
        """Inputs that are computed, or wait for it."""
        return sum(each.work.inputs for each in self.servers.values())

    async def stop(self) -> None:
        """Close everything, for good."""
        for each in self.servers.values():
            await each.stop()


@asynccontextmanager
async def cluster(
    *addresses: str, **settings: Any
) -> AsyncIterator[tuple[StartedProxy, Cluster]]:
    """Start servers and their name server, and a proxy that looks their name up."""
    there = Cluster()
    for each in addresses:
        there.add(each)
    there.name(*addresses)
    there.names.start()
    resolver = Names(the_reactor(), there.names.port)
    former = the_reactor().installNameResolver(resolver)
    settings = {"resolve": "all", "resolve_every_s": 0.05, **settings}
    try:
        async with in_front_of(there, settings) as proxy:
            yield proxy, there
        await until(
            lambda: not any(each.connections for each in there.servers.values())
        )
    finally:
        the_reactor().installNameResolver(former)
        await until(lambda: not resolver.asking)
        await there.names.stop()


async def gets_work(*servers: Breakable, batches: int = 5) -> None:
    """Wait until each of the *servers* has got some more batches."""
    least: Sequence[int] = [len(each.seen.batches) + batches for each in servers]
    pairs = list(zip(servers, least, strict=True))
    await until(lambda: all(len(each.seen.batches) > count for each, count in pairs))


A, B, C, D = "127.0.0.2", "127.0.0.3", "127.0.0.4", "127.0.0.5"


@ensureDeferred
async def test_all_addresses_of_a_name_get_work() -> None:
    """And each caller its own rows."""
    async with cluster(A, B, C) as (here, there), load(here):
        await gets_work(*there.servers.values())


@ensureDeferred
async def test_a_name_without_the_setting_is_one_server() -> None:
    """Connections go to its first address, as ever."""
    async with cluster(A, B, resolve="one") as (here, there), load(here):
        await gets_work(there.servers[A])
        assert not there.servers[B].seen.batches


@ensureDeferred
async def test_servers_that_are_added_get_work() -> None:
    """As when a Deployment grows."""
    async with cluster(A) as (here, there), load(here):
        await gets_work(there.servers[A])
        added = there.add(B), there.add(C)
        there.name(A, B, C)
        await gets_work(*added)


@ensureDeferred
async def test_a_server_that_is_removed_gets_no_more_work_and_fails_no_call() -> None:
    """It is gone from the name before it ends, as in a rollout."""
    async with cluster(A, B) as (here, there), load(here):
        removed = there.servers[B]
        await gets_work(removed)
        there.name(A)
        await until(lambda: not removed.connections)
        before = len(removed.seen.batches)
        await removed.stop()
        await gets_work(there.servers[A], batches=10)
        assert len(removed.seen.batches) == before


@ensureDeferred
async def test_all_servers_may_be_replaced_by_others_at_other_addresses() -> None:
    """One after the other, as in a rollout; no call fails."""
    async with cluster(A, B) as (here, there), load(here):
        for old, new in ((A, C), (B, D)):
            await gets_work(there.servers[old])
            added = there.add(new)
            there.name(*(set(there.names.addresses[NAME]) - {old}), new)
            await gets_work(added)
            await until(lambda old=old: not there.servers[old].connections)
            await there.servers[old].stop()


@ensureDeferred
async def test_a_name_server_that_is_away_changes_nothing() -> None:
    """Old answers are better than none."""
    async with cluster(A, B) as (here, there), load(here):
        there.names.is_broken = True
        asked = len(there.names.asked)
        await until(lambda: len(there.names.asked) > asked + 4)
        await gets_work(*there.servers.values())


@ensureDeferred
async def test_calls_wait_for_a_name_that_is_not_known_yet() -> None:
    """As for a server that is away: the cluster may just be starting."""
    async with cluster(A) as (here, there):
        del there
        caller = await here.caller()
        assert (await caller.embed("a")).is_for(["a"])


@ensureDeferred
async def test_a_server_that_moves_is_found_before_the_next_lookup_is_due() -> None:
    """A connection that fails is reason enough."""
    async with cluster(A, resolve_every_s=600.0) as (here, there), load(here):
        await gets_work(there.servers[A])
        moved = there.add(B)
        there.name(B)
        await there.servers[A].stop()
        await gets_work(moved)


@ensureDeferred
async def test_relayed_requests_go_to_a_server_of_the_name() -> None:
    """Whatever is not batched, too."""
    async with cluster(A) as (here, there):
        await until(lambda: there.servers[A].seen.connections)
        await sleep(0.05)
        caller = await here.caller()
        assert (await caller.get("/info")).status == 200
