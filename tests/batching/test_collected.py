"""The rows of large calls take memory until the last of them is there."""

from abproxy.errors import MemoryFull
from support.batching import Harness, Outcome, harness, texts


def two_large_calls() -> tuple[Harness, Outcome, Outcome]:
    """Begin two calls, of which the first has half of its rows, the other none yet."""
    proxy = harness(items=2, budget=4)
    first = proxy.submit(*texts(20))
    for _ in range(5):
        proxy.upstream.open[0].answer()
    other = proxy.submit(*texts(20))
    return proxy, first, other


def answer_all(proxy: Harness) -> None:
    """Answer all that is asked."""
    while proxy.upstream.open:
        proxy.upstream.open[0].answer()


def test_rows_are_counted_until_all_are_there() -> None:
    """Then they are an answer."""
    proxy, first, other = two_large_calls()

    before = proxy.collector.admission.collected.size
    answer_all(proxy)

    assert before > 0
    assert first.is_right
    assert other.is_right
    assert proxy.is_at_rest


def test_without_memory_the_call_with_fewer_rows_is_refused() -> None:
    """The one that has most goes on: room is no use to none."""
    proxy, first, other = two_large_calls()

    proxy.collector.admission.collected.make_room = lambda: False
    answer_all(proxy)

    assert first.is_right
    assert isinstance(other.error, MemoryFull)
    assert proxy.is_at_rest


def test_without_memory_a_large_call_alone_goes_on() -> None:
    """However large its answer is."""
    proxy = harness(items=2)
    proxy.collector.admission.collected.make_room = lambda: False

    call = proxy.submit(*texts(10))
    answer_all(proxy)

    assert call.is_right


def test_a_caller_who_leaves_takes_its_rows_along() -> None:
    """They are of no use to others."""
    proxy, first, other = two_large_calls()

    first.done.cancel()
    other.done.cancel()

    assert proxy.collector.admission.collected.size == 0
    assert proxy.is_at_rest
