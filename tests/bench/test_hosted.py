"""The simulated hosted API, and what was measured in front of it."""

import json

import pytest

from bench.hosted import Account
from bench.hosted.__main__ import JSON, MAKER, PAGES, table
from bench.hosted.clients import Seen
from bench.wire.pages import between


def test_requests_come_back_little_by_little() -> None:
    """One a second, where 60 are allowed in a minute."""
    account = Account.of(60, 1e6)
    at_once = [account.ask(1, 0)[0] for _ in range(61)]
    status, lines = account.ask(1, 0.5)
    later = account.ask(1, 1.01)[0]

    assert at_once == [200] * 60 + [429]
    assert status == 429
    assert (b"retry-after-ms", b"501") in lines
    assert (b"Retry-After", b"1") in lines
    assert later == 200


def test_all_of_a_window_comes_back_at_once() -> None:
    """At the full minute, as some others do it."""
    account = Account.of(2, 1e6, steps=True)
    answers = [account.ask(1, at)[0] for at in (50, 51, 52, 60, 61, 62)]

    assert answers == [200, 200, 429, 200, 200, 429]


def test_tokens_are_limited_as_well() -> None:
    """A request with more than is left is refused, and costs nothing."""
    account = Account.of(60, 100)

    assert account.ask(80, 0)[0] == 200
    assert account.ask(80, 0)[0] == 429
    assert account.ask(20, 0)[0] == 200
    assert (account.taken, account.refused, account.tokens_taken) == (2, 1, 100)


def test_an_answer_states_what_is_left() -> None:
    """In OpenAI's lines, and its way to write times."""
    account = Account.of(60, 150_000)
    account.ask(16, 0)
    lines = dict(account.lines())

    assert lines[b"x-ratelimit-limit-requests"] == b"60"
    assert lines[b"x-ratelimit-remaining-requests"] == b"59"
    assert lines[b"x-ratelimit-reset-requests"] == b"1s"
    assert lines[b"x-ratelimit-remaining-tokens"] == b"149984"
    assert lines[b"x-ratelimit-reset-tokens"] == b"6ms"


def test_who_still_waits_at_the_end_counts_as_slow() -> None:
    """Otherwise those who were never answered would make the median shorter."""
    seen = Seen(10, stays_s=[1.0], left_s=[9.0, 10.0], refused=3)

    assert seen.half_s == 9
    assert seen.calls_per_s == 0.1
    assert seen.refused_share == 0.75


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_the_pages_show_what_was_measured(page: object) -> None:
    """`make bench/hosted` writes them, and nobody else."""
    found = json.loads(JSON.read_text(encoding="utf-8"))
    [text] = [each.read_text(encoding="utf-8") for each in PAGES if each == page]

    assert between(text, MAKER) == table(found)
