"""What callers who leave, stall, or never listen cost the others: nothing."""

from pathlib import Path
from random import Random

from pytest_twisted import ensureDeferred
from twisted.internet.error import ConnectionDone, ConnectionLost

from bench.breakable import Traits
from support.client import connect, sleep, together, until
from support.processes import daemon
from support.proxy import StartedProxy, collector_of, started_proxy
from support.upstream import breakable


async def _leaves(here: StartedProxy, text: str, after_s: float) -> None:
    caller = await here.caller()
    asked = caller.embed(text).addErrback(lambda _: None)
    await sleep(after_s)
    asked.cancel()


async def _stays(here: StartedProxy, text: str) -> bool:
    caller = await here.caller(closes=True)
    answer = await caller.embed(text, f"{text}, too")
    return answer.is_for([text, f"{text}, too"])


@ensureDeferred
async def test_a_thousand_random_disconnects_harm_no_other_call() -> None:
    """Neighbours of those who leave in mid-batch are answered, and nothing leaks."""
    random = Random(1)  # noqa: S311  a test must repeat itself
    answered = []

    async def neighbours(here: StartedProxy, name: str) -> None:
        for turn in range(20):
            leaves = _leaves(here, f"{name} {turn} leaves", random.uniform(0, 0.02))
            stays = _stays(here, f"{name} {turn} stays")
            answered.append((await together([leaves, stays]))[1])

    async with started_proxy(Traits(ms=3, ms_per_input=0.05, workers=4)) as here:
        await together(neighbours(here, f"pair {at}") for at in range(50))

        assert answered == [True] * 1000
        await here.comes_to_rest()


@ensureDeferred
async def test_when_all_callers_of_a_batch_leave_the_upstream_may_stop() -> None:
    """The upstream request is cancelled, and its slot and budget are free at once."""
    async with started_proxy(Traits(ms=60_000)) as here:
        callers = await here.crowd(2)
        asked = [caller.embed("a").addErrback(lambda _: None) for caller in callers]
        await until(lambda: here.upstream.work.inputs == 2)

        for each in asked:
            each.cancel()

        await here.comes_to_rest()
        await until(lambda: here.upstream.seen.hung_up == 2)


@ensureDeferred
async def test_a_client_that_closes_its_half_counts_as_disconnected() -> None:
    """As to the upstream itself, a closed half is a closed connection."""
    async with started_proxy(max_wait_ms=60_000, max_batch_calls=3) as here:
        half, *others = await here.crowd(4)
        room = collector_of(here.service).admission
        lost = half.embed("half")
        asked = [others[0].embed("0")]
        await until(lambda: room.items == 2)

        half.transport.loseWriteConnection()
        await until(lambda: room.items == 1)
        asked += [others[1].embed("1"), others[2].embed("2")]
        answers = await together(asked)

        assert [answer.is_for([f"{at}"]) for at, answer in enumerate(answers)] == [
            True
        ] * 3
        await lost.addErrback(
            lambda failure: failure.trap(ConnectionDone, ConnectionLost)
        )
        assert here.upstream.seen.batches == [3]
        await here.comes_to_rest()


@ensureDeferred
async def test_a_client_that_never_reads_delays_no_other() -> None:
    """Its answer waits in its own connection, and all others are served."""
    async with started_proxy(Traits(dimensions=384)) as here:
        deaf, other = await here.crowd(2)
        deaf.transport.pauseProducing()
        deaf.embed(*["the same"] * 5000).addErrback(lambda _: None)
        await until(lambda: sum(here.upstream.seen.batches) == 5000)

        answers = [await other.embed(f"other {at}") for at in range(20)]

        assert [answer.status for answer in answers] == [200] * 20
        collector = collector_of(here.service)
        assert not collector.admission.items
        assert not collector.budget.items_in_flight
        deaf.hang_up()
        await here.comes_to_rest()


@ensureDeferred
async def test_a_client_that_never_reads_is_read_no_further() -> None:
    """Requests that it goes on to send stay in its own connection."""
    async with started_proxy(Traits(dimensions=2048)) as here:
        [deaf] = await here.crowd(1)
        deaf.transport.pauseProducing()
        for _ in range(5):
            deaf.embed(*["the same"] * 1000).addErrback(lambda _: None)
        await until(lambda: sum(here.upstream.seen.batches) >= 1000)
        await sleep(0.2)

        assert sum(here.upstream.seen.batches) <= 2000
        deaf.hang_up()
        await here.comes_to_rest()


@ensureDeferred
async def test_a_slow_upload_delays_no_other_call() -> None:
    """A call counts when it is all here, and takes no slot before."""
    async with started_proxy(slots=1) as here:
        slow, other = await here.crowd(2)
        body = b'{"inputs":["slow"]}'
        slow.transport.write(slow.head("/embed", len(body)) + body[:9])

        answers = [await other.embed(f"other {at}") for at in range(20)]
        before = list(here.upstream.seen.batches)
        slow.transport.write(body[9:])
        await until(lambda: slow.received.endswith(b"]]"))

        assert [answer.status for answer in answers] == [200] * 20
        assert before == [1] * 20
        await here.comes_to_rest()


@ensureDeferred
async def test_connections_never_use_up_the_files_for_the_way_upstream(
    tmp_path: Path,
) -> None:
    """However many connect and say nothing, those who are served are served."""
    async with (
        breakable(Traits()) as upstream,
        daemon(tmp_path, upstream, files=300) as here,
    ):
        served = await connect(here.port)
        silent = await together(connect(here.port) for _ in range(400))
        await until(lambda: upstream.close_idle() or not upstream.connections)

        answer = await served.embed("a")

        assert answer.is_for(["a"])
        for caller in [served, *silent]:
            caller.hang_up()
        await until(lambda: not any(caller.is_open for caller in [served, *silent]))
