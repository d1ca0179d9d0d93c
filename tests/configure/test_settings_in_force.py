"""What the operator has set reaches what it is for, in a whole proxy."""

import pytest
from attrs import evolve

from abproxy.configure import keys_of_rows
from abproxy.settings.settings import Settings
from abproxy.upstream.discovery import ServerInfo
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


def test_another_word_makes_other_rows() -> None:
    """`CACHE_EPOCH`."""
    settings, info = Settings(cache_epoch="one"), ServerInfo(model="m")
    keys = keys_of_rows(settings, info)

    assert keys.are(keys_of_rows(settings, info))
    assert not keys.are(keys_of_rows(evolve(settings, cache_epoch="two"), info))
