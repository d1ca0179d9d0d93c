"""How much may still be sent of one thing."""

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from abproxy.batching.allowance import MINUTE_S, WINDOW_S, Allowance


def allowed(limit: float | None) -> Allowance:
    """Return an allowance of so much a minute."""
    allowance = Allowance()
    allowance.set_limit(limit)
    return allowance


def send_until(
    allowance: Allowance, end: float, amount: float = 1.0, start: float = 0.0
) -> list[float]:
    """Send as soon as it is allowed until *end*; return when that was."""
    sent, now = list[float](), start
    while now < end:
        at = allowance.free_at(amount, now)
        if at <= now:
            allowance.take(amount, now)
            sent.append(now)
        else:
            now = max(at, now + 0.001)
    return sent


@settings(max_examples=200)
@given(
    limit=st.integers(1, 50),
    steps=st.lists(
        st.tuples(st.floats(0, 90), st.floats(0.5, 20)), min_size=1, max_size=80
    ),
)
def test_no_minute_has_more_than_is_set(
    limit: int, steps: list[tuple[float, float]]
) -> None:
    """Whatever is wanted when, and wherever a minute is taken to begin."""
    allowance = allowed(limit)
    now, sent = 0.0, list[tuple[float, float]]()
    for wait_s, wanted in steps:
        now += wait_s
        amount = min(wanted, limit)
        at = allowance.free_at(amount, now)
        if at <= now:
            allowance.take(amount, now)
            sent.append((now, amount))

    for began_at, _ in sent:
        within = [n for at, n in sent if began_at <= at < began_at + MINUTE_S]
        assert sum(within) <= limit + 1e-6


@settings(max_examples=100)
@given(
    limit=st.integers(1, 50),
    amounts=st.lists(st.floats(0.1, 60), min_size=1, max_size=60),
)
def test_what_is_sent_as_soon_as_it_may_be_keeps_the_limit(
    limit: int, amounts: list[float]
) -> None:
    """Each waits until it is told, and its turn comes within a minute or two."""
    allowance = allowed(limit)
    now, sent = 0.0, list[tuple[float, float]]()
    for wanted in amounts:
        amount, asked_at = min(wanted, limit), now
        while (at := allowance.free_at(amount, now)) > now:
            now = max(at, now + 0.001)
        assert now - asked_at <= 2 * WINDOW_S
        allowance.take(amount, now)
        sent.append((now, amount))

    for began_at, _ in sent:
        within = [n for at, n in sent if began_at <= at < began_at + MINUTE_S]
        assert sum(within) <= limit + 1e-6


@pytest.mark.parametrize("limit", [1, 3, 60, 500, 3000])
def test_all_that_is_set_is_used(limit: int) -> None:
    """The time for the way is the only price."""
    sent = send_until(allowed(limit), 600)

    assert len(sent) >= 0.95 * limit * 10


@pytest.mark.parametrize("limit", [60, 500])
def test_a_burst_is_followed_by_no_silence(limit: int) -> None:
    """A part of a minute may be used at once, and the rest is spread."""
    sent = send_until(allowed(limit), 300)

    at_once = [at for at in sent if at < 0.5]
    gaps = [after - before for before, after in pairwise(sent)]
    assert len(at_once) >= limit // 4
    assert max(gaps) <= 2.5 * MINUTE_S / limit


def test_a_large_amount_waits_longer_than_a_small_one() -> None:
    """So a query passes beside an import that takes all that there is."""
    allowance = Allowance(amounts_differ=True)
    allowance.set_limit(100_000)
    send_until(allowance, 120, amount=10_000)

    large, small = allowance.free_at(10_000, 120), allowance.free_at(10, 120)

    assert small - 120 < 0.1
    assert large - 120 > 1


def test_an_amount_over_the_limit_waits_for_all_of_it() -> None:
    """It never fits, and is for the upstream to judge."""
    allowance = allowed(10)
    allowance.take(4, 0)

    assert allowance.free_at(20, 1) == pytest.approx(WINDOW_S)
    assert allowance.free_at(20, WINDOW_S) == WINDOW_S


def test_a_guess_that_was_too_high_gives_back() -> None:
    """What the answer says counts, not what was thought."""
    allowance = allowed(100)
    entry = allowance.take(100, 0)
    before = allowance.free_at(50, 1)
    allowance.end(entry, 100, 20)

    assert before > 60
    assert allowance.free_at(50, 1) < 30


def test_without_limits_nothing_waits() -> None:
    """As in front of most servers."""
    allowance = Allowance()

    assert len({allowance.free_at(1e9, now) - now for now in range(100)}) == 1
    assert not allowance.is_limited(0)


# What the upstream has stated


def test_what_is_left_is_spread_until_there_is_more() -> None:
    """A window that ends in 30 seconds has 10 requests for them."""
    allowance = Allowance()
    allowance.heard(100, 10, 30, 0, refills=False)

    sent = send_until(allowance, 29.9)

    gaps = [after - before for before, after in pairwise(sent)]
    assert len(sent) == 10
    assert max(gaps) <= 6


def test_what_comes_back_little_by_little_is_used() -> None:
    """One a second, where 60 are allowed in a minute."""
    allowance = Allowance()
    allowance.heard(60, 0, 60, 0, refills=True)

    sent = send_until(allowance, 30)

    assert 20 <= len(sent) <= 30
    assert sent[0] == pytest.approx(1, abs=0.1)


def test_much_that_is_left_is_not_spread() -> None:
    """Half of a limit is for those who need it at once."""
    allowance = Allowance()
    allowance.heard(100, 90, 60, 0, refills=False)

    assert len([at for at in send_until(allowance, 1) if at < 0.1]) >= 25


def test_what_was_stated_ends_with_its_time() -> None:
    """Then all is left again, and the next answer says how much that is."""
    allowance = Allowance()
    allowance.heard(100, 0, 30, 0, refills=False)
    waits_until = allowance.free_at(1, 5)

    assert waits_until == 30
    assert allowance.is_limited(29)
    assert not allowance.is_limited(30)


def test_what_is_in_flight_is_not_left() -> None:
    """An answer does not know of what was sent after its request."""
    allowance = allowed(None)
    for _ in range(3):
        allowance.take(1, 0)
    allowance.end(None, 1, 1)
    allowance.heard(10, 2, 60, 0, refills=False)

    assert allowance.free_at(1, 1) == 60


def test_the_lower_of_two_limits_counts() -> None:
    """The operator may want less than the account has."""
    allowance = allowed(2)
    allowance.heard(1000, 900, 60, 0, refills=True)

    assert len(send_until(allowance, WINDOW_S - 1)) == 2


def test_how_long_much_takes_is_about_what_it_takes() -> None:
    """From that callers are told when to come back."""
    allowance = allowed(60)
    send_until(allowance, 120)

    foreseen = allowance.lasts_until(30, 120) - 120
    took = send_until(allowance, 200, start=120)[29] - 120

    assert took / 2 <= foreseen <= took * 2
