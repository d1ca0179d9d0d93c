"""How much one client may send in a second, and when it may come back."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock

from abproxy.errors import CallTooLarge, RateExceeded
from abproxy.web.rate_limit import RateLimiter


def sends(limiter: RateLimiter, inputs: int, rate: float) -> int | None:
    """Let a client send a call; return the time to come back if it may not."""
    try:
        limiter.check(b"client", inputs, rate)
    except RateExceeded as error:
        return error.retry_after_s
    limiter.take(b"client", inputs, rate)
    return None


def test_a_bucket_holds_what_comes_in_a_second() -> None:
    """What comes counts, and not only what came before."""
    limiter = RateLimiter(clock=Clock())

    assert sends(limiter, 6, 10) is None
    assert sends(limiter, 5, 10) == 1
    assert sends(limiter, 4, 10) is None


def test_a_call_larger_than_a_bucket_waits_for_a_full_one() -> None:
    """And its client for the debt that it leaves."""
    limiter = RateLimiter(clock=(clock := Clock()))

    assert sends(limiter, 1, 10) is None
    assert sends(limiter, 300, 10) == 1
    clock.advance(0.1)
    assert sends(limiter, 300, 10) is None
    assert sends(limiter, 10, 10) == 30
    assert sends(limiter, 1, 10) == 30
    clock.advance(29.1)
    assert sends(limiter, 1, 10) is None


def test_a_call_whose_debt_would_take_for_ever_is_refused_for_good() -> None:
    """It would keep its client out for hours, and upstream nothing would slow it."""
    limiter = RateLimiter(clock=Clock())

    with pytest.raises(CallTooLarge) as refused:
        limiter.check(b"client", 611, 10)

    assert sends(limiter, 610, 10) is None
    assert str(refused.value) == (
        "a call may have 610 inputs at most, where RATE_LIMIT is 10 a second"
    )


def test_a_slow_rate_lets_single_inputs_pass() -> None:
    """One in a hundred seconds is more than none."""
    limiter = RateLimiter(clock=(clock := Clock()))

    assert sends(limiter, 1, 0.01) is None
    assert sends(limiter, 1, 0.01) == 100
    clock.advance(100)
    assert sends(limiter, 1, 0.01) is None


@given(
    before=st.lists(st.tuples(st.integers(1, 400), st.floats(0, 3)), max_size=8),
    inputs=st.integers(1, 400),
    rate=st.floats(7, 50),
)
def test_who_comes_back_after_retry_after_may_send(
    before: list[tuple[int, float]], inputs: int, rate: float
) -> None:
    """Exactly then, and a second earlier not yet."""
    limiter = RateLimiter(clock=(clock := Clock()))
    for each, pause_s in before:
        sends(limiter, each, rate)
        clock.advance(pause_s)
    told_s = sends(limiter, inputs, rate)

    if told_s is None:
        return
    clock.advance(told_s - 1)
    assert told_s == 1 or sends(limiter, inputs, rate) == 1
    clock.advance(1)
    assert sends(limiter, inputs, rate) is None
