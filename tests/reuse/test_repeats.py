"""How often the same is asked for again."""

from abproxy.events import Observer
from abproxy.reuse.inflight import InFlight
from abproxy.reuse.repeats import MOST, NOT_SAMPLED, Repeats
from support.batching import call_of
from support.reuse import Computer


class Samples(Observer):
    """Keeps what was noted of items."""

    def __init__(self) -> None:
        self.seen: list[bool] = []

    def sampled(self, *, is_repeated: bool) -> None:
        """Keep one."""
        self.seen.append(is_repeated)


def test_what_is_asked_for_again_is_noted() -> None:
    """Whatever came between."""
    repeats = Repeats()
    noted = [repeats.note(item) for item in (1, 2, 1, 2, 1, 3)]
    assert noted == [False, False, True, True, True, False]


def test_only_so_much_is_remembered() -> None:
    """What was asked for long ago counts as new."""
    repeats = Repeats()
    for item in range(3 * MOST):
        repeats.note(item)
    assert not repeats.note(0)
    assert repeats.note(3 * MOST - 1)


def test_a_sample_of_items_tells_how_often_they_repeat() -> None:
    """Each text is asked for four times, so three of four are repeats."""
    server, samples = Computer(is_quick=True), Samples()
    in_flight = InFlight(compute=server.compute, observer=samples)
    texts = [f"text {number}" for number in range(4000)]
    for text in texts * 4:
        in_flight.submit(call_of(text))
    expected = len(texts) * 4 / (NOT_SAMPLED + 1)
    assert expected / 2 < len(samples.seen) < expected * 2
    assert sum(samples.seen) == len(samples.seen) * 0.75
