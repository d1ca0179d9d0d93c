"""Whatever is asked of a hosted API when: its account is kept, and all are answered."""

from typing import Any

import msgspec
from attrs import define, field
from hypothesis import given, settings
from hypothesis import strategies as st

from abproxy.batching.account import Rates
from abproxy.batching.allowance import MINUTE_S
from abproxy.dialects.call import Call
from abproxy.dialects.reply import write_answer
from abproxy.errors import AccountUsedUp
from abproxy.http.messages import Response
from bench.hosted import Account
from support.hosted import Hosted, hosted, openai_call


@define(eq=False)
class Asked:
    """One call, and what became of it."""

    call: Call
    done: Any
    outcomes: list[Any] = field(factory=list)
    is_cancelled: bool = False

    def __attrs_post_init__(self) -> None:
        self.done.addCallback(lambda results: write_answer(self.call, results))
        self.done.addBoth(self.outcomes.append)

    @property
    def is_right(self) -> bool:
        """Whether it has its own rows, in order."""
        [reply] = self.outcomes
        if not isinstance(reply, Response) or reply.status != 200:
            return False
        rows = msgspec.json.decode(reply.body)["data"]
        texts = msgspec.json.decode(self.call.alone.body)["input"]
        return [row["embedding"] for row in rows] == [[len(text)] for text in texts]


steps = st.lists(
    st.tuples(
        st.sampled_from(["ask", "ask", "ask", "wait", "leave"]),
        st.integers(1, 30),
        st.integers(1, 60),
        st.sampled_from(["small", "large"]),
        st.booleans(),
    ),
    min_size=1,
    max_size=40,
)


def _play(proxy: Hosted, steps: list[Any]) -> list[Asked]:
    asked = list[Asked]()
    for what, number, length, model, is_bulk in steps:
        if what == "wait":
            proxy.clock.advance(number / 2)
        elif what == "leave" and asked:
            left = asked[number % len(asked)]
            left.is_cancelled = True
            left.done.addErrback(lambda _: None)
            left.done.cancel()
        else:
            texts = ["x" * (length + at) for at in range(number)]
            call = openai_call(*texts, model=model, is_bulk=is_bulk)
            try:
                asked.append(Asked(call, proxy.collector.submit(call)))
            except AccountUsedUp:
                continue
            proxy.clock.advance(0)
    return asked


def _finish(proxy: Hosted, asked: list[Asked]) -> None:
    for _ in range(4000):
        if all(each.outcomes for each in asked):
            break
        proxy.clock.advance(0.5)
    proxy.clock.advance(1)


@settings(max_examples=60, deadline=None)
@given(steps=steps, requests=st.integers(6, 60), tokens=st.integers(2000, 20_000))
def test_a_limit_that_is_set_is_kept_and_each_call_gets_its_own(
    steps: list[Any], requests: int, tokens: int
) -> None:
    """In no minute there are more requests, and each caller has the rows of its own."""
    account = Account.of(requests, tokens)
    rates = Rates(requests=requests, tokens=tokens)
    proxy = hosted(account, items=20, rates=rates, slots=4)

    asked = _play(proxy, steps)
    _finish(proxy, asked)

    assert all(each.is_right for each in asked if not each.is_cancelled)
    for began_at, _ in proxy.api.sent:
        within = [at for at, _ in proxy.api.sent if 0 <= at - began_at < MINUTE_S]
        assert len(within) <= requests
    _is_at_rest(proxy)


@settings(max_examples=60, deadline=None)
@given(
    steps=steps,
    requests=st.integers(6, 60),
    used=st.floats(0, 1),
    are_steps=st.booleans(),
)
def test_limits_that_are_stated_refuse_no_caller(
    steps: list[Any],
    requests: int,
    used: float,
    are_steps: bool,  # noqa: FBT001
) -> None:
    """However much of the account others have used before."""
    account = Account.of(requests, 1e9, steps=are_steps)
    proxy = hosted(account, items=20, slots=4)
    proxy.clock.advance(7)
    account.requests.look(7)
    account.requests.left = requests * (1 - used)

    asked = _play(proxy, steps)
    _finish(proxy, asked)

    assert all(each.is_right for each in asked if not each.is_cancelled)
    _is_at_rest(proxy)


def _is_at_rest(proxy: Hosted) -> None:
    """Check that nothing is left of what was asked."""
    collector = proxy.collector
    assert not collector.admission.items
    assert not collector.admission.of_clients
    assert not collector.budget.items_in_flight
    assert not collector.queue.lanes
    proxy.clock.advance(1)
    collector.stop()
    assert not proxy.clock.getDelayedCalls()
