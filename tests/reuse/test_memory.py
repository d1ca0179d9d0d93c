"""Rows that were computed before are not computed again."""

import tracemalloc
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from twisted.internet.defer import CancelledError
from twisted.internet.task import Clock

from abproxy.dialects.call import Call, Dialect, LaneKey, PartResult, Rows
from abproxy.dialects.openai import OPENAI
from abproxy.dialects.tei import (
    DECODE,
    EMBED,
    EMBED_ALL,
    EMBED_SPARSE,
    PREDICT,
    TOKENIZE,
)
from abproxy.http.messages import HeaderList, Response, UpstreamRequest
from abproxy.reuse.entry import Keys
from abproxy.reuse.inflight import InFlight
from abproxy.reuse.memory import MemoryCache
from abproxy.reuse.store import Store
from abproxy.upstream.identity import NO_IDENTITY, Source
from support.batching import Outcome, call_of
from support.reuse import (
    BAD,
    EVENTS,
    Computer,
    alone,
    check,
    may_join,
    play,
    source_of,
)


def keys(model: int = 0, **about: Any) -> Keys:
    """Return the keys of a model."""
    settings = {"by_client": False, "are_ours": False, **about}
    return Keys(epoch=[str(model)], source=source_of(model), **settings)


def cache(server: Computer, **about: Any) -> MemoryCache:
    """Return a cache in front of a server."""
    settings: dict[str, Any] = {
        "clock": Clock(),
        "store": Store(max_size=1 << 20),
        "keys": keys(),
        "ttl_s": 60.0,
        "may_join": may_join,
        **about,
    }
    return MemoryCache(compute=server.compute, **settings)


def submit(cached: MemoryCache, *texts: str, lane: str = "", **about: Any) -> Outcome:
    """Submit one call, and follow it."""
    call = replace(call_of(*texts, lane=lane), **about)
    return Outcome(call, cached.submit(call))


def known(server: Computer, *texts: str, **about: Any) -> MemoryCache:
    """Return a cache that knows the rows of *texts*."""
    cached = cache(server, **about)
    submit(cached, *texts)
    server.answer()
    return cached


def line(outcome: Outcome) -> list[bytes]:
    """Return the values of X-Cache in an answer."""
    return [value for name, value in outcome.reply.headers if name == b"X-Cache"]


def of_source(response: Response, source: Source) -> Response:
    """Return a response of another source."""
    return replace(response, source=source)


def of_route(dialect: Dialect, body: bytes = b"") -> Call:
    """Return a call for a route, of one item."""
    one = b"[[1]]" if dialect is DECODE else b'"a"'
    body = body or msgspec.json.encode(
        {_ITEMS.get(dialect, "inputs"): msgspec.Raw(one)}
    )
    parsed = dialect.read(body)
    assert parsed is not None
    lane = LaneKey(dialect=dialect, path=dialect.path, headers=(), options=b"")
    alone = UpstreamRequest(path=dialect.path, headers=(), body=body)
    return Call(lane_key=lane, items=parsed.items, alone=alone)


_ITEMS = {OPENAI: "input", DECODE: "ids"}


def _data(row: bytes) -> bytes:
    return b'{"object":"list","data":[%b],"model":"m","usage":{"total_tokens":1}}' % row


def test_a_row_that_is_known_is_not_asked_for() -> None:
    """It is answered at once."""
    server = Computer()
    cached = known(server, "a", "b")
    again = submit(cached, "b")
    assert again.is_right
    assert len(server.asked) == 1


def test_only_the_rows_that_are_not_known_are_asked_for() -> None:
    """A call of five with three hits asks for two."""
    server = Computer()
    cached = known(server, "a", "b", "c")
    call = submit(cached, "x", "a", "c", "y", "b")
    assert server.batches[1:] == [["x", "y"]]
    server.answer()
    assert call.is_right
    assert submit(cached, "y", "x").is_right
    assert len(server.asked) == 2


def test_the_answer_says_where_it_comes_from() -> None:
    """`X-Cache` is one of three words."""
    server = Computer()
    cached = cache(server)
    first = submit(cached, "a")
    server.answer()
    partial = submit(cached, "b", "a")
    server.answer()
    assert line(first) == [b"miss"]
    assert line(partial) == [b"partial"]
    assert line(submit(cached, "a")) == [b"hit"]


def test_the_answer_does_not_say_it_where_others_filled_the_cache() -> None:
    """A client could learn what others have asked for."""
    server = Computer()
    cached = known(server, "a", shows=False)
    assert line(submit(cached, "a")) == []


def test_a_hit_tells_no_times_of_a_batch() -> None:
    """There was none."""
    server = Computer()
    cached = known(server, "a")
    names = [name for name, _ in submit(cached, "a").reply.headers]
    assert b"Server-Timing" not in names


def test_a_failure_is_not_kept() -> None:
    """The next one may succeed."""
    server = Computer()
    cached = cache(server)
    assert submit(cached, BAD).is_open
    server.answer()
    submit(cached, BAD)
    assert len(server.open) == 1


@pytest.mark.parametrize(
    ("dialect", "body"),
    [
        (EMBED, b"[[NaN,0.1]]"),
        (EMBED, b"[[0.1,-Infinity]]"),
        (EMBED, b"[[null,null]]"),
        (EMBED, b"[null]"),
        (EMBED, b"[[]]"),
        (EMBED, b"[[oops]]"),
        (EMBED, b'["overloaded"]'),
        (EMBED, b'[{"error":"out of memory","code":1}]'),
        (EMBED, b'{"error":"out of memory","code":1}'),
        (PREDICT, b'{"error":"out of memory","code":1}'),
        (PREDICT, b'[{"score":null,"label":"a"}]'),
        (PREDICT, b"\x1f\x8b compressed"),
        (TOKENIZE, b'[{"error":"out of memory","code":1}]'),
        (OPENAI, _data(b'{"object":"error","message":"1","index":0}')),
        (OPENAI, _data(b'{"object":"embedding","embedding":null,"index":0}')),
        (OPENAI, _data(b'{"object":"embedding","embedding":[],"index":0}')),
        (OPENAI, _data(b'{"object":"embedding","embedding":[NaN],"index":0}')),
        (OPENAI, _data(b'{"object":"embedding","embedding":"","index":0}')),
        (OPENAI, _data(b'{"index":0,"error":{"code":1},"embedding":[0.0]}')),
    ],
)
def test_a_failure_with_status_200_is_not_kept(dialect: Dialect, body: bytes) -> None:
    """Its caller gets it as it is, and the next one may get a row."""
    server = Computer()
    cached = cache(server)
    call = of_route(dialect)
    first = Outcome(call, cached.submit(call))
    server.answer_with(Response(status=200, reason=b"OK", headers=(), body=body))
    assert first.reply.body == body
    assert Outcome(call, cached.submit(call)).is_open


@pytest.mark.parametrize(
    ("dialect", "body"),
    [
        (EMBED, b"[[-1.5e-07,0]]"),
        (EMBED, b"[ [ 1, 2 ] ]"),
        (EMBED_ALL, b"[[[1,2],[3,4]]]"),
        (EMBED_SPARSE, b'[[{"index":1,"value":0.5}]]'),
        (PREDICT, b'[{"score":0.5,"label":"null"},{"score":0.1,"label":"NaN"}]'),
        (TOKENIZE, b'[[{"id":1,"text":"a","special":true,"start":null,"stop":null}]]'),
        (DECODE, b'["null error"]'),
        (OPENAI, _data(b'{"object":"embedding","embedding":[0.1],"index":0}')),
        (OPENAI, _data(b'{"index": 0, "embedding": "AAAA", "truncated": false}')),
    ],
)
def test_a_good_row_of_each_route_is_kept(dialect: Dialect, body: bytes) -> None:
    """It is answered from memory."""
    server = Computer()
    cached = cache(server)
    call = of_route(dialect)
    cached.submit(call)
    server.answer_with(Response(status=200, reason=b"OK", headers=(), body=body))
    assert not Outcome(call, cached.submit(call)).is_open


def test_a_failure_with_status_200_is_no_row_of_who_follows_in_a_list() -> None:
    """One bare input is answered without a list: whatever it is, it would fit in."""
    server = Computer()
    in_flight = InFlight(compute=server.compute)
    bare = of_route(PREDICT)
    listed = of_route(PREDICT, b'{"inputs":[["a"]]}')
    in_flight.submit(bare)
    follower = Outcome(listed, in_flight.submit(listed))
    body = b'{"error":"out of memory"}'
    server.answer_with(Response(status=200, reason=b"OK", headers=(), body=body))
    assert follower.is_open
    assert server.open[0][0] is listed


def test_a_failure_of_the_rest_is_that_of_the_whole_call() -> None:
    """The caller hears what it would have heard by itself."""
    server = Computer()
    cached = known(server, "a")
    call = submit(cached, "a", BAD)
    server.answer_all()
    assert server.batches == [["a"], [BAD], ["a", BAD]]
    assert call.reply.body == alone(["a", BAD]).body


def test_a_row_expires() -> None:
    """After so many seconds it is asked for again."""
    server, clock = Computer(), Clock()
    cached = known(server, "a", clock=clock, ttl_s=10)
    clock.advance(9)
    assert submit(cached, "a").is_right
    clock.advance(1)
    assert submit(cached, "a").is_open


def test_another_model_has_other_rows() -> None:
    """What was kept of the old one is forgotten."""
    server = Computer()
    cached = known(server, "a")
    cached.forget(keys(1))
    assert submit(cached, "a").is_open
    assert len(cached.store) == 0


def test_a_row_of_the_old_model_is_not_one_of_the_new() -> None:
    """Though it comes after the change was seen."""
    server = Computer()
    cached = cache(server)
    submit(cached, "a")
    cached.forget(keys(1))
    server.answer()
    assert submit(cached, "a").is_open


def test_nothing_is_kept_that_another_model_may_have_computed() -> None:
    """The server came back with it, which has not been noticed yet."""
    server = Computer()
    cached = cache(server)
    first = submit(cached, "a")
    server.model = 1
    server.answer()
    assert first.reply.body == alone(["a"], 1).body
    assert not len(cached.store)


def test_rows_are_kept_once_it_is_known_whose_they_are() -> None:
    """The caller does not wait for that."""
    server = Computer()
    cached = cache(server)
    call, source = submit(cached, "a"), Source()
    server.answer_with(of_source(alone(["a"]), source))
    assert call.is_right
    assert not len(cached.store)
    source.settle(source_of(0).identity or NO_IDENTITY)
    assert len(cached.store) == 1


def test_rows_are_not_kept_if_the_model_changes_before_that_is_known() -> None:
    """They are asked for under other keys by then."""
    server = Computer()
    cached = cache(server)
    submit(cached, "a")
    source = Source()
    server.answer_with(of_source(alone(["a"]), source))
    cached.forget(keys(1))
    source.settle(source_of(0).identity or NO_IDENTITY)
    assert not len(cached.store)


def test_known_rows_are_not_joined_with_those_of_another_model() -> None:
    """The call is computed again, all of it."""
    server = Computer()
    cached = known(server, "a")
    call = submit(cached, "a", "b")
    server.model = 1
    server.answer()
    assert server.batches[1:] == [["b"], ["a", "b"]]
    server.answer()
    assert call.reply.body == alone(["a", "b"], 1).body


def test_known_rows_wait_for_the_model_of_the_others() -> None:
    """The server is asked for it meanwhile."""
    server = Computer()
    cached = known(server, "a")
    call, source = submit(cached, "a", "b"), Source()
    server.answer_with(of_source(alone(["b"]), source))
    assert call.is_open
    source.settle(source_of(0).identity or NO_IDENTITY)
    assert call.is_right


def test_who_leaves_meanwhile_has_nothing_computed_again() -> None:
    """Nobody would get it."""
    server = Computer()
    cached = known(server, "a")
    call, source = submit(cached, "a", "b"), Source()
    server.answer_with(of_source(alone(["b"]), source))
    call.done.cancel()
    source.end()
    assert isinstance(call.error, CancelledError)
    assert not server.open


def test_nothing_is_kept_across_a_change_of_the_model() -> None:
    """The first one may come back, and the second has computed the row."""
    server = Computer()
    cached = cache(server)
    submit(cached, "a")
    cached.forget(keys(1))
    server.answer()
    assert not len(cached.store)


def test_nothing_is_taken_while_the_model_is_not_certain() -> None:
    """A server that comes back may have another model."""
    server = Computer()
    cached = known(server, "a")
    cached.is_certain = lambda: False
    assert submit(cached, "a").is_open


@pytest.mark.parametrize(
    ("about", "is_answered", "is_kept"),
    [
        ({"may_be_known": False}, False, True),
        ({"may_be_known": False, "may_be_kept": False}, False, False),
    ],
)
def test_the_caller_decides(
    about: dict[str, bool],
    is_answered: bool,  # noqa: FBT001
    is_kept: bool,  # noqa: FBT001
) -> None:
    """`no-cache` wants a new row, and `no-store` is not remembered either."""
    server = Computer()
    cached = known(server, "a")
    assert submit(cached, "a", **about).is_open is not is_answered
    submit(cached, "new", **about)
    server.answer_all()
    assert submit(cached, "new").is_open is not is_kept


def test_long_lines_of_clients_are_not_kept() -> None:
    """There may be a thousand lanes, each with another line of 50 kB."""
    here = keys()
    tracemalloc.start()
    try:
        for at in range(200):
            here.prefix(call_of("a", lane=f"{at}" + "x" * 50_000))
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()

    assert held < 1_000_000


def test_lanes_share_nothing() -> None:
    """Other credentials of clients might get another answer."""
    server = Computer()
    cached = known(server, "a")
    assert submit(cached, "a", lane="other").is_open


def test_our_own_credentials_do_not_matter() -> None:
    """A new key for the same server is no other server."""
    server = Computer()
    cached = cache(server, keys=keys(are_ours=True))
    submit(cached, "a", lane="old key")
    server.answer()
    assert submit(cached, "a", lane="new key").is_right


def test_clients_may_be_kept_apart() -> None:
    """Then nobody can tell by the time what others have asked for."""
    server = Computer()
    cached = cache(server, keys=keys(by_client=True))
    submit(cached, "a", client=b"one")
    server.answer()
    assert submit(cached, "a", client=b"one").is_right
    assert submit(cached, "a", client=b"two").is_open


def test_what_travels_alone_is_neither_kept_nor_looked_up() -> None:
    """Its answer may depend on more than its items."""
    server = Computer()
    cached = known(server, "a")
    lane = replace(call_of("a").lane_key, serial=1)
    assert submit(cached, "a", lane_key=lane).is_open


def openai(texts: list[str], encoding: str = "float") -> Call:
    """Return a call for /v1/embeddings."""
    body = msgspec.json.encode(
        {"input": texts, "model": "m", "encoding_format": encoding}
    )
    parsed = OPENAI.read(body)
    assert parsed is not None
    lane = LaneKey(dialect=OPENAI, path=OPENAI.path, headers=(), options=parsed.options)
    alone = UpstreamRequest(path=OPENAI.path, headers=(), body=body)
    return Call(lane_key=lane, items=parsed.items, alone=alone)


def openai_answer(rows: list[str], tokens: int, headers: HeaderList = ()) -> Response:
    """Return an answer as OpenAI writes it."""
    data = [
        {"object": "embedding", "embedding": row, "index": at}
        for at, row in enumerate(rows)
    ]
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    about = {"object": "list", "data": data, "model": "m", "usage": usage}
    body = msgspec.json.encode(about)
    return Response(status=200, reason=b"OK", headers=headers, body=body)


def test_an_answer_of_openai_is_the_same_again() -> None:
    """With its indexes, its usage, and what else stands in it."""
    server = Computer()
    cached = cache(server)
    first = Outcome(openai(["aa", "bb"]), cached.submit(openai(["aa", "bb"])))
    server.answer_with(openai_answer(["AA", "BB"], 8))
    again = Outcome(openai(["aa", "bb"]), cached.submit(openai(["aa", "bb"])))
    assert again.reply.body == first.reply.body
    swapped = Outcome(openai(["bb"]), cached.submit(openai(["bb"])))
    assert swapped.reply.body == openai_answer(["BB"], 4).body


def test_rows_of_both_encodings_are_kept_apart() -> None:
    """A client gets what it asked for."""
    server = Computer()
    cached = cache(server)
    cached.submit(openai(["a"]))
    server.answer_with(openai_answer(["A"], 1))
    cached.submit(openai(["a"], "base64"))
    assert len(server.open) == 1


def test_lines_of_one_answer_are_not_those_of_a_later_one() -> None:
    """Dates, times, limits and ids are not kept."""
    lasting = ((b"Content-Type", b"application/json"), (b"X-Compute-Type", b"cpu"))
    passing = (
        (b"Date", b"then"),
        (b"X-Compute-Time", b"3"),
        (b"X-Request-Id", b"7"),
        (b"openai-processing-ms", b"9"),
        (b"x-amzn-RequestId", b"7"),
        (b"X-B3-TraceId", b"7"),
        (b"X-CorrelationID", b"7"),
        (b"X-Runtime", b"0.2"),
        (b"X-Timer", b"S1"),
        (b"X-Elapsed", b"2"),
        (b"x-key-spend", b"1.5"),
        (b"X-Quota-Used", b"6"),
        (b"x-ratelimit-remaining-tokens", b"5"),
        (b"Set-Cookie", b"a=b"),
    )
    server = Computer()
    cached = cache(server)
    cached.submit(openai(["a"]))
    server.answer_with(openai_answer(["A"], 1, (*lasting, *passing)))
    again = Outcome(openai(["a"]), cached.submit(openai(["a"])))
    names = {name for name, _ in again.reply.headers}
    assert set(lasting) <= set(again.reply.headers)
    assert not names & {name for name, _ in passing}


def test_one_bare_row_is_the_same_again() -> None:
    """`/predict` answers one input without a list around it."""
    body = b'{"inputs":"a"}'
    parsed = PREDICT.read(body)
    assert parsed is not None
    lane = LaneKey(dialect=PREDICT, path=b"/predict", headers=(), options=b"")
    alone = UpstreamRequest(path=b"/predict", headers=(), body=body)
    call = Call(lane_key=lane, items=parsed.items, alone=alone)
    server = Computer()
    cached = cache(server)
    first = Outcome(call, cached.submit(call))
    answer = Response(status=200, reason=b"", headers=(), body=b'[{"score":1}]')
    server.answer_with(answer)
    again = Outcome(call, cached.submit(call))
    assert again.reply.body == first.reply.body == answer.body


def test_a_part_of_a_large_call_is_kept_by_item() -> None:
    """The rows of a batch may stand in one piece."""
    server = Computer()
    cached = cache(server)
    call = call_of("a", "b")
    cached.submit(call)
    response = alone(["a", "b"])
    rows = Rows(raw=(response.body[1:-1],))
    server.open[0][1].callback([PartResult(response=response, rows=rows, calls=2)])
    assert submit(cached, "b").is_right


@given(st.lists(EVENTS, min_size=20, max_size=60), st.integers(1, 12))
def test_each_caller_gets_what_it_would_get_alone(
    events: list[tuple[str, Any]], room: int
) -> None:
    """Whatever hits, expires, is dropped, cancelled and fails, in any order."""
    server, clock = Computer(), Clock()
    in_flight = InFlight(compute=server.compute, may_join=may_join)
    cached = cache(server, clock=clock, ttl_s=5, store=Store(max_size=room * 5000))
    cached.compute = in_flight.submit

    def ask(texts: list[str]) -> Outcome:
        clock.advance(1)
        return submit(cached, *texts)

    def learn(model: int) -> None:
        in_flight.forget()
        cached.forget(keys(model))

    calls, failures = play(events, server, ask, learn)
    assert not in_flight.items
    check(calls, failures, server.model)
