"""Several servers behind one address: any of them may die, and nobody notices."""

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
from attrs import define
from pytest_twisted import ensureDeferred

from bench.breakable import Breakable, Traits
from faults.loaded import load
from support.client import sleep, the_reactor, together, until
from support.proxy import StartedProxy, in_front_of, inference_server, paths_of

TRAITS = Traits(ms=4, ms_per_input=0.2)


@define(eq=False)
class Several:
    """Servers that break on demand, as one upstream of a proxy."""

    servers: Sequence[Breakable]

    @property
    def url(self) -> str:
        """What INFERENCE_SERVICE_URL is."""
        return ",".join(each.url for each in self.servers)

    @property
    def work(self) -> "Several":
        """What is computed, of all of them."""
        return self

    @property
    def inputs(self) -> int:
        """Inputs that are computed, or wait for it."""
        return sum(each.work.inputs for each in self.servers)

    async def stop(self) -> None:
        """Close everything, for good."""
        for each in self.servers:
            await each.stop()


@asynccontextmanager
async def several(
    *traits: Traits, **settings: Any
) -> AsyncIterator[tuple[StartedProxy, Sequence[Breakable]]]:
    """Start servers, and a proxy in front of them."""
    servers = [Breakable(reactor=the_reactor(), traits=each) for each in traits]
    for each in servers:
        each.start()
    async with in_front_of(Several(servers), settings) as proxy:
        fleet = inference_server(proxy.service)
        await until(lambda: all(m.upstream.is_certain for m in fleet.members))
        yield proxy, servers
    await until(lambda: not any(each.connections for each in servers))


async def _works_again(server: Breakable) -> None:
    """Wait until a server has got some more requests."""
    before = len(server.seen.batches)
    await until(lambda: len(server.seen.batches) > before + 5)


@ensureDeferred
async def test_all_servers_get_work() -> None:
    """And each caller its own rows."""
    async with several(TRAITS, TRAITS, TRAITS) as (here, servers), load(here):
        await until(lambda: all(len(each.seen.batches) > 20 for each in servers))


@pytest.mark.parametrize("client", ["fast", "treq"])
@ensureDeferred
async def test_a_server_that_dies_under_load_fails_no_call(client: str) -> None:
    """What it had is computed elsewhere, and it is used again when it is back."""
    paths = paths_of(client)
    async with (
        several(TRAITS, TRAITS, TRAITS, fast_paths=paths) as (here, servers),
        load(here),
    ):
        await sleep(0.3)
        servers[0].die(restart_s=0.5)
        await _works_again(servers[0])


@ensureDeferred
async def test_a_server_that_comes_back_as_another_model_gets_no_calls() -> None:
    """Until it is replaced by one that fits: no caller gets a row of it."""
    async with several(TRAITS, TRAITS, TRAITS) as (here, servers), load(here):
        fleet = inference_server(here.service)
        stray = next(m for m in fleet.members if m.base_url == servers[0].url)
        await sleep(0.3)
        servers[0].die(restart_s=0.1)
        servers[0].change(model="another")
        await until(lambda: stray.refused)
        before = len(servers[0].seen.batches)
        await _works_again(servers[1])
        assert len(servers[0].seen.batches) == before

        servers[0].die(restart_s=0.1)
        servers[0].change(model=TRAITS.model)
        await _works_again(servers[0])


@ensureDeferred
async def test_a_rolling_restart_under_load_fails_no_call() -> None:
    """One server after the other, as a Deployment does it."""
    async with several(TRAITS, TRAITS, TRAITS) as (here, servers), load(here):
        for each in servers:
            await sleep(0.2)
            each.die(restart_s=0.3)
            await _works_again(each)


@ensureDeferred
async def test_all_servers_may_be_away_for_a_moment() -> None:
    """Calls wait for the first that is back."""
    async with several(TRAITS, TRAITS) as (here, servers), load(here):
        await sleep(0.2)
        for each in servers:
            each.die(restart_s=0.5)
        await together(_works_again(each) for each in servers)


@ensureDeferred
async def test_a_server_that_hangs_fails_no_call() -> None:
    """What it has is computed elsewhere when that is noticed."""
    async with several(TRAITS, TRAITS, TRAITS) as (here, servers), load(here):
        await sleep(0.3)
        servers[0].change(workers=0)
        await until(lambda: servers[0].seen.hung_up)
        servers[0].change(workers=1)
        await _works_again(servers[0])


@ensureDeferred
async def test_refusals_of_one_server_fail_no_call() -> None:
    """It has no room; the others have."""
    async with several(TRAITS, TRAITS) as (here, servers), load(here):
        servers[0].break_("refuse", 503, times=20)
        await until(lambda: not servers[0].faults)
        await _works_again(servers[0])


@pytest.mark.parametrize("status", [302, 401, 404])
@ensureDeferred
async def test_a_server_that_suddenly_denies_all_fails_no_call(status: int) -> None:
    """It has another key or path by now; the others answer such calls."""
    async with several(TRAITS, TRAITS, TRAITS) as (here, servers), load(here):
        fleet: Any = inference_server(here.service)
        await until(lambda: all(len(each.seen.batches) > 20 for each in servers))
        servers[0].break_("refuse", status, times=1_000_000)
        await until(lambda: fleet.members[0].standing.is_out)
        servers[0].mend()
        await _works_again(servers[0])


@ensureDeferred
async def test_a_server_that_becomes_slow_gets_less() -> None:
    """Its callers wait a little, and the others hardly notice."""
    async with several(TRAITS, TRAITS, TRAITS) as (here, servers), load(here):
        await until(lambda: all(len(each.seen.batches) > 50 for each in servers))
        servers[0].change(ms=400)
        await sleep(0.5)
        before = [len(each.seen.batches) for each in servers]
        await until(lambda: len(servers[1].seen.batches) > before[1] + 50)
        await until(lambda: len(servers[2].seen.batches) > before[2] + 50)
        slow = len(servers[0].seen.batches) - before[0]
        fast = len(servers[1].seen.batches) - before[1]
        assert slow * 3 < fast


@ensureDeferred
async def test_scaling_up_and_down_under_load_fails_no_call() -> None:
    """A new server gets work at once; one that goes answers what it has."""
    async with several(TRAITS, TRAITS, TRAITS) as (here, servers), load(here):
        fleet: Any = inference_server(here.service)
        await until(lambda: all(len(each.seen.batches) > 20 for each in servers))
        member = fleet.members[0]
        await fleet.remove(member)
        await until(lambda: not servers[0].connections)
        await sleep(0.1)
        assert not servers[0].work.inputs
        fleet.add(member.upstream)
        await _works_again(servers[0])


@ensureDeferred
async def test_a_server_that_answers_wrong_rows_is_left_out() -> None:
    """Whose calls shared its batches get their rows all the same."""
    async with several(TRAITS, TRAITS, TRAITS) as (here, servers):
        fleet: Any = inference_server(here.service)
        servers[0].break_("too-few", times=1_000_000)
        callers = await here.crowd(30)
        while not fleet.members[0].standing.is_out:
            answers = await together(
                caller.embed("some", f"texts {at}") for at, caller in enumerate(callers)
            )
            assert all(
                answer.is_for(["some", f"texts {at}"]) or len(answer.json) == 1
                for at, answer in enumerate(answers)
            )
        servers[0].mend()
        await here.comes_to_rest()


KEY = "for operators"


async def _operate(here: StartedProxy, method: str, path: str) -> Any:
    """Ask for a page of operators; return what it says."""
    caller = await here.caller(closes=True)
    shown = f"Host: proxy\r\nAuthorization: Bearer {KEY}\r\nContent-Length: 0"
    page = f"/-/upstreams/{path}"
    answer = await caller.send(f"{method} {page} HTTP/1.1\r\n{shown}\r\n\r\n".encode())
    assert answer.status == 200, answer.body
    return answer.json


def _address(server: Breakable) -> str:
    return server.url.partition("//")[2]


@ensureDeferred
async def test_a_server_that_is_drained_answers_what_it_has_and_gets_no_more() -> None:
    """The page counts it, until it is all answered."""
    held = Traits(workers=0)
    async with several(held, held, admin_keys=(KEY,)) as (here, servers):
        drained, other = servers
        callers = await here.crowd(20)
        asked = [caller.embed(f"text {at}") for at, caller in enumerate(callers)]
        await until(lambda: drained.work.inputs and other.work.inputs)

        said = await _operate(here, "POST", f"{_address(drained)}/drain")
        had = said["requests_in_flight"]
        await until(lambda: len(drained.seen.batches) == had)
        other.change(workers=1)
        [caller] = await here.crowd(1)
        for turn in range(20):
            assert (await caller.embed(f"later {turn}")).is_for([f"later {turn}"])
        assert said["is_drained"]
        assert had > 0
        assert len(drained.seen.batches) == had

        drained.change(workers=1)
        answers = [await each for each in asked]
        left = await _operate(here, "GET", _address(drained))
        assert all(a.is_for([f"text {at}"]) for at, a in enumerate(answers))
        assert left["requests_in_flight"] == left["inputs_in_flight"] == 0


@pytest.mark.parametrize("client", ["fast", "treq"])
@ensureDeferred
async def test_a_drain_under_load_fails_no_call(client: str) -> None:
    """And who is resumed gets work again, however often."""
    settings = {"admin_keys": (KEY,), "fast_paths": paths_of(client)}
    async with several(TRAITS, TRAITS, **settings) as (here, servers), load(here):
        for drained, other in (servers, servers[::-1]):
            await _works_again(drained)
            address = _address(drained)
            await _operate(here, "POST", f"{address}/drain")
            while (await _operate(here, "GET", address))["requests_in_flight"]:
                await sleep(0.01)
            had = len(drained.seen.batches)
            await _works_again(other)
            assert len(drained.seen.batches) == had

            await _operate(here, "POST", f"{address}/resume")
            await _works_again(drained)
