"""What a call holds is free when it is over, without the garbage collector."""

import gc
import weakref
from collections.abc import Callable
from contextlib import suppress

import attrs
import msgspec
import pytest
from twisted.internet.defer import Deferred

from abproxy.batching.part import Part
from abproxy.dialects.call import PartResult
from abproxy.errors import ConnectionBroken, ProxyError, UpstreamTimeout
from support.batching import Harness, call_of, harness, texts


class Held:
    """Something that a call holds, as it does its body and its connection."""

    def __call__(self) -> bytes:
        """Return a request id."""
        return b"-"


pytestmark = pytest.mark.usefixtures("no_garbage_collector")


def submit(
    proxy: Harness, *inputs: str
) -> tuple["weakref.ref[Held]", Deferred[object]]:
    """Submit a call; return what tells whether it is there, and its results."""
    held = Held()
    call = msgspec.structs.replace(call_of(*inputs), request_id=held)
    done: Deferred[object] = Deferred()
    with suppress(ProxyError):
        done = proxy.collector.submit(call)
        done.addErrback(lambda _failure: None)
    proxy.clock.advance(0)
    return weakref.ref(held), done


def answer(proxy: Harness, _done: Deferred[object]) -> None:
    """Answer all that is asked."""
    while proxy.upstream.open:
        proxy.upstream.open[0].answer()


def refuse(proxy: Harness, _done: Deferred[object]) -> None:
    """Refuse whatever is asked, once a second where the lane is out."""
    for _ in range(20):
        while proxy.upstream.open:
            proxy.upstream.open[0].refuse(422, b"bad")
        proxy.clock.advance(1)


def break_(proxy: Harness, _done: Deferred[object]) -> None:
    """Break each connection."""
    for _ in range(20):
        while proxy.upstream.open:
            proxy.upstream.open[0].fail(ConnectionBroken("broken"))
        proxy.clock.advance(1)


def stall(proxy: Harness, _done: Deferred[object]) -> None:
    """Answer nothing in time."""
    while proxy.upstream.open:
        proxy.upstream.open[0].fail(UpstreamTimeout("too late"))


def cancel(_proxy: Harness, done: Deferred[object]) -> None:
    """Let the caller leave."""
    done.cancel()


def shrink(proxy: Harness, done: Deferred[object]) -> None:
    """Let the upstream take less from now on, and then answer."""
    caps = attrs.evolve(proxy.collector.caps, items=2)
    proxy.collector.learn(caps, ceiling=512)
    for sent in proxy.upstream.open:
        sent.refuse(422, b"batch size 4 > maximum allowed batch size 2")
    answer(proxy, done)


@pytest.mark.parametrize("others", [0, 1, 3])
@pytest.mark.parametrize("inputs", [1, 4, 30], ids=["small", "a batch", "large"])
@pytest.mark.parametrize("end", [answer, refuse, break_, stall, cancel, shrink])
def test_a_call_is_gone_when_it_is_over(
    end: Callable[[Harness, Deferred[object]], None], inputs: int, others: int
) -> None:
    """Whether it is answered, fails or is cancelled, alone or with others."""
    proxy = harness(items=4, slots=1)
    for number in range(others):
        proxy.submit(f"other {number}")

    is_there, done = submit(proxy, *texts(inputs))
    end(proxy, done)
    del done
    answer(proxy, Deferred())

    assert is_there() is None


@pytest.mark.parametrize("inputs", [1, 30], ids=["small", "large"])
def test_a_call_is_gone_when_it_finds_no_room(inputs: int) -> None:
    """A refused call leaves nothing behind, however many are."""
    proxy = harness(items=4, slots=1, max_waiting_items=2)
    for number in range(3):
        submit(proxy, f"fills the room {number}")

    is_there, _ = submit(proxy, *texts(inputs))

    assert is_there() is None


def test_parts_are_made_as_they_are_sent() -> None:
    """A call of a hundred thousand inputs costs no more than a small one at once."""
    proxy = harness(items=32, slots=1, budget=64, max_waiting_size=4 << 20)

    call = proxy.submit(*texts(100_000))
    parts = [each for each in gc.get_objects() if isinstance(each, Part)]

    assert len([part for part in parts if part.call is call.call]) <= 4
    call.done.cancel()
    assert proxy.is_at_rest


def test_an_answer_is_not_kept_with_the_rows_that_were_found_in_it() -> None:
    """The parts of a large call wait for each other: that would be twice as much."""
    proxy = harness(items=2)
    done = proxy.collector.submit(call_of("a", "b", "c", "d"))
    results: list[PartResult] = []
    done.addCallback(results.extend)

    answer(proxy, done)

    assert len(results) == 2
    assert all(each.rows is not None for each in results)
    assert all(each.response.body == b"" for each in results)
