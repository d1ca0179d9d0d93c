"""Exact usage: each caller of a shared batch hears what its own texts cost."""

import json
from typing import Any

import msgspec
import pytest
from twisted.internet.defer import Deferred, fail, succeed
from twisted.logger import capturedLogs, formatEvent
from twisted.web.resource import Resource
from twisted.web.server import Request

from abproxy.dialects.call import Items
from abproxy.dialects.openai import OPENAI
from abproxy.errors import UpstreamTimeout
from abproxy.http.messages import HeaderList, Response, UpstreamRequest
from abproxy.upstream.server_info import ServerInfo
from abproxy.upstream.tokens import TokenCounter
from support.proxy import in_memory_proxy

KEY: HeaderList = ((b"Authorization", b"Bearer key"),)


def part_of(*inputs: Any) -> Items:
    """Make the items of a call for /v1/embeddings."""
    parsed = OPENAI.read(msgspec.json.encode({"input": list(inputs)}))
    assert parsed is not None
    return parsed.items


class Tokenizer:
    """Has a token for each word."""

    def __init__(self) -> None:
        self.asked: list[UpstreamRequest] = []

    def send(self, request: UpstreamRequest) -> Deferred[Response]:
        """Answer `POST /tokenize`."""
        self.asked.append(request)
        texts = json.loads(request.body)["inputs"]
        body = json.dumps([[{"id": 1}] * len(text.split()) for text in texts])
        return succeed(reply(body.encode()))


def reply(body: bytes, status: int = 200) -> Response:
    """Make an answer."""
    return Response(status=status, reason=b"", headers=(), body=body)


def counts_of(counter: TokenCounter, *parts: Items) -> list[list[int]]:
    """Count, where all answers are here already."""
    found: list[list[list[int]]] = []
    Deferred.fromCoroutine(counter.count(parts, KEY)).addCallback(found.append)
    return found[0]


def counter_of(tokenizer: Any, most: int | None = None) -> TokenCounter:
    """Make a counter in front of *tokenizer*."""
    facts = ServerInfo(max_input_length=most)
    return TokenCounter(send=tokenizer.send, info=lambda: facts)


def test_tokens_are_counted_for_each_item_of_each_part() -> None:
    """One question for the whole batch, with the headers that are given."""
    tokenizer = Tokenizer()
    parts = [part_of("one two", "three"), part_of("four five six")]

    counts = counts_of(counter_of(tokenizer), *parts)

    [asked] = tokenizer.asked
    assert counts == [[2, 1], [3]]
    assert asked.path == b"/tokenize"
    assert KEY[0] in asked.headers


def test_token_ids_are_tokens() -> None:
    """What was tokenised before is only counted."""
    tokenizer = Tokenizer()

    counts = counts_of(counter_of(tokenizer), part_of([1, 2, 3]), part_of([4]))

    assert counts == [[3], [1]]
    assert tokenizer.asked == []


def test_what_is_cut_off_costs_nothing() -> None:
    """An upstream that cuts long inputs counts what is left."""
    counts = counts_of(counter_of(Tokenizer(), most=2), part_of("a b c d", "e"))

    assert counts == [[2, 1]]


class Broken:
    """Gives no usable answer."""

    def __init__(self, outcome: Any, status: int = 200) -> None:
        self.outcome = outcome
        self.status = status

    def send(self, _request: UpstreamRequest) -> Deferred[Response]:
        """Answer wrongly, or not at all."""
        if isinstance(self.outcome, Exception):
            return fail(self.outcome)
        return succeed(reply(self.outcome, self.status))


@pytest.mark.parametrize("outcome", [UpstreamTimeout("slow"), b"no", b"[[]]", b"{}"])
def test_where_nobody_counts_characters_stand_in(outcome: Any) -> None:
    """A caller who waits for embeddings does not fail for want of a figure."""
    counts = counts_of(counter_of(Broken(outcome)), part_of("abc", "de"))

    assert counts == [[3, 2]]


def test_that_nobody_counts_is_told_once() -> None:
    """A server without /tokenize does not fill the log, batch by batch."""
    counter = counter_of(Broken(b"no"))

    with capturedLogs() as events:
        counts_of(counter, part_of("abc"))
        counts_of(counter, part_of([1, 2]))
        counts_of(counter, part_of("abc"))

    [event] = events
    assert formatEvent(event).startswith("Tokens cannot be counted")


def test_it_is_told_again_once_it_has_worked() -> None:
    """Then it is another trouble."""
    tokenizer = Broken(b"no")
    counter = counter_of(tokenizer)

    with capturedLogs() as events:
        counts_of(counter, part_of("abc"))
        tokenizer.outcome = b"[[1]]"
        counts_of(counter, part_of("abc"))
        tokenizer.outcome = UpstreamTimeout("slow")
        counts_of(counter, part_of("abc"))

    assert len(events) == 2


def test_a_server_without_tokenizer_is_told_by_its_status() -> None:
    """Not by what is odd about the body of its error."""
    broken = Broken(b"{}", status=404)

    with capturedLogs() as events:
        counts = counts_of(counter_of(broken), part_of("abc"))

    assert counts == [[3]]
    assert formatEvent(events[0]).endswith("/tokenize answers 404")


class Counting(Resource):
    """An upstream with a token for each word, and usage in its answers."""

    isLeaf = True
    key: str | None = None
    """The one with which tokens were counted."""

    def render(self, request: Request) -> bytes:
        """Answer /v1/embeddings or /tokenize."""
        asked = json.loads(request.content.read())
        if request.path == b"/tokenize":
            self.key = request.getHeader("Authorization")
            tokens = [[1] * len(text.split()) for text in asked["inputs"]]
            return json.dumps(tokens).encode()
        texts = asked["input"] if isinstance(asked["input"], list) else [asked["input"]]
        data = [{"embedding": [at], "index": at} for at in range(len(texts))]
        total = sum(len(text.split()) for text in texts)
        usage = {"prompt_tokens": total, "total_tokens": total}
        return json.dumps({"data": data, "usage": usage}).encode()


def test_callers_of_a_shared_batch_hear_their_own_counts() -> None:
    """With USAGE=exact it is what each call cost, counted with its credentials."""
    upstream = Counting()
    proxy = in_memory_proxy(upstream, max_batch_calls=2, max_wait_ms=1000)
    collector = proxy.collector
    collector.sender.count = TokenCounter(send=collector.send, info=ServerInfo).count
    clients = [proxy.connect(), proxy.connect()]

    key = ("Authorization", "Bearer key")
    clients[0].embed(b'{"input":"a b c d e"}', key, path="/v1/embeddings")
    clients[1].embed(b'{"input":"extraordinarily"}', key, path="/v1/embeddings")
    for _ in range(4):
        proxy.flush()

    found = [json.loads(client.answers()[0].body)["usage"] for client in clients]
    assert [usage["prompt_tokens"] for usage in found] == [5, 1]
    assert upstream.key == "Bearer key"
