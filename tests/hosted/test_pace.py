"""Batches that are sent as an account at a hosted API allows it."""

from collections.abc import Callable
from typing import Any

import pytest
from attrs import define, field
from msgspec.structs import replace
from twisted.internet.defer import succeed
from twisted.python.failure import Failure

from abproxy.batching.account import Rates
from abproxy.dialects.call import Call
from abproxy.errors import AccountUsedUp, Overloaded
from abproxy.events import BlockedBy, Observer
from abproxy.http.messages import UpstreamRequest
from bench.hosted import Account
from support.batching import harness
from support.hosted import Hosted, hosted, openai_call
from support.upstream import reply

TEXT = "x" * 160
"""40 tokens, by the rules of the simulated account."""

TEN_MINUTES_S = 600


@define(eq=False)
class Clients:
    """Clients that ask again as soon as they are answered."""

    proxy: Hosted
    call: Callable[[], Call]
    pause_s: float = 0.01
    stays_s: list[float] = field(factory=list, init=False)
    failures: list[Any] = field(factory=list, init=False)

    def start(self, count: int) -> None:
        """Begin, one shortly after the other."""
        for each in range(count):
            self.proxy.clock.callLater(0.01 * each, self._ask)

    def _ask(self) -> None:
        clock, began_at = self.proxy.clock, self.proxy.clock.seconds()

        def answered(outcome: Any) -> None:
            is_good = not isinstance(outcome, Failure) and outcome[0].rows is not None
            is_alone = is_good or (
                not isinstance(outcome, Failure) and outcome[0].response.status == 200
            )
            if is_alone:
                self.stays_s.append(clock.seconds() - began_at)
            else:
                self.failures.append(outcome)
            clock.callLater(self.pause_s, self._ask)

        try:
            self.proxy.collector.submit(self.call()).addBoth(answered)
        except Overloaded as error:
            self.failures.append(error)
            clock.callLater(error.retry_after_s, self._ask)


def run(proxy: Hosted, seconds: float) -> None:
    """Let time pass."""
    for _ in proxy.run(seconds):
        pass


SET, STATED, UNKNOWN = (
    Rates(requests=60, tokens=1_000_000),
    Rates(is_hosted=True),
    Rates(),
)


@pytest.mark.parametrize(
    ("rates", "states", "steps"),
    [
        (SET, False, False),
        (SET, True, False),
        (SET, False, True),
        (STATED, True, False),
        (STATED, True, True),
        (UNKNOWN, True, False),
    ],
)
def test_an_account_is_used_and_hardly_refuses(
    rates: Rates,
    states: bool,  # noqa: FBT001
    steps: bool,  # noqa: FBT001
) -> None:
    """In ten minutes 95 of 100 requests are used, and 1 of 100 is refused at most."""
    account = Account.of(60, 1_000_000, steps=steps)
    proxy = hosted(account, rates=rates, states=states)
    clients = Clients(proxy, lambda: openai_call(TEXT))
    clients.start(40)

    run(proxy, TEN_MINUTES_S)

    assert account.refused < 0.01 * account.taken
    assert account.taken >= 0.95 * 600
    assert not clients.failures
    assert len(clients.stays_s) > 15 * account.taken


@pytest.mark.parametrize("rates", [Rates(requests=3000, tokens=40_000), STATED])
def test_an_account_is_used_where_its_tokens_are_short(rates: Rates) -> None:
    """Requests are no use where a minute has tokens for 1,000 calls."""
    account = Account.of(3000, 40_000)
    proxy = hosted(account, rates=rates)
    Clients(proxy, lambda: openai_call(*[TEXT] * 5)).start(40)

    run(proxy, TEN_MINUTES_S)

    assert account.refused < 0.01 * account.taken
    assert account.tokens_taken >= 0.95 * 400_000


def test_what_waits_shares_the_next_request() -> None:
    """One request a second carries all 200 calls that have come meanwhile."""
    proxy = hosted(Account.of(60, 1e9), items=1000, rates=Rates(requests=60))
    Clients(proxy, lambda: openai_call(TEXT)).start(200)
    run(proxy, 30)

    before = len(proxy.api.sent)
    run(proxy, 20)
    later = proxy.api.sent[before:]

    assert sum(inputs for _, inputs in later) / len(later) > 150


# Who goes first


@pytest.mark.parametrize("account", [Account.of(60, 1e9), Account.of(10_000, 100_000)])
def test_queries_overtake_bulk(account: Account) -> None:
    """A query waits for about one request, however much of an import is waiting."""
    rates = Rates(
        requests=int(account.requests.limit), tokens=int(account.tokens.limit)
    )
    proxy = hosted(account, rates=rates)
    imports = Clients(
        proxy, lambda: openai_call(*[TEXT] * 50, is_bulk=True, model="small")
    )
    queries = Clients(proxy, lambda: openai_call("q"), pause_s=3)
    imports.start(10)
    run(proxy, 90)
    queries.start(1)
    run(proxy, 120)

    assert len(queries.stays_s) > 25
    assert max(queries.stays_s) < 3
    assert len(imports.stays_s) > 50


def test_bulk_is_not_forgotten_for_queries() -> None:
    """Of ten requests it has one, though there always are queries."""
    proxy = hosted(Account.of(60, 1e9), items=20, rates=Rates(requests=60))
    queries = Clients(proxy, lambda: openai_call("q"))
    imports = Clients(proxy, lambda: openai_call(*[TEXT] * 20, is_bulk=True))
    queries.start(60)
    run(proxy, 60)
    imports.start(5)
    before = len(proxy.api.sent)
    run(proxy, 120)

    bulk = [b for b in proxy.api.bodies[before:] if b["input"][0] == TEXT]
    assert 10 <= len(bulk) <= 14


# A window that is used up


def test_a_window_of_a_minute_is_waited_out() -> None:
    """Others have used the account up: its next minute serves, and nobody fails."""
    account = Account.of(60, 1e9, steps=True)
    proxy = hosted(account, takes_s=0.001)
    proxy.clock.advance(5)
    account.requests.look(5)
    account.requests.left = 0
    clients = Clients(proxy, lambda: openai_call(TEXT), pause_s=1000)
    clients.start(20)

    run(proxy, 50)
    before = list(clients.stays_s)
    run(proxy, 20)

    assert before == []
    assert len(clients.stays_s) == 20
    assert not clients.failures
    assert account.refused <= 2


def test_a_lone_call_to_an_unknown_host_waits_out_its_window() -> None:
    """The first refusal says whose limits these are, and until when."""
    account = Account.of(60, 1e9, steps=True)
    proxy = hosted(account, rates=Rates())
    proxy.clock.advance(15)
    account.requests.look(15)
    account.requests.left = 0
    done = proxy.submit(openai_call(TEXT))
    outcome = list[Any]()
    done.addBoth(outcome.append)

    run(proxy, 40)
    before = list(outcome)
    run(proxy, 10)

    assert before == []
    [result] = outcome
    assert result[0].response.status == 200
    assert account.refused == 1


def test_a_pause_that_is_absurd_is_not_kept_for_ever() -> None:
    """After ten minutes it is tried again, whatever was asked for."""
    proxy = hosted(Account.of(60, 1e9))
    key = openai_call("a").lane_key
    for_ever = reply(429, b"", (b"Retry-After", b"999999999"))
    proxy.collector.pace.look_at(for_ever, key)
    with pytest.raises(AccountUsedUp) as refused:
        proxy.submit(openai_call("a"))

    proxy.clock.advance(refused.value.retry_after_s + 61)
    done = proxy.submit(openai_call("a"))
    run(proxy, 1)

    assert refused.value.retry_after_s < 600
    assert done.called


def test_a_patience_that_is_set_is_kept() -> None:
    """An operator who wants an answer within seconds gets one, if only a refusal."""
    account = Account.of(60, 1e9, steps=True)
    proxy = hosted(account, rates=Rates(is_hosted=True, patience_s=5))
    account.requests.left = 0
    done = proxy.submit(openai_call(TEXT))
    outcome = list[Any]()
    done.addBoth(outcome.append)

    run(proxy, 1)

    [result] = outcome
    assert result[0].response.status == 429


def test_a_call_that_would_wait_too_long_is_refused_at_once() -> None:
    """And what it is told is true: a call that comes after that finds room."""
    proxy = hosted(Account.of(6, 1e9), items=1, rates=Rates(requests=6), takes_s=0.01)
    waiting = [proxy.submit(openai_call(str(n))) for n in range(7)]
    with pytest.raises(AccountUsedUp) as refused:
        proxy.submit(openai_call("late"))
    after_s = refused.value.retry_after_s

    run(proxy, after_s)
    began_at = proxy.clock.seconds()
    again = proxy.submit(openai_call("again"))
    while not again.called:
        run(proxy, 0.05)

    assert 1 <= after_s <= 20
    assert all(done.called for done in waiting)
    assert proxy.clock.seconds() - began_at <= 61


def test_an_import_of_one_client_refuses_no_other() -> None:
    """It has filled the minute with its own calls; a query of another has a turn."""
    proxy = hosted(Account.of(6, 1e9), items=1, rates=Rates(requests=6), slots=4)
    for number in range(7):
        proxy.submit(openai_call(str(number), client=b"import"))
    with pytest.raises(AccountUsedUp):
        proxy.submit(openai_call("more", client=b"import"))
    began_at = proxy.clock.seconds()
    query = proxy.submit(openai_call("q", client=b"other"))

    while not query.called:
        run(proxy, 0.1)

    assert proxy.clock.seconds() - began_at < 30


def test_a_large_call_is_admitted_for_its_first_part() -> None:
    """The next part queues up when the one before has left, and waits by itself."""
    proxy = hosted(Account.of(6, 1e9), items=10, rates=Rates(requests=6))
    done = proxy.submit(openai_call(*map(str, range(200))))

    run(proxy, 240)

    assert done.called
    assert len(proxy.api.sent) == 20


def test_nothing_waits_for_an_account_that_refuses_for_another_reason() -> None:
    """Without a time that it states, the usual patience holds."""
    proxy = harness()
    call = proxy.submit("a")
    proxy.upstream.sent[0].done.callback(reply(429, b"no", (b"Retry-After", b"30")))

    assert call.reply.status == 429


# How much fits into a request


def test_tokens_of_a_request_are_capped() -> None:
    """A call with more is split; how many bytes that is, answers teach."""
    proxy = hosted(Account.of(1e6, 1e9), items=1000, rates=Rates(batch_tokens=1000))
    for _ in range(30):
        proxy.submit(openai_call(*[TEXT] * 20))
        run(proxy, 0.5)
    learned = proxy.api.sent[-1]
    proxy.submit(openai_call(*[TEXT] * 100))
    run(proxy, 5)

    first = proxy.api.bodies[0]["input"]
    assert sum(len(text) // 4 for text in first) <= 1000
    assert learned[1] == 20
    parts = [inputs for _, inputs in proxy.api.sent[-5:]]
    assert sum(parts) == 100
    assert max(parts) * 40 <= 1000
    assert max(parts) * 40 > 800


def test_what_an_error_repeats_of_a_call_is_not_believed() -> None:
    """Else one client could use up the tokens of all."""
    rates = Rates(requests=600, tokens=30_000)
    proxy = hosted(Account.of(600, 30_000), rates=rates)
    of_client = b'{"detail":[{"input":{"total_tokens":999999999999}}]}'
    proxy.collector.pace.send(
        lambda _request: succeed(reply(422, of_client)),
        openai_call(TEXT).lane_key,
        UpstreamRequest(path=b"/v1/embeddings", headers=(), body=b"x" * 2000),
    )

    done = proxy.submit(openai_call(TEXT))
    run(proxy, 2)

    assert done.called
    assert not proxy.refusals


def test_tokens_are_counted_of_what_a_request_may_have() -> None:
    """And not of all that waits behind it, where few inputs go into one."""
    rates = Rates(requests=600, tokens=30_000)
    proxy = hosted(Account.of(600, 30_000), items=2, rates=rates)
    done = [proxy.submit(openai_call(TEXT)) for _ in range(100)]

    run(proxy, 10)

    assert all(each.called for each in done)


def test_few_requests_have_the_more_tokens() -> None:
    """Where an account has three requests a minute, each has a third of its tokens."""
    stated = reply(
        200,
        b"{}",
        (b"x-ratelimit-limit-requests", b"3"),
        (b"x-ratelimit-remaining-requests", b"3"),
        (b"x-ratelimit-limit-tokens", b"9000"),
        (b"x-ratelimit-remaining-tokens", b"9000"),
    )
    proxy = hosted(Account.of(1e6, 1e9))
    key, pace = openai_call("a").lane_key, proxy.collector.pace

    pace.look_at(stated, key)

    assert pace.fit(key, proxy.collector.caps).size == 9000


def test_more_tokens_in_a_byte_are_believed_at_once() -> None:
    """Too large a request is refused, too small a one only a bit dearer."""
    proxy = hosted(Account.of(1e6, 1e9), items=1000, rates=Rates(batch_tokens=1000))
    proxy.submit(openai_call(TEXT))
    run(proxy, 1)
    before = proxy.collector.pace.fit(openai_call("a").lane_key, proxy.collector.caps)
    account = proxy.collector.pace._account_of(openai_call("a").lane_key)

    account.learn(2000, 2000)
    after = proxy.collector.pace.fit(openai_call("a").lane_key, proxy.collector.caps)

    assert before.size == 3000
    assert after.size == 1000


def test_each_model_has_the_cap_of_the_table() -> None:
    """What one model takes, another may refuse."""

    def most_of(model: bytes) -> tuple[int | None, int | None]:
        return (4 if model == b'"large"' else 50), None

    proxy = hosted(Account.of(1e6, 1e9), rates=Rates(is_hosted=True, most_of=most_of))
    proxy.submit(openai_call(*map(str, range(8)), model="large"))
    proxy.submit(openai_call(*map(str, range(50)), model="small"))
    run(proxy, 1)

    assert sorted(inputs for _, inputs in proxy.api.sent) == [4, 4, 50]


def test_a_refusal_for_the_rate_teaches_nothing_about_the_size() -> None:
    """The next request is as large as the one that came too early."""
    account = Account.of(60, 1e9, steps=True)
    proxy = hosted(account)
    account.requests.left = 0
    for n in range(50):
        proxy.collector.submit(openai_call(str(n)))
    run(proxy, 70)

    assert proxy.api.sent[-1][1] == 50


# Whose limits they are


def test_models_are_paced_each_by_itself() -> None:
    """One that is used up keeps no other waiting."""
    proxy = hosted(Account.of(1e6, 1e9))
    pace = proxy.collector.pace
    used_up = reply(
        200,
        b"{}",
        (b"x-ratelimit-limit-requests", b"10"),
        (b"x-ratelimit-remaining-requests", b"0"),
        (b"x-ratelimit-reset-requests", b"30s"),
    )
    pace.look_at(used_up, openai_call("a", model="large").lane_key)
    slow = proxy.submit(openai_call("a", model="large"))
    quick = proxy.submit(openai_call("a", model="small"))
    run(proxy, 1)

    assert quick.called
    assert not slow.called


def test_clients_with_accounts_of_their_own_are_paced_each_by_itself() -> None:
    """What one of them has used up is no other's."""
    proxy = hosted(Account.of(1e6, 1e9))

    def call_of(key: bytes) -> Call:
        call = openai_call("a")
        lane_key = replace(
            call.lane_key, headers=((b"Authorization", key),), is_personal=True
        )
        return replace(call, lane_key=lane_key)

    used_up = reply(
        200, b"{}", (b"ratelimit-remaining", b"0"), (b"ratelimit-reset", b"30")
    )
    proxy.collector.pace.look_at(used_up, call_of(b"one").lane_key)
    slow = proxy.submit(call_of(b"one"))
    quick = proxy.submit(call_of(b"two"))
    run(proxy, 1)

    assert quick.called
    assert not slow.called


USED_UP = reply(200, b"{}", (b"ratelimit-remaining", b"0"), (b"ratelimit-reset", b"30"))


def test_models_that_an_api_counts_together_wait_together() -> None:
    """What one has used up is used up for the other."""
    rates = Rates(is_hosted=True, counts_models_together=True)
    proxy = hosted(Account.of(1e6, 1e9), rates=rates)
    proxy.collector.pace.look_at(USED_UP, openai_call("a", model="large").lane_key)

    waiting = proxy.submit(openai_call("a", model="small"))
    run(proxy, 1)

    assert not waiting.called
    run(proxy, 30)
    assert waiting.called


def test_invented_models_drive_out_no_account_that_works() -> None:
    """Though it is asked for seldom: what is used up of it stays so."""
    proxy = hosted(Account.of(1e6, 1e9))
    pace = proxy.collector.pace
    pace.look_at(USED_UP, openai_call("a").lane_key)
    not_found = reply(404, b"{}", (b"ratelimit-remaining", b"9"))
    for at in range(3000):
        pace.look_at(not_found, openai_call("a", model=f"no-{at}").lane_key)

    waiting = proxy.submit(openai_call("a"))
    run(proxy, 1)

    assert not waiting.called


def test_of_many_accounts_the_one_used_least_lately_is_forgotten() -> None:
    """Each client may have one."""
    proxy = hosted(Account.of(1e6, 1e9))
    pace = proxy.collector.pace
    for at in range(1500):
        pace.look_at(USED_UP, openai_call("a").lane_key)
        pace.look_at(USED_UP, openai_call("a", model=f"m-{at}").lane_key)

    used, forgotten = (
        proxy.submit(openai_call("a")),
        proxy.submit(openai_call("a", model="m-1")),
    )
    run(proxy, 1)

    assert not used.called
    assert forgotten.called
    assert len(list(pace.accounts)) <= 2000


def test_workers_share_what_is_left() -> None:
    """Each may use its part of it, as it cannot know what the others send."""
    proxy = hosted(Account.of(1e6, 1e9), rates=Rates(is_hosted=True, shares=4))
    key = openai_call("a").lane_key
    left = reply(
        200,
        b"{}",
        (b"ratelimit-limit", b"100"),
        (b"ratelimit-remaining", b"8"),
        (b"ratelimit-reset", b"60"),
    )
    proxy.collector.pace.look_at(left, key)
    account = proxy.collector.pace._account_of(key)
    account.requests.take(1, 0)
    account.requests.take(1, 0)

    assert account.requests.free_at(1, 0) == 60


# When it does nothing


def test_it_does_nothing_without_limits() -> None:
    """A call that finds nothing in flight leaves as it comes."""
    proxy = harness()
    proxy.submit("a")
    proxy.upstream.sent[0].answer()

    assert not proxy.collector.pace.is_active
    assert proxy.is_at_rest


def test_what_an_upstream_has_stated_is_forgotten_in_time() -> None:
    """An account that is hardly used is not looked at any more."""
    account = Account.of(60, 1e9)
    proxy = hosted(account, rates=Rates())
    account.requests.left = 20
    for _ in range(3):
        proxy.collector.submit(openai_call("a"))
        proxy.collector.submit(openai_call("b"))
        run(proxy, 1)
    was_active = proxy.collector.pace.is_active
    run(proxy, 120)
    for _ in range(3):
        proxy.collector.submit(openai_call("a"))
        run(proxy, 1)

    assert was_active
    assert not proxy.collector.pace.is_active


def test_waiting_for_the_account_is_told() -> None:
    """The page and the metrics say what calls wait for."""
    told = list[BlockedBy]()

    class Notes(Observer):
        def blocked(self, by: BlockedBy) -> None:
            told.append(by)

    proxy = hosted(
        Account.of(1, 1e9), rates=Rates(requests=1), observer=Notes(), items=1
    )
    proxy.submit(openai_call("a"))
    late = proxy.collector.submit(openai_call("b"))
    run(proxy, 1)
    late.addErrback(lambda _: None)
    late.cancel()
    run(proxy, 1)

    assert BlockedBy.ACCOUNT in told
    assert told[-1] is BlockedBy.NOTHING
    assert not proxy.collector.admission.items
    proxy.collector.stop()
    assert not proxy.clock.getDelayedCalls()
