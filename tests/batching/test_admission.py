"""Room for so much to wait, in all and of one client, and no more."""

import msgspec
import pytest
from twisted.internet.task import Clock

from abproxy.batching.admission import Admission
from abproxy.batching.part import Caps, Part, split_call
from abproxy.errors import Overloaded
from support.batching import call_of, texts

CAPS = Caps(calls=100, items=4, size=1000)


def _parts(*inputs: str, client: bytes = b"") -> list[Part]:
    call = msgspec.structs.replace(call_of(*inputs), client=client)
    return split_call(call, CAPS, 0.0)


def _admission(clock: Clock | None = None, **options: int) -> Admission:
    limits = {"max_items": 10, "max_size": 1000, **options}
    return Admission(clock=clock or Clock(), **limits)


def test_items_are_bounded() -> None:
    """More inputs than there is room for are refused, and not counted."""
    admission = _admission()
    admission.admit(_parts(*texts(8)))

    with pytest.raises(Overloaded):
        admission.admit(_parts(*texts(3)))

    assert admission.items == 8


def test_bytes_are_bounded() -> None:
    """Few inputs can be too much as well."""
    admission = _admission()
    admission.admit(_parts("x" * 900))

    with pytest.raises(Overloaded):
        admission.admit(_parts("y" * 100))


def test_all_parts_of_a_large_call_count() -> None:
    """The rest of an import waits too, even if it is in no queue yet."""
    admission = _admission()

    admission.admit(_parts(*texts(9)))

    assert admission.items == 9


def test_one_client_cannot_take_all_the_room() -> None:
    """A client with much waiting is refused while others are accepted."""
    admission = _admission(max_items_of_one=4)
    admission.admit(_parts(*texts(3), client=b"greedy"))

    with pytest.raises(Overloaded) as refused:
        admission.admit(_parts(*texts(2), client=b"greedy"))
    admission.admit(_parts(*texts(3), client=b"modest"))

    assert str(refused.value) == "3 of your inputs are waiting already: try again later"


def test_a_client_with_nothing_waiting_may_go_over_its_limit() -> None:
    """A client told to come back must have a chance then."""
    admission = _admission(max_items_of_one=4)

    admission.admit(_parts(*texts(9), client=b"importer"))

    assert admission.items == 9


def test_clients_are_forgotten_when_nothing_of_theirs_waits() -> None:
    """A million clients leave no memory behind."""
    admission = _admission()
    parts = _parts(*texts(6), client=b"someone")
    admission.admit(parts)

    for part in parts:
        admission.leave((part,))

    assert not admission.of_clients
    assert (admission.items, admission.size) == (0, 0)


def _drain(admission: Admission, clock: Clock, *, per_second: int) -> None:
    """Let one input leave after the other for a second, while others wait."""
    parts = [part for _ in range(per_second + 1) for part in _parts("x")]
    for part in [*parts, *_parts("stays")]:
        admission.admit([part])
    for part in parts:
        admission.leave((part,))
        clock.advance(1 / per_second)


def test_retry_after_comes_from_how_fast_others_leave() -> None:
    """Twenty inputs a second make room for a hundred in five seconds."""
    clock = Clock()
    admission = _admission(clock, max_items=100, max_size=1_000_000)
    _drain(admission, clock, per_second=20)
    admission.admit(_parts(*texts(99)))

    with pytest.raises(Overloaded) as refused:
        admission.admit(_parts(*texts(100)))

    assert refused.value.retry_after_s == 5


def test_a_quiet_hour_does_not_make_retry_after_longer() -> None:
    """That few have left says nothing if few were there."""
    clock = Clock()
    admission = _admission(clock, max_items=100, max_size=1_000_000)
    for _ in range(2):
        admission.admit([part := _parts("x")[0]])
        admission.leave((part,))
        clock.advance(3600)
    admission.admit(_parts(*texts(100)))

    with pytest.raises(Overloaded) as refused:
        admission.admit(_parts("x"))

    assert refused.value.retry_after_s == 1


def test_retry_after_is_a_second_where_nothing_is_known() -> None:
    """A caller is told to come back in a moment."""
    admission = _admission()
    admission.admit(_parts(*texts(10)))

    with pytest.raises(Overloaded) as refused:
        admission.admit(_parts("x"))

    assert refused.value.retry_after_s == 1


def test_retry_after_is_never_more_than_a_minute() -> None:
    """Slow now is not slow for ever."""
    clock = Clock()
    admission = _admission(clock, max_items=1000, max_size=1_000_000)
    _drain(admission, clock, per_second=1)
    admission.admit(_parts(*texts(999)))

    with pytest.raises(Overloaded) as refused:
        admission.admit(_parts(*texts(500)))

    assert refused.value.retry_after_s == 60
