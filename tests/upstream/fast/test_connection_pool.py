"""Connections that have nothing to do."""

import pytest
from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock

from abproxy.upstream.connections import (
    FORGET_AFTER_S,
    IDLE_S,
    LONGEST_S,
    SHORTEST_S,
)
from abproxy.upstream.fast.connection import ConnectionPool


@define(eq=False)
class Idle:
    """A connection that closes when the test says so."""

    closed: Deferred[None] = field(factory=Deferred)
    is_told_to_leave: bool = False

    def close(self) -> Deferred[None]:
        self.is_told_to_leave = True
        return self.closed


def idle_with(count: int, most: int = 9) -> tuple[Clock, ConnectionPool, list[Idle]]:
    """Put some away, a second after each other."""
    clock = Clock()
    idle = ConnectionPool(clock, most)
    idlers = [Idle() for _ in range(count)]
    for idler in idlers:
        idle.put(idler)
        clock.advance(1)
    return clock, idle, idlers


def left(idlers: list[Idle]) -> list[bool]:
    """Tell which of them were told to leave."""
    return [idler.is_told_to_leave for idler in idlers]


def test_the_newest_is_used_first() -> None:
    """It is the least likely to be closed."""
    _, idle, (one, two, three) = idle_with(3)

    assert [idle.take() for _ in range(4)] == [three, two, one, None]


def test_one_that_is_put_back_is_the_newest() -> None:
    """However long it is known."""
    _, idle, (one, two) = idle_with(2)
    idle.take()
    idle.take()

    idle.put(two)
    idle.put(one)

    assert idle.take() is one


def test_one_that_was_closed_is_not_used() -> None:
    """The server may close it at any time."""
    _, idle, (one, two) = idle_with(2)

    idle.remove(two)
    idle.remove(Idle())

    assert [idle.take(), idle.take()] == [one, None]


def test_each_is_closed_when_its_time_is_over() -> None:
    """Not a second earlier, and the newer ones later."""
    clock, _, idlers = idle_with(3)

    clock.advance(IDLE_S - 3.5)
    before = left(idlers)
    seen = []
    for _ in range(3):
        clock.advance(1)
        seen.append(left(idlers))

    assert before == [False, False, False]
    assert seen == [[True, False, False], [True, True, False], [True, True, True]]


def test_one_that_was_used_meanwhile_begins_anew() -> None:
    """It is idle since its last answer."""
    clock, idle, (one,) = idle_with(1)
    clock.advance(IDLE_S - 2)
    idle.take()
    idle.put(one)

    clock.advance(IDLE_S - 0.5)
    early = one.is_told_to_leave
    clock.advance(0.5)

    assert (early, one.is_told_to_leave) == (False, True)


def test_after_a_pause_of_this_process_none_is_used_that_is_too_old() -> None:
    """The timer is as late as everything else."""
    clock, idle, idlers = idle_with(2)
    clock.rightNow += IDLE_S

    assert idle.take() is None
    assert left(idlers) == [True, True]


@pytest.mark.parametrize(
    ("line", "expected_s"),
    [
        (b"timeout=5", 4),
        (b"timeout=5, max=100", 4),
        (b"max=100, Timeout = 31", 30),
        (b"timeout=1", 0.5),
        (b"timeout=99999", LONGEST_S),
        (b"timeout=x", IDLE_S),
        (b"x-timeout=2", IDLE_S),
        (b"max=2", IDLE_S),
    ],
)
def test_a_server_that_says_how_long_it_keeps_them_is_believed(
    line: bytes, expected_s: float
) -> None:
    """But for a second, in which a request may be on its way."""
    clock = Clock()
    pool = ConnectionPool(clock, 9)
    pool.limit.apply(line)
    pool.put(one := Idle())

    clock.advance(expected_s - 0.01)
    before = one.is_told_to_leave
    clock.advance(0.01)

    assert (before, one.is_told_to_leave) == (False, True)


def test_a_server_that_closes_them_earlier_is_learned_from() -> None:
    """The next are closed before it does so again; it may change its mind."""
    clock = Clock()
    pool = ConnectionPool(clock, 9)
    pool.put(one := Idle())
    clock.advance(2)
    pool.lost(one)

    pool.put(two := Idle())
    clock.advance(1.5)

    assert two.is_told_to_leave
    clock.advance(FORGET_AFTER_S)
    pool.put(three := Idle())
    clock.advance(IDLE_S - 0.1)
    assert not three.is_told_to_leave


def test_a_restart_does_not_end_the_use_of_connections() -> None:
    """It closes those that are quite new as well."""
    clock = Clock()
    pool = ConnectionPool(clock, 9)
    pool.put(one := Idle())
    pool.lost(one)

    pool.put(two := Idle())
    clock.advance(SHORTEST_S - 0.1)

    assert pool.take() is two


def test_one_that_is_closed_here_says_nothing_of_the_server() -> None:
    """Or the limit would shrink by itself."""
    clock = Clock()
    pool = ConnectionPool(clock, 9)
    for _ in range(9):
        pool.put(one := Idle())
        clock.advance(IDLE_S)
        pool.lost(one)

    assert pool.limit.seconds == IDLE_S


def test_one_timer_watches_over_all() -> None:
    """And none when there is nothing to watch over."""
    clock, idle, _ = idle_with(3)
    timers = len(clock.getDelayedCalls())

    while idle.take() is not None:
        pass
    clock.advance(IDLE_S)

    assert timers == 1
    assert not clock.getDelayedCalls()


def test_the_oldest_makes_room() -> None:
    """As many are kept as can be busy at once."""
    _, idle, idlers = idle_with(3, most=2)

    assert left(idlers) == [True, False, False]
    assert [idle.take() for _ in range(3)] == [idlers[2], idlers[1], None]


def test_closing_waits_until_all_are_closed() -> None:
    """Nothing is left open, and no timer."""
    clock, idle, idlers = idle_with(2)
    closed: list[None] = []

    idle.close().addCallback(closed.append)
    idlers[0].closed.callback(None)
    early = list(closed)
    idlers[1].closed.callback(None)

    assert left(idlers) == [True, True]
    assert (early, closed) == ([], [None])
    assert idle.take() is None
    assert not clock.getDelayedCalls()


def test_it_can_be_used_after_closing() -> None:
    """A server that broke a connection may be back."""
    clock, idle, _ = idle_with(1)
    idle.close()
    late = Idle()

    idle.put(late)
    clock.advance(IDLE_S)

    assert late.is_told_to_leave
