"""What a call holds is free when its request is over, by either way of reading it."""

import gc
import json
from collections.abc import Callable

import pytest

from abproxy.batching.part import Part
from abproxy.dialects.call import Call
from support.client import Client
from support.proxy import InMemoryProxy, wired, without

End = Callable[[InMemoryProxy, Client], object]


pytestmark = pytest.mark.usefixtures("no_garbage_collector")


def _refuse(proxy: InMemoryProxy, _client: Client) -> None:
    while proxy.upstream.open:
        proxy.upstream.open[0].refuse(422, b"bad")


ENDS: dict[str, End] = {
    "answered": lambda proxy, _client: proxy.answer_all(),
    "refused": _refuse,
    "cancelled": lambda _proxy, client: client.leave(),
    "late": lambda proxy, _client: proxy.clock.advance(1),
}


def _held() -> int:
    return sum(isinstance(each, Call | Part) for each in gc.get_objects())


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("inputs", [1, 200])
@pytest.mark.parametrize("is_fast", [True, False])
def test_a_call_is_gone_when_its_request_is_over(
    *, is_fast: bool, inputs: int, end: str
) -> None:
    """Its connection may stay, and what its client has not read yet."""
    paths = without() if is_fast else without("server")
    with wired(slots=1, fast_paths=paths, call_deadline_s=1.0) as proxy:
        before = _held()
        client = proxy.connect()
        client.embed(json.dumps({"inputs": ["a"] * inputs}).encode())
        while_open = _held()

        ENDS[end](proxy, client)

        assert (while_open > before, _held() - before) == (True, 0)


@pytest.mark.parametrize("is_fast", [True, False])
def test_a_call_is_gone_when_there_is_no_room(*, is_fast: bool) -> None:
    """However many are refused."""
    paths = without() if is_fast else without("server")
    with wired(slots=1, fast_paths=paths, max_waiting_inputs=2) as proxy:
        for _ in range(2):
            proxy.call("fills the room")
        before = _held()

        refused = proxy.call("a", "b")

        assert refused.answers()[0].status == 429
        assert _held() == before
        proxy.answer_all()
