"""An upstream that dies, comes back, comes late, or falls silent."""

from socket import SHUT_RDWR
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace
from pytest_twisted import ensureDeferred
from twisted.internet.testing import StringTransportWithDisconnection

from abproxy.dialects.reply import write_answer
from bench.breakable import Traits, row_of
from support.batching import call_of
from support.client import Answer, Caller, Client, sleep, together, until
from support.proxy import (
    StartedProxy,
    collector_of,
    inference_server,
    paths_of,
    started_proxy,
)

JSON = (b"Content-Type", b"application/json")


async def _asks_for(caller: Caller, name: str, seconds: float) -> list[Answer]:
    """Ask on and on; only answers that are not the caller's rows are kept."""
    clock: Any = caller.transport.reactor
    ends_at = clock.seconds() + seconds
    wrong = []
    turn = 0
    while clock.seconds() < ends_at:
        own = [f"{name} {turn} {at}" for at in range(1 + turn % 2)]
        answer = await caller.embed(*own)
        if not answer.is_for(own):
            wrong.append(answer)
        turn += 1
    return wrong


def _all_ask(callers: list[Caller], seconds: float) -> Any:
    return together(
        _asks_for(caller, f"caller {at}", seconds) for at, caller in enumerate(callers)
    )


@pytest.mark.parametrize("client", ["fast", "treq"])
@ensureDeferred
async def test_a_call_that_crashes_the_upstream_is_an_error_for_its_sender_only(
    client: str,
) -> None:
    """Two hundred neighbours are answered, though the upstream dies three times."""
    traits = Traits(ms=2, workers=2, restart_s=0.2)
    async with started_proxy(traits, fast_paths=paths_of(client)) as here:
        callers = await here.crowd(200)
        mortal = await here.caller()

        others = _all_ask(callers, 1.5)
        await sleep(0.3)
        answer = await mortal.embed("DEADLY")

        assert (answer.status, answer.json["error_type"]) == (502, "Upstream")
        assert await others == [[]] * 200
        assert here.upstream.seen.deaths == 3
        await here.comes_to_rest()


@pytest.mark.parametrize("client", ["fast", "treq"])
@ensureDeferred
async def test_a_restart_under_load_fails_no_call(client: str) -> None:
    """Calls wait for the upstream to come back, and are sent again."""
    async with started_proxy(
        Traits(ms=5, workers=4), fast_paths=paths_of(client)
    ) as here:
        callers = await here.crowd(100)

        asked = _all_ask(callers, 2)
        for _ in range(2):
            await until(lambda: here.upstream._listening is not None)
            await sleep(0.3)
            here.upstream.die(restart_s=0.4)

        assert await asked == [[]] * 100
        assert here.upstream.seen.deaths == 2
        await here.comes_to_rest()


@ensureDeferred
async def test_a_restart_with_lower_limits_fails_no_call() -> None:
    """What the upstream takes now is learnt from it, and large calls are cut anew."""
    texts = [f"text {at}" for at in range(100)]
    async with started_proxy(Traits(ms=5)) as here:
        callers = await here.crowd(10)

        asked = together(caller.embed(*texts) for caller in callers)
        await sleep(0.02)
        here.upstream.change(max_batch=8, permits=16)
        here.upstream.die(restart_s=0.1)

        assert [answer.is_for(texts) for answer in await asked] == [True] * 10
        await here.comes_to_rest()


@pytest.mark.parametrize("path", ["/embed", "/"])
@ensureDeferred
async def test_an_upstream_that_is_away_at_start_may_come_later(path: str) -> None:
    """Its callers wait, also where it is not known yet what may be batched."""
    async with started_proxy(is_up=False) as here:
        [caller] = await here.crowd(1)
        asked = caller.post(path, b'{"inputs":["a"]}')
        await sleep(0.3)

        here.upstream.start()

        assert (await asked).is_for(["a"])
        await until(
            lambda: inference_server(here.service).discovery.info.max_batch_inputs
        )
        await here.comes_to_rest()


@pytest.mark.parametrize("path", ["/embed", "/"])
@ensureDeferred
async def test_an_upstream_that_stays_away_is_a_502_when_patience_ends(
    path: str,
) -> None:
    """Nobody waits for ever."""
    async with started_proxy(is_up=False, connect_patience_s=0.3) as here:
        callers = await here.crowd(20)

        answers = await together(
            caller.post(path, b'{"inputs":["a"]}') for caller in callers
        )

        assert [answer.status for answer in answers] == [502] * 20
        await here.comes_to_rest()


@pytest.mark.parametrize("at", [0, 20, 120])
@ensureDeferred
async def test_an_upstream_that_falls_silent_is_a_504_at_the_deadline(at: int) -> None:
    """Before its head or in its body; its connection is closed, the slot is free."""
    async with started_proxy(
        Traits(dimensions=100), upstream_timeout_s=1, slots=1
    ) as here:
        [caller] = await here.crowd(1)
        here.upstream.break_("stall", at)

        answer = await caller.embed("a")
        await until(lambda: here.upstream.seen.hung_up == 1)
        after = await caller.embed("b")

        assert (answer.status, answer.json["error_type"]) == (504, "Timeout")
        assert after.status == 200
        await here.comes_to_rest()


async def _open_connections(here: StartedProxy, callers: list[Caller]) -> None:
    """Make the proxy hold as many connections as there are callers."""
    options = [f'{{"inputs":["a"],"lane {at}":1}}' for at in range(len(callers))]
    here.upstream.change(ms=20, workers=99)
    answers = await together(
        caller.post("/embed", body.encode())
        for caller, body in zip(callers, options, strict=True)
    )
    assert [answer.status for answer in answers] == [200] * len(callers)


@ensureDeferred
async def test_idle_connections_that_have_all_closed_fail_no_call() -> None:
    """They close in the moment before a request, and nobody has noticed yet."""
    async with started_proxy(slots=8) as here:
        callers = await here.crowd(8)
        await _open_connections(here, callers)
        for connection in here.upstream.connections:
            connection.transport.socket.shutdown(SHUT_RDWR)

        call = call_of("a")
        call = replace(call, alone=replace(call.alone, headers=(JSON,)))
        results = await collector_of(here.service).submit(call)

        assert msgspec.json.decode(write_answer(call, results).body) == [row_of("a")]
        await here.comes_to_rest()


@pytest.mark.parametrize("keep_alive_ms", [0.1, 1, 2])
@ensureDeferred
async def test_connections_that_close_as_they_are_used_fail_no_call(
    keep_alive_ms: float,
) -> None:
    """The upstream's patience ends again and again just as a request is sent."""
    traits = Traits(ms=1, workers=4, keep_alive_ms=keep_alive_ms)
    async with started_proxy(traits) as here:
        callers = await here.crowd(10)

        wrong = await _all_ask(callers, 1)

        assert wrong == [[]] * 10
        assert here.upstream.seen.connections > 2
        await here.comes_to_rest()


@ensureDeferred
async def test_an_upstream_that_accepts_slowly_fails_no_call() -> None:
    """A connection that is not taken up for a while is waited for."""
    async with started_proxy() as here:
        callers = await here.crowd(4)
        here.upstream.accept_slowly(0.3)
        here.upstream.cut_all()

        answers = await together(caller.embed("a") for caller in callers)

        assert [answer.is_for(["a"]) for answer in answers] == [True] * 4
        await here.comes_to_rest()


def _client_in_memory(here: StartedProxy) -> Client:
    """Connect without a socket: what it sends is there at once."""
    channel: Any = here.service.site.buildProtocol(None)  # type: ignore[arg-type]
    transport = StringTransportWithDisconnection()
    transport.protocol = channel
    channel.makeConnection(transport)
    return Client(transport, channel)


@ensureDeferred
async def test_a_relayed_request_survives_connections_that_have_all_closed() -> None:
    """What only asks may be asked twice, and is."""
    async with started_proxy(slots=8) as here:
        callers = await here.crowd(8)
        await _open_connections(here, callers)
        for connection in here.upstream.connections:
            connection.transport.socket.shutdown(SHUT_RDWR)

        client = _client_in_memory(here)
        client.ask("GET", "/info")
        await until(client.transport.value)

        [answer] = client.answers("GET")
        assert answer.status == 200
        client.leave()
        await here.comes_to_rest()


@ensureDeferred
async def test_a_server_that_restarts_behind_an_open_port_is_waited_for() -> None:
    """A balancer that takes connections for a server that is away costs nobody."""
    async with started_proxy(Traits(ms=2)) as here:
        callers = await here.crowd(20)
        here.upstream.turn_away(1)

        answers = await together(caller.embed("a") for caller in callers)

        assert [answer.status for answer in answers] == [200] * 20
        await here.comes_to_rest()
