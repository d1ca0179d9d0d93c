"""Calls of /rerank share batches of pairs, and get what they would get alone."""

from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from support.client import Answer
from support.proxy import InMemoryProxy, in_memory_proxy
from support.recorded import exchanges
from support.reranker import LONGEST, Reranker, RerankServer, spell

RECORDED = [
    each
    for each in exchanges()
    if each.server == "reranker" and each.path == "/rerank" and each.status == 200
]


def recorded_reranker() -> Reranker:
    """Make a model that has the scores of the recorded one."""
    known = {}
    for exchange in RECORDED:
        asked = msgspec.json.decode(exchange.body)
        ranks = msgspec.json.decode(exchange.reply_body, type=list[_Rank])
        for rank in ranks:
            pair = asked["query"], asked["texts"][rank.index]
            known[pair] = bytes(rank.score).decode()
    return Reranker(known=known)


class _Rank(msgspec.Struct):
    index: int
    score: msgspec.Raw


def body_of(query: str, texts: Sequence[str], **more: Any) -> bytes:
    """Write the body of a call."""
    return spell({"query": query, "texts": texts, **more})


def before(server: RerankServer, **chosen: Any) -> InMemoryProxy:
    """Put a proxy before a *server*."""
    return in_memory_proxy(
        server, **{"task": "reranker", "max_wait_ms": 1000, **chosen}
    )


def ask_at_once(
    proxy: InMemoryProxy, *bodies: bytes, path: str = "/rerank"
) -> list[Answer]:
    """Ask all *bodies* at the same moment."""
    clients = [proxy.connect() for _ in bodies]
    for client, body in zip(clients, bodies, strict=True):
        client.embed(body, path=path)
    proxy.clock.advance(1)
    for _ in range(100):
        if not all(client.transport.value() for client in clients):
            proxy.flush()
            proxy.clock.advance(0.5)
    return [client.answers()[0] for client in clients]


def alone(body: bytes, reranker: Reranker | None = None) -> Answer:
    """Return what a call gets without a proxy, however many texts it has."""
    server = RerankServer(reranker=reranker or Reranker(most=1000))
    proxy = before(server, max_wait_ms=0, task="unknown")
    return proxy.ask("POST", "/rerank", body, ("Content-Type", "application/json"))


def seen(answer: Answer) -> tuple[int, bytes, str | None]:
    """Return what clients look at."""
    return answer.status, answer.body, answer.header("X-Compute-Characters")


def are_as_alone(answers: Sequence[Answer], bodies: Sequence[bytes]) -> None:
    """Check that each of *bodies* is answered as it is without a proxy."""
    assert list(map(seen, answers)) == [seen(alone(body)) for body in bodies]


@pytest.mark.parametrize("cap", [1, 2, 3, 32])
def test_recorded_calls_are_answered_as_recorded_when_they_share(cap: int) -> None:
    """In batches of any size, with others, the bytes are those of TEI."""
    server = RerankServer(reranker=recorded_reranker())
    others = [body_of("other", ["x", "y"]), body_of("q", ["z"], raw_scores=True)]
    proxy = before(server, max_batch_inputs=cap)

    answers = ask_at_once(proxy, *(each.body for each in RECORDED), *others)

    assert server.sizes
    assert max(server.sizes) <= cap
    for exchange, answer in zip(RECORDED, answers, strict=False):
        assert answer.body == exchange.reply_body
        characters = dict(exchange.reply_headers)["x-compute-characters"]
        assert answer.header("X-Compute-Characters") == characters


def test_calls_with_different_queries_share_a_batch() -> None:
    """What a caller asks for is in the pair, and nothing but options keeps apart."""
    server = RerankServer()
    bodies = [body_of("one", ["a", "b"]), body_of("two", ["c"], return_text=True)]

    answers = ask_at_once(before(server), *bodies)

    pairs = [["one", "a"], ["one", "b"], ["two", "c"]]
    assert server.asked == [("/predict", {"inputs": pairs})]
    are_as_alone(answers, bodies)


@pytest.mark.parametrize(
    "option",
    [{"truncate": True}, {"truncation_direction": "left"}, {"raw_scores": True}],
)
def test_options_keep_calls_apart_and_are_passed_on(option: dict[str, Any]) -> None:
    """A score depends on them."""
    server = RerankServer()
    plain, other = body_of("q", ["a", "b"]), body_of("q", ["a", "b"], **option)

    ask_at_once(before(server), plain, plain, other, other)

    [name] = option
    assert [body.get(name) is not None for _, body in server.asked] == [False, True]


def test_a_lone_call_is_sent_as_its_client_wrote_it() -> None:
    """Nothing is added to what it costs, and the answer is the server's own."""
    server = RerankServer()
    body = body_of("q", ["a", "b"])

    [answer] = ask_at_once(before(server), body)

    assert server.asked == [("/rerank", msgspec.json.decode(body))]
    are_as_alone([answer], [body])


@pytest.mark.parametrize("path", ["/", "/invocations"])
def test_the_root_of_a_re_ranker_is_rerank(path: str) -> None:
    """As TEI has it."""
    server = RerankServer()
    bodies = [body_of("q", ["a"]), body_of("p", ["b"])]

    answers = ask_at_once(before(server), *bodies, path=path)

    assert server.sizes == [2]
    are_as_alone(answers, bodies)


@pytest.mark.parametrize("task", ["embedding", "classifier", None])
def test_where_the_model_is_no_re_ranker_calls_are_relayed(task: str | None) -> None:
    """A server of another kind may look at all texts together."""
    server = RerankServer()
    bodies = [body_of("q", ["a"]), body_of("p", ["b"])]

    ask_at_once(before(server, task=task), *bodies)

    assert [path for path, _ in server.asked] == ["/rerank", "/rerank"]


@pytest.mark.parametrize(
    "body",
    [
        b'{"query":"q","texts":[]}',
        b'{"query":"","texts":["a",""]}',
        b'{"query":"q"}',
        b'{"texts":["a"]}',
        b'{"query":"q","texts":"a"}',
        b'{"query":["q"],"texts":["a"]}',
        b'{"query":"q","texts":["a",1]}',
        b'{"query":"q","texts":["a"],"raw_scores":null}',
        b'{"query":"q","texts":["a"],"query":"p"}',
        b'{"query":"q","texts":["\\ud800"]}',
        b"{",
    ],
)
def test_an_odd_call_is_relayed_alone(body: bytes) -> None:
    """Its answer is the server's own, and it is nobody else's trouble."""
    server = RerankServer()

    odd, good = ask_at_once(before(server), body, body_of("q", ["a"]))

    are_as_alone([odd], [body])
    assert good.status == 200
    assert not server.sizes


def test_a_side_that_is_empty_is_scored() -> None:
    """TEI refuses a pair only if both are."""
    server = RerankServer()
    bodies = [body_of("", ["a", "b"]), body_of("q", ["", "c"])]

    answers = ask_at_once(before(server), *bodies)

    assert server.sizes == [4]
    are_as_alone(answers, bodies)


def test_a_refused_call_hears_what_it_hears_alone() -> None:
    """And the calls that shared with it get their scores."""
    server = RerankServer()
    long = body_of("q", ["a", "x" * LONGEST], truncate=False)
    good = [body_of("q", [f"text {at}"], truncate=False) for at in range(3)]

    answers = ask_at_once(before(server), good[0], long, *good[1:])

    are_as_alone(answers, [good[0], long, *good[1:]])
    assert max(server.sizes) == 5


def test_more_texts_than_fit_are_split() -> None:
    """TEI refuses them; through the proxy they are sorted all together."""
    server = RerankServer()
    body = body_of("q", [f"text {at}" for at in range(100)], return_text=True)

    [answer] = ask_at_once(before(server), body)

    assert server.sizes == [32, 32, 32, 4]
    are_as_alone([answer], [body])


def test_with_refuse_too_many_texts_are_left_to_the_server() -> None:
    """Its words are those of /rerank."""
    server = RerankServer()

    [answer] = ask_at_once(before(server, oversize="refuse"), body_of("q", ["a"] * 33))

    assert answer.status == 422
    assert not server.sizes


def test_equal_pairs_in_flight_are_computed_once() -> None:
    """A pair is an item as any other."""
    server = RerankServer()
    bodies = [
        body_of("q", ["a", "b"]),
        body_of("q", ["b", "a", "a"], return_text=True),
        body_of("q", ["a", "c"]),
    ]

    answers = ask_at_once(before(server, dedupe=True), *bodies)

    asked = [pair for _, body in server.asked for pair in body["inputs"]]
    assert sorted(asked) == [["q", "a"], ["q", "b"], ["q", "c"]]
    are_as_alone(answers, bodies)


def test_scores_are_remembered_by_the_pair() -> None:
    """Only texts that were never seen with a query are asked for."""
    server = RerankServer()
    proxy = before(server, cache_bytes=1 << 20)
    first, second = body_of("q", ["a", "b"]), body_of("q", ["c", "b", "a"])
    other = body_of("p", ["a"])

    ask_at_once(proxy, first)
    [answer] = ask_at_once(proxy, second)
    ask_at_once(proxy, other)

    are_as_alone([answer], [second])
    assert server.asked[1:] == [
        ("/predict", {"inputs": [["q", "c"]]}),
        ("/rerank", {"query": "p", "texts": ["a"]}),
    ]


TEXTS = st.lists(
    st.text(max_size=3) | st.sampled_from(["a", "b", "é", "\n", '"', "\x7f", "\\"]),
    max_size=9,
)
CALLS = st.lists(
    st.builds(
        body_of,
        st.sampled_from(["q", "p", ""]),
        TEXTS,
        return_text=st.booleans(),
    ),
    min_size=1,
    max_size=5,
)


@settings(max_examples=60, deadline=None)
@given(
    bodies=CALLS,
    cap=st.integers(1, 12),
    dedupe=st.booleans(),
    cache_bytes=st.sampled_from([0, 1 << 20]),
)
def test_each_call_gets_byte_for_byte_what_it_gets_alone(
    bodies: list[bytes], cap: int, cache_bytes: int, *, dedupe: bool
) -> None:
    """Whatever the texts, the ties, the cap and the company."""
    server = RerankServer(reranker=Reranker(most=1000))
    proxy = before(server, max_batch_inputs=cap, dedupe=dedupe, cache_bytes=cache_bytes)

    answers = ask_at_once(proxy, *bodies) + ask_at_once(proxy, *bodies)

    are_as_alone(answers, [*bodies, *bodies])
    assert max(server.sizes, default=0) <= cap
    proxy.close()
