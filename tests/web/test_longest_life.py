"""
No call waits for ever: the sum of all waits, where no deadline is set.

docs/reliability.md gives it.  The upstream here does the worst at each stage: it
takes as long as it may for what stands before the calls, and for the calls.
"""

from collections.abc import Callable, Iterator
from math import inf

import msgspec
import pytest

from support.client import Answer, Client
from support.proxy import InMemoryProxy, wired
from support.upstream import Sent, reply

ARRIVES_S, TURN_S, ANSWER_S = 60, 300, 120
CHECKS_S = 2
"""Bodies that are slow and calls that wait too long are looked for every second."""

BATCH = 32
CAME_AT: dict[int, float] = {}
"""When each request came, by its identity."""

AnswersAfter = Callable[[Sent], float]
"""Returns after how many seconds a request is answered."""


@pytest.fixture
def proxy() -> Iterator[InMemoryProxy]:
    """Give a proxy that has one batch in flight at a time."""
    with wired(
        slots=1,
        budget=BATCH,
        usage="exact",
        request_timeout_s=ARRIVES_S,
        call_timeout_s=TURN_S,
        upstream_timeout_s=ANSWER_S,
    ) as here:
        yield here


def is_others(sent: Sent) -> bool:
    """Return whether a request is for the calls before ours, which are in a lane."""
    return b"truncate" in sent.request.body


def answer(sent: Sent) -> None:
    """Answer a request of either route."""
    items = msgspec.json.decode(sent.request.body).get("input")
    if items is None:
        sent.answer()
        return
    rows = [{"embedding": [1], "index": at} for at in range(len(items))]
    usage = {"prompt_tokens": 9, "total_tokens": 9}
    body = {"object": "list", "data": rows, "model": "m", "usage": usage}
    sent.done.callback(reply(200, msgspec.json.encode(body)))


def let_time_pass(
    proxy: InMemoryProxy, answers_after: AnswersAfter, *, others: int
) -> None:
    """Let a second pass, in which so many full batches of others always wait."""
    waiting = sum(
        lane.calls
        for lane in proxy.collector.queue.lanes
        if b"truncate" in lane.key.options
    )
    for _ in range(others - waiting):
        proxy.call(*["others"] * BATCH, truncate=True)
    proxy.clock.advance(1)
    now = proxy.clock.seconds()
    for sent in proxy.upstream.open:
        CAME_AT.setdefault(id(sent), now)
        if now - CAME_AT[id(sent)] >= answers_after(sent):
            answer(sent)


def live(
    proxy: InMemoryProxy,
    bodies: list[bytes],
    answers_after: AnswersAfter,
    *,
    others: int = 0,
    path: str = "/embed",
) -> tuple[float, list[Answer]]:
    """Send calls as slowly as they may be; return how long the last one took."""
    CAME_AT.clear()
    clients = [proxy.connect() for _ in bodies]
    began_at = proxy.clock.seconds()
    for client, body in zip(clients, bodies, strict=True):
        client.send(
            f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n\r\n".encode()
        )
    for _ in range(ARRIVES_S - CHECKS_S):
        let_time_pass(proxy, answers_after, others=others)
    for client, body in zip(clients, bodies, strict=True):
        client.channel.dataReceived(body)
    while not all(client.answers() for client in clients):
        let_time_pass(proxy, answers_after, others=others)
    took_s = proxy.clock.seconds() - began_at
    while proxy.upstream.open or proxy.collector.admission.items:
        let_time_pass(proxy, lambda _sent: 0, others=0)
    return took_s, [_only(client) for client in clients]


def _only(client: Client) -> Answer:
    [answer] = client.answers()
    return answer


@pytest.mark.parametrize("parts", [1, 3])
def test_the_longest_way_to_an_answer(proxy: InMemoryProxy, parts: int) -> None:
    """Each part of a call waits for its turn, and the last one for its answer."""
    body = msgspec.json.encode({"inputs": ["ours"] * BATCH * parts})

    took_s, [answer] = live(
        proxy, [body], lambda sent: 88 if is_others(sent) else 118, others=2
    )

    at_most = ARRIVES_S + parts * TURN_S + ANSWER_S
    assert answer.status == 200
    assert 0.75 * at_most < took_s <= at_most


@pytest.mark.parametrize("others", [0, 2])
@pytest.mark.parametrize("calls", [1, 5])
def test_the_longest_way_to_an_error(
    proxy: InMemoryProxy, calls: int, others: int
) -> None:
    """What was not answered in time is sent again, but not after its time is over."""
    bodies = [b'{"inputs":"ours %d"}' % number for number in range(calls)]

    took_s, answers = live(
        proxy, bodies, lambda sent: 88 if is_others(sent) else inf, others=others
    )

    assert [answer.status for answer in answers] == [504] * calls
    assert took_s <= ARRIVES_S + TURN_S + ANSWER_S + CHECKS_S


def test_the_longest_way_to_exact_counts(proxy: InMemoryProxy) -> None:
    """With USAGE=exact the tokens are counted after the answer, or cannot be."""
    bodies = [b'{"input":"ours %d"}' % number for number in range(5)]

    def answers_after(sent: Sent) -> float:
        if is_others(sent):
            return 88
        return inf if sent.request.path == b"/tokenize" else 118

    took_s, answers = live(
        proxy, bodies, answers_after, others=2, path="/v1/embeddings"
    )

    at_most = ARRIVES_S + TURN_S + 2 * ANSWER_S
    assert [answer.status for answer in answers] == [200] * 5
    assert 0.75 * at_most < took_s <= at_most


@pytest.fixture
def two() -> Iterator[InMemoryProxy]:
    """Give a proxy in front of two servers."""
    with wired(
        slots=1,
        budget=BATCH,
        request_timeout_s=ARRIVES_S,
        call_timeout_s=TURN_S,
        upstream_timeout_s=ANSWER_S,
        upstream_url="http://a,http://b",
        hedge_after="60",
    ) as here:
        yield here


@pytest.mark.parametrize("others", [0, 4])
@pytest.mark.parametrize("calls", [1, 5])
def test_several_servers_take_no_longer_to_fail(
    two: InMemoryProxy, calls: int, others: int
) -> None:
    """All attempts for a batch together have the time of one."""
    bodies = [b'{"inputs":"ours %d"}' % number for number in range(calls)]

    took_s, answers = live(
        two, bodies, lambda sent: 88 if is_others(sent) else inf, others=others
    )

    assert [answer.status for answer in answers] == [504] * calls
    assert took_s <= ARRIVES_S + TURN_S + ANSWER_S + CHECKS_S


def test_a_late_refusal_leaves_only_the_rest_of_the_time_elsewhere(
    two: InMemoryProxy,
) -> None:
    """One server has no room after all, and the other one does not answer."""
    client = two.call("ours")
    two.clock.advance(59)
    two.upstream.open[0].refuse(503)
    assert len(two.upstream.open) == 1

    two.clock.advance(60.9)
    assert not client.answers()
    two.clock.advance(0.2)

    assert [answer.status for answer in client.answers()] == [504]
