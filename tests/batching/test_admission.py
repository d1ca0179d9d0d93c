"""Room for so much to wait, in all and of each client, and no more."""

from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.task import Clock

from abproxy.batching.admission import Admission
from abproxy.batching.part import Part, size_of, whole_part
from abproxy.errors import CallTooLarge, ClientQueueFull, Overloaded, ProxyError
from support.batching import call_of, harness, texts


def _part(*inputs: str, client: bytes = b"") -> Part:
    call = msgspec.structs.replace(call_of(*inputs), client=client)
    return whole_part(call, size_of(call.items.raw), 0.0)


def _admission(clock: Clock | None = None, **options: int) -> Admission:
    limits = {"max_items": 20, "max_size": 1000, **options}
    return Admission(clock=clock or Clock(), **limits)


def _admit(admission: Admission, *inputs: str, client: bytes = b"") -> Part:
    """Let a call in that goes whole."""
    part = _part(*inputs, client=client)
    admission.admit(client, len(part.items), part.size)
    return part


# What is counted


def test_items_are_bounded() -> None:
    """More inputs than there is room for are refused, and not counted."""
    admission = _admission()
    _admit(admission, *texts(8))

    with pytest.raises(Overloaded) as refused:
        _admit(admission, *texts(3))

    assert admission.items == 8
    assert str(refused.value) == (
        "8 inputs are waiting already, 8 of them yours: try again later"
    )


def test_bytes_are_bounded() -> None:
    """Few inputs can be too much as well."""
    admission = _admission()
    _admit(admission, "x" * 400)

    with pytest.raises(Overloaded):
        _admit(admission, "y" * 150)


def test_the_rest_of_a_large_call_takes_no_place() -> None:
    """An import of any length leaves the queue to the others."""
    admission = _admission()

    admission.admit(b"importer", 4, 40, rest_items=1000, rest_size=400)
    _admit(admission, *texts(5), client=b"other")

    assert (admission.items, admission.rest_items) == (9, 1000)


def test_the_rest_of_a_large_call_takes_memory() -> None:
    """Imports that do not fit into memory together wait for each other."""
    admission = _admission()
    admission.admit(b"one", 4, 40, rest_items=1000, rest_size=400)

    with pytest.raises(Overloaded):
        admission.admit(b"other", 4, 40, rest_items=1000, rest_size=400)


def test_queries_of_an_importer_pass() -> None:
    """Where a whole office has one address, its import does not refuse its queries."""
    admission = _admission()
    admission.admit(b"office", 4, 40, rest_items=1000, rest_size=460)

    _admit(admission, *texts(3), client=b"office")

    assert admission.items == 7


def test_clients_are_forgotten_when_nothing_of_theirs_waits() -> None:
    """A million clients leave no memory behind."""
    admission = _admission()
    parts = [_admit(admission, *texts(3), client=b"someone") for _ in range(2)]

    for part in parts:
        admission.leave((part,))

    assert not admission.of_clients
    assert (admission.items, admission.size) == (0, 0)


# The limit of one client


def test_one_client_cannot_take_more_than_its_limit() -> None:
    """A client with much waiting is refused while others are accepted."""
    admission = _admission(max_items_of_one=4)
    _admit(admission, *texts(3), client=b"greedy")

    with pytest.raises(ClientQueueFull) as refused:
        _admit(admission, *texts(2), client=b"greedy")
    _admit(admission, *texts(3), client=b"modest")

    assert str(refused.value) == "3 of your inputs are waiting already: try again later"


def test_the_rest_of_a_large_call_counts_for_its_client() -> None:
    """An import is as much as it asks for, whenever that queues up."""
    admission = _admission(max_items_of_one=100)
    admission.admit(b"importer", 4, 40, rest_items=90, rest_size=100)

    with pytest.raises(ClientQueueFull):
        admission.admit(b"importer", 4, 40, rest_items=4, rest_size=40)


# What there never is room for


@pytest.mark.parametrize(
    ("options", "call", "names"),
    [
        ({}, (11, 100, 0, 0), "MAX_WAITING_INPUTS"),
        ({}, (4, 40, 100, 461), "MAX_WAITING_BYTES"),
        ({}, (1, 501, 0, 0), "MAX_WAITING_BYTES"),
        ({"max_items_of_one": 50}, (4, 40, 47, 50), "MAX_WAITING_INPUTS_PER_CLIENT"),
    ],
)
def test_a_call_that_never_fits_is_not_told_to_come_back(
    options: dict[str, int], call: tuple[int, int, int, int], names: str
) -> None:
    """It would come back for ever; the setting that it is too large for is named."""
    admission = _admission(**options)
    items, size, rest_items, rest_size = call

    with pytest.raises(CallTooLarge, match=names):
        admission.admit(b"", items, size, rest_items=rest_items, rest_size=rest_size)

    assert (admission.items, admission.rest_items) == (0, 0)


def test_a_call_of_one_part_has_room_below_the_limit_of_its_client() -> None:
    """What leaves at once on a quiet proxy is not refused for good on a busy one."""
    admission = _admission(max_items_of_one=2)

    _admit(admission, *texts(5))

    assert admission.items == 5


@pytest.mark.parametrize("limit", ["max_items", "max_size"])
def test_the_smallest_room_is_room(limit: str) -> None:
    """A worker's share of a small limit is 1."""
    admission = _admission(
        **{limit: 1, "max_size": 100} if limit == "max_items" else {}
    )

    part = _admit(admission, "a")

    assert admission.items == len(part.items)


def test_parts_are_small_enough_for_a_small_room() -> None:
    """A large batch does not take the whole queue, nor is its call refused."""
    proxy = harness(items=32, slots=1, max_waiting_items=40)
    proxy.submit("busy")

    call = proxy.submit(*texts(32))
    while proxy.upstream.open:
        proxy.upstream.open[0].answer()

    assert call.is_right
    assert max(map(len, proxy.upstream.batches)) == 10
    assert proxy.is_at_rest


# No client crowds out another

amounts = st.tuples(st.integers(1, 40), st.integers(1, 90))
"""Items, and bytes for each."""

moves = st.lists(
    st.one_of(
        st.tuples(st.just("come"), st.integers(0, 2), amounts, amounts | st.none()),
        st.tuples(st.just("leave"), st.integers(0, 100)),
        st.tuples(st.just("cancel"), st.integers(0, 100)),
    ),
    max_size=60,
)


class Model:
    """All that waits, one entry a call, from which each figure is added up anew."""

    def __init__(self) -> None:
        self.calls: list[dict[str, Any]] = []

    def sum(self, *names: str, client: bytes | None = None) -> int:
        """Add up the figures with these names, of all clients or of one."""
        return sum(
            call[name]
            for call in self.calls
            for name in names
            if client in (None, call["client"])
        )

    def has_room(self, call: dict[str, Any], max_items: int, max_size: int) -> bool:
        """Return whether *call* leaves as much free as its client has then."""
        own = {name: self.sum(name, client=call["client"]) for name in FIGURES}
        held = call["size"] + call["rest_size"]
        free_items = max_items - self.sum("items") - call["items"]
        free_size = max_size - self.sum("size", "rest_size") - held
        is_large = call["rest_items"] > 0
        own_size = own["size"] + (own["rest_size"] if is_large else 0)
        return (
            own["items"] + call["items"] <= free_items and own_size + held <= free_size
        )


FIGURES = ("items", "size", "rest_items", "rest_size")


class Game:
    """An admission and its model, with the same calls."""

    def __init__(self) -> None:
        self.clock = Clock()
        self.admission = _admission(self.clock, max_items=160, max_size=16_000)
        self.model = Model()
        self.parts: list[Part] = []

    def come(self, number: int, queued: Any, rest: Any) -> None:
        """Let a client send a call, and compare what it is told."""
        items, each = queued
        rest_items, rest_each = rest or (0, 0)
        client = b"client %d" % number
        call = {
            "client": client,
            "items": items,
            "size": items * each,
            "rest_items": rest_items,
            "rest_size": rest_items * rest_each,
        }
        expected = self.model.has_room(call, 160, 16_000)
        assert self._is_admitted(call) == expected
        if expected:
            self.model.calls.append(call)

    def _is_admitted(self, call: dict[str, Any]) -> bool:
        try:
            self.admission.admit(
                call["client"],
                call["items"],
                call["size"],
                rest_items=call["rest_items"],
                rest_size=call["rest_size"],
            )
        except ProxyError:
            return False
        return True

    def leave(self, which: int) -> None:
        """Send all that has queued up of a call, and let its rest queue up."""
        if not self.model.calls:
            return
        call = self.model.calls[which % len(self.model.calls)]
        self.admission.leave((self._part(call, "items", "size"),))
        call["items"] = call["size"] = 0
        if call["rest_items"]:
            self.admission.advance(self._part(call, "rest_items", "rest_size"))
            call.update(items=call["rest_items"], size=call["rest_size"])
            call.update(rest_items=0, rest_size=0)
        else:
            self.model.calls.remove(call)

    def _part(self, call: dict[str, Any], items: str, size: str) -> Part:
        part = _part(*"a" * call[items], client=call["client"])
        part.size = call[size]
        return part

    def cancel(self, which: int) -> None:
        """Let a caller leave."""
        if not self.model.calls:
            return
        call = self.model.calls.pop(which % len(self.model.calls))
        if call["rest_items"]:
            self.admission.forget_rest(_Rest(call))  # type: ignore[arg-type]
        self.admission.leave((self._part(call, "items", "size"),))


class _Rest:
    """The rest of a large call, as far as admission knows it."""

    def __init__(self, call: dict[str, Any]) -> None:
        self.call = _part("a", client=call["client"]).call
        self.left_items, self.left_size = call["rest_items"], call["rest_size"]


@settings(max_examples=300, deadline=None)
@given(moves)
def test_no_client_gets_more_than_it_leaves_free(play: list[Any]) -> None:
    """Whatever comes and goes: so each next client finds half of what the last did."""
    game = Game()

    for name, *arguments in play:
        getattr(game, name)(*arguments)

    for name in FIGURES:
        assert getattr(game.admission, name) == game.model.sum(name)
    clients = {call["client"] for call in game.model.calls}
    assert set(game.admission.of_clients) == clients


@settings(max_examples=300, deadline=None)
@given(moves)
def test_no_clients_crowd_out_another(play: list[Any]) -> None:
    """However much k of them want, one more with a small call is admitted."""
    game = Game()
    for name, *arguments in play:
        if name != "leave":  # which may let a rest be more than its first part
            getattr(game, name)(*arguments)
        held = len(game.admission.of_clients)
        items, size = 160 // 2 ** (held + 1), 16_000 // 2 ** (2 * held + 1)

        game.admission.admit(b"a newcomer", items, size)
        part = _part(*"a" * items, client=b"a newcomer")
        part.size = size
        game.admission.leave((part,))


def test_an_importer_takes_no_room_from_the_queries_of_others() -> None:
    """A hundred large imports at once, and no single query is refused."""
    proxy = harness(items=32, budget=64, slots=2, max_waiting_items=1000)
    refused = 0
    for _ in range(100):
        try:
            proxy.submit_of(b"importer", *texts(1000))
        except Overloaded:
            refused += 1
    queries = []
    for _ in range(50):
        queries.append(proxy.submit_of(b"other", "query"))
        proxy.upstream.open[0].answer()

    while any(query.is_open for query in queries):
        proxy.upstream.open[0].answer()

    assert refused
    assert all(query.is_right for query in queries)
    assert proxy.collector.admission.rest_items


# When to come back


def _serve(
    admission: Admission, clock: Clock, parts: list[Part], *, every: float
) -> Iterator[Part]:
    """Let one of *parts* leave after the other, and return what is left of them."""
    for part in parts:
        clock.advance(every)
        admission.leave((part,))
        yield part


def test_retry_after_is_when_there_is_room() -> None:
    """Not sooner than a second before, and not later."""
    clock = Clock()
    admission = _admission(clock, max_items=400, max_size=1_000_000)
    waiting = [_admit(admission, "x") for _ in range(200)]
    leaving = _serve(admission, clock, waiting, every=0.1)
    for _ in range(20):
        next(leaving)

    with pytest.raises(Overloaded) as refused:
        _admit(admission, *texts(100))
    until = clock.seconds() + refused.value.retry_after_s
    admitted_at = None
    while admitted_at is None:
        next(leaving)
        try:
            _admit(admission, *texts(100))
            admitted_at = clock.seconds()
        except Overloaded:
            pass

    assert until - 1 <= admitted_at <= until


def test_a_quiet_hour_does_not_make_retry_after_longer() -> None:
    """That few have left says nothing if few were there."""
    clock = Clock()
    admission = _admission(clock, max_items=100, max_size=1_000_000)
    for _ in range(2):
        part = _admit(admission, "x")
        admission.leave((part,))
        clock.advance(3600)
    _admit(admission, *texts(50))

    with pytest.raises(Overloaded) as refused:
        _admit(admission, "x")

    assert refused.value.retry_after_s == 1


def test_retry_after_is_a_second_where_nothing_is_known() -> None:
    """A caller is told to come back in a moment."""
    admission = _admission()
    _admit(admission, *texts(10))

    with pytest.raises(Overloaded) as refused:
        _admit(admission, "x")

    assert refused.value.retry_after_s == 1


def test_retry_after_is_never_longer_than_calls_may_wait() -> None:
    """Then at the latest others have left, or have had to."""
    clock = Clock()
    admission = _admission(clock, max_items=2000, max_size=1_000_000)
    waiting = [_admit(admission, "x") for _ in range(1000)]
    leaving = _serve(admission, clock, waiting, every=1)
    for _ in range(5):
        next(leaving)

    with pytest.raises(Overloaded) as refused:
        _admit(admission, *texts(900))

    assert refused.value.retry_after_s == 300


@pytest.mark.parametrize(
    ("others", "late", "room"),
    [
        ([100] * 10, 8, {"max_waiting_items": 160}),
        ([100] * 9 + [1] * 8, 8, {"max_waiting_items": 160}),
        ([300] * 3, 300, {"max_waiting_size": 20_000}),
        ([300] * 3 + [1] * 100, 300, {"max_waiting_size": 20_000}),
        ([300] * 3, 300, {"max_waiting_items_of_one": 900}),
        ([1] * 100, 70, {"max_waiting_items_of_one": 80}),
    ],
    ids=["places", "places of queries", "bytes", "bytes of all", "client", "queries"],
)
def test_who_comes_back_after_retry_after_is_admitted(
    others: list[int], late: int, room: dict[str, int]
) -> None:
    """Within twice the time, if the server stays as fast and no one else comes."""
    proxy = harness(items=8, budget=8, slots=1, **room)

    def comes_in(number: int) -> int | None:
        try:
            proxy.submit_of(b"client", *texts(number, f"input of {number} "))
        except Overloaded as error:
            return error.retry_after_s
        return None

    def serve() -> None:
        proxy.clock.advance(0.25)
        proxy.upstream.open[0].answer()

    for number in others:
        comes_in(number)
    for _ in range(4):
        serve()
    told_s = comes_in(late)
    assert told_s is not None
    since = proxy.clock.seconds()
    serve()
    while comes_in(late) is not None:
        serve()
    took_s = proxy.clock.seconds() - since
    assert took_s <= 2 * told_s
    assert told_s <= 2 * took_s + 1
