"""How long anybody waits, on a clock that the test moves."""

import msgspec
from twisted.web.resource import Resource
from twisted.web.server import Request

from bench.breakable.rows import spell
from support.batching import harness
from support.client import Client
from support.proxy import InMemoryProxy, in_memory_proxy
from support.upstream import reply


class _Model(Resource):
    """Answers at once, with rows that can be checked."""

    isLeaf = True

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[list[str]] = []

    def render_POST(self, request: Request) -> bytes:  # noqa: N802
        inputs = msgspec.json.decode(request.content.read())["inputs"]
        self.batches.append(inputs)
        return b"[%b]" % b",".join(spell(text, 4) for text in inputs)


def _ask(proxy: InMemoryProxy, text: str) -> Client:
    client = proxy.connect()
    client.embed(b'{"inputs":["%b"]}' % text.encode())
    return client


def test_a_trickle_faster_than_the_wait_never_delays_the_first_caller() -> None:
    """The wait begins with the first call, and no later one extends it."""
    model = _Model()
    proxy = in_memory_proxy(model, max_wait_ms=1000, max_batch_calls=1000)
    first = _ask(proxy, "first")

    for at in range(7):
        proxy.clock.advance(0.125)
        _ask(proxy, f"later {at}")
    before = list(model.batches)
    proxy.clock.advance(0.125)
    proxy.flush()

    assert before == []
    assert len(model.batches[0]) == 8
    assert first.answers()[0].body == b"[%b]" % spell("first", 4)


def test_with_a_wait_of_0_a_lone_call_never_waits() -> None:
    """It is answered without the clock moving at all."""
    proxy = in_memory_proxy(_Model(), max_wait_ms=0)

    client = _ask(proxy, "a")
    proxy.flush()

    assert client.answers()[0].body == b"[%b]" % spell("a", 4)


def test_with_size_1_no_wait_holds_a_call() -> None:
    """A batch of one call is full with the first."""
    model = _Model()
    proxy = in_memory_proxy(model, max_wait_ms=60000, max_batch_calls=1)

    clients = [_ask(proxy, text) for text in "abc"]
    proxy.flush()

    assert model.batches == [["a"], ["b"], ["c"]]
    assert [len(client.answers()) for client in clients] == [1, 1, 1]


def test_a_part_older_than_the_wait_leaves_as_soon_as_it_may() -> None:
    """Who has waited for a slot is not held for company as well."""
    proxy = harness(max_wait_s=1, slots=1)
    proxy.submit("a")
    proxy.clock.advance(1)
    proxy.submit("b")
    proxy.clock.advance(5)

    proxy.upstream.sent[0].answer()

    assert proxy.upstream.batches == [["a"], ["b"]]


def test_a_part_that_was_refused_is_not_held_again() -> None:
    """After the pause it leaves at once, though its batch is not full."""
    proxy = harness(max_wait_s=1)
    call = proxy.submit("a")
    proxy.clock.advance(1)
    proxy.upstream.sent[0].done.callback(reply(429, b"full"))

    proxy.clock.advance(0.05)
    proxy.upstream.sent[1].answer()

    assert call.is_right
    assert proxy.is_at_rest
