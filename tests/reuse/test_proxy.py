"""What is not computed twice, seen by the clients of a whole proxy."""

from collections.abc import Iterator
from typing import Any

import attrs
import msgspec
import pytest

from abproxy.telemetry.recorder import Recorder
from abproxy.upstream.server_info import ServerInfo
from support.client import Answer, Client
from support.proxy import InMemoryProxy, wired
from support.upstream import row_of

BODY = b'{"inputs":["a"]}'
RIGHT = [row_of("a")]


@pytest.fixture
def caching() -> Iterator[InMemoryProxy]:
    """Give a proxy that remembers rows."""
    with wired(cache_bytes=1 << 20) as proxy:
        yield proxy


def ask(proxy: InMemoryProxy, *headers: tuple[str, str]) -> Client:
    """Let a client of its own ask for the one text."""
    client = proxy.connect()
    client.embed(BODY, *headers)
    return client


def answered(proxy: InMemoryProxy, *headers: tuple[str, str]) -> Answer:
    """Ask, let the server answer if it was asked, and return the answer."""
    client = ask(proxy, *headers)
    for sent in proxy.upstream.open:
        sent.answer()
    [answer] = client.answers()
    assert answer.json == RIGHT
    return answer


def totals(proxy: InMemoryProxy) -> Any:
    """Return what was counted."""
    recorder: Recorder = proxy.recorder
    return recorder.totals()


def test_equal_texts_in_flight_are_computed_once() -> None:
    """And they are counted."""
    with wired(dedupe=True) as proxy:
        clients = [ask(proxy) for _ in range(5)]
        [sent] = proxy.upstream.sent
        sent.answer()
        for client in clients:
            [answer] = client.answers()
            assert answer.json == RIGHT
        assert totals(proxy).reused == 4
        metrics = proxy.ask("GET", "/metrics").body
        assert b'abproxy_reused_inputs_total{source="in_flight"} 4.0' in metrics


def test_a_client_that_wants_a_new_answer_shares_none() -> None:
    """`no-cache` means that it is computed for this call."""
    with wired(dedupe=True) as proxy:
        clients = [ask(proxy), ask(proxy, ("Cache-Control", "no-cache"))]
        while proxy.upstream.open:
            proxy.upstream.open[0].answer()
        assert sum(len(sent.inputs) for sent in proxy.upstream.sent) == 2
        assert all(client.answers()[0].json == RIGHT for client in clients)


def test_equal_texts_are_computed_each_by_itself_if_the_operator_wants() -> None:
    """`DEDUPE=no`."""
    with wired(dedupe=False) as proxy:
        clients = [ask(proxy) for _ in range(2)]
        while proxy.upstream.open:
            proxy.upstream.open[0].answer()
        assert sum(len(sent.inputs) for sent in proxy.upstream.sent) == 2
        assert all(client.answers()[0].json == RIGHT for client in clients)


def test_a_text_that_was_asked_for_before_is_answered_from_memory(
    caching: InMemoryProxy,
) -> None:
    """The server is not asked, and the answer says so."""
    assert answered(caching).header("X-Cache") == "miss"
    assert answered(caching).header("X-Cache") == "hit"
    assert len(caching.upstream.sent) == 1
    flow = msgspec.json.decode(caching.ask("GET", "/-/status.json").body)["flow"]
    assert flow["cache_rows"] == 1
    assert flow["cache_bytes"] > 0


@pytest.mark.parametrize(
    ("control", "asked"), [("no-cache", [2, 2]), ("no-store", [2, 2]), ("", [1, 1])]
)
def test_the_client_decides_whether_an_old_answer_will_do(
    caching: InMemoryProxy, control: str, asked: list[int]
) -> None:
    """As HTTP has it."""
    answered(caching)
    seen = []
    for headers in ([("Cache-Control", control)], []):
        answered(caching, *headers)
        seen.append(len(caching.upstream.sent))
    assert seen == asked


def test_nothing_is_remembered_by_default() -> None:
    """An answer says nothing about a cache then."""
    with wired(dedupe=True) as proxy:
        assert answered(proxy).header("X-Cache") is None
        answered(proxy)
        assert len(proxy.upstream.sent) == 2


def test_another_model_empties_the_memory(caching: InMemoryProxy) -> None:
    """Its rows are others."""
    answered(caching)
    caching.inference_server.discovery.on_change(ServerInfo(model="m", sha="2"))
    assert answered(caching).header("X-Cache") == "miss"


def test_clients_with_keys_of_their_own_share_no_rows() -> None:
    """Unless the operator says so; then no answer tells where its rows come from."""
    one, two = [("Authorization", f"Bearer {key}") for key in ("one", "two")]
    settings: Any = {"api_keys": ("one", "two"), "cache_bytes": 1 << 20}
    with wired(**settings) as proxy:
        answered(proxy, one)
        assert answered(proxy, two).header("X-Cache") == "miss"
        assert answered(proxy, one).header("X-Cache") == "hit"
    with wired(**settings, cache_scope="all") as proxy:
        answered(proxy, one)
        assert answered(proxy, two).header("X-Cache") is None
        assert len(proxy.upstream.sent) == 1


def test_a_second_key_ends_that_answers_tell_where_rows_come_from() -> None:
    """With one key all rows were its own; now they may be those of others."""
    one = "Authorization", "Bearer one"
    settings: Any = {"api_keys": ("one",), "cache_bytes": 1 << 20}
    with wired(**settings, cache_scope="all") as proxy:
        assert answered(proxy, one).header("X-Cache") == "miss"
        reloading: Any = proxy.service.reload
        configuration = reloading.__self__
        chosen = attrs.evolve(configuration.settings, api_keys=("one", "two"))
        configuration.apply(chosen)
        assert answered(proxy, one).header("X-Cache") is None
        assert len(proxy.upstream.sent) == 1
