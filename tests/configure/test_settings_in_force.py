"""What the operator has set reaches what it is for, in a whole proxy."""

import pytest
from attrs import evolve

from abproxy.configure import keys_of_rows
from abproxy.settings.settings import Settings
from abproxy.upstream.server_info import ServerInfo
from support.proxy import wired


@pytest.mark.parametrize(
    ("setting", "values", "requests"),
    [
        ("share_ignore", ("1", "2"), 1),
        ("share_apart", ("1", "1"), 1),
        ("share_apart", ("1", "2"), 2),
        ("share_alone", ("1", "1"), 2),
    ],
)
def test_names_of_headers_decide_which_calls_share_a_request(
    setting: str, values: tuple[str, str], requests: int
) -> None:
    """`SHARE_IGNORE`, `SHARE_APART` and `SHARE_ALONE`."""
    with wired(max_wait_ms=1000.0, **{setting: ("x-mine",)}) as proxy:
        for value in values:
            proxy.connect().embed(b'{"inputs":["a"]}', ("X-Mine", value))
        proxy.clock.advance(1.0)
        proxy.flush()
        assert len(proxy.upstream.sent) == requests
        while proxy.upstream.open:
            proxy.upstream.open[0].answer()


def test_headers_of_the_operator_are_in_the_requests_to_the_server() -> None:
    """`UPSTREAM_HEADERS`."""
    with wired(upstream_headers=(("X-Mine", "1"),)) as proxy:
        proxy.connect().embed(b'{"inputs":["a"]}')
        [sent] = proxy.upstream.sent
        assert (b"X-Mine", b"1") in sent.request.headers
        sent.answer()


def test_a_row_is_remembered_for_as_long_as_was_set() -> None:
    """`CACHE_TTL`."""
    with wired(cache_bytes=1 << 20, cache_ttl_s=10.0) as proxy:
        for pause_s in (0.0, 9.0, 2.0):
            proxy.clock.advance(pause_s)
            client = proxy.connect()
            client.embed(b'{"inputs":["a"]}')
            for sent in proxy.upstream.open:
                sent.answer()
            assert client.answers()
        assert len(proxy.upstream.sent) == 2


def test_requests_of_a_minute_are_counted_as_was_set() -> None:
    """`UPSTREAM_REQUESTS_PER_MINUTE`."""
    with wired(upstream_requests_per_minute=1) as proxy:
        for text in "ab":
            proxy.connect().embed(b'{"inputs":["%b"]}' % text.encode())
            proxy.clock.advance(0.01)
        proxy.upstream.open[0].answer()
        proxy.clock.advance(30)
        before = len(proxy.upstream.sent)
        proxy.clock.advance(31.1)
        assert (before, len(proxy.upstream.sent)) == (1, 2)
        proxy.upstream.open[0].answer()


@pytest.mark.parametrize(
    "setting",
    [{"max_batch_tokens": 10}, {"upstream_tokens_per_minute": 300}],
)
def test_tokens_are_counted_as_was_set(setting: dict[str, int]) -> None:
    """`MAX_BATCH_TOKENS`; and a request has but a part of the tokens of a minute."""
    with wired(**setting) as proxy:
        client = proxy.connect()
        client.embed(b'{"inputs":["0123456789abcdef","0123456789abcdef"]}')
        proxy.flush()
        while proxy.upstream.open:
            proxy.upstream.open[0].answer()
            proxy.clock.advance(0.01)
        assert [len(sent.inputs) for sent in proxy.upstream.sent] == [1, 1]


def test_another_word_makes_other_rows() -> None:
    """`CACHE_EPOCH`."""
    settings, info = Settings(cache_epoch="one"), ServerInfo(model="m")
    keys = keys_of_rows(settings, info)

    assert keys.are(keys_of_rows(settings, info))
    assert not keys.are(keys_of_rows(evolve(settings, cache_epoch="two"), info))
