"""What the operator switches off is not used."""

from collections.abc import Callable
from typing import Any

import pytest
from wired import wired

from abproxy.web.express_request import ExpressRequest
from abproxy.web.observing import Asked, Unwatched
from abproxy.writing import write_at_once, write_later

PLAIN = (
    b"POST /embed HTTP/1.1\r\nHost: door\r\nContent-Type: application/json\r\n"
    b'Content-Length: 14\r\n\r\n{"inputs":"a"}'
)


class _Gatekeeper(Unwatched):
    """Notes which way a request came."""

    def __init__(self) -> None:
        self.ways: list[bool] = []

    def began(self, request: Asked) -> None:
        """Note it."""
        self.ways.append(isinstance(request, ExpressRequest))


def _came_by_express(**settings: Any) -> bool:
    keeper = _Gatekeeper()
    with wired(**settings) as here:
        here.service.site.observer = keeper
        client = here.connect()
        client.send(PLAIN)
        here.answer_all()
        [answer] = client.answers()
        assert answer.status == 200
    return keeper.ways == [True]


@pytest.mark.parametrize("express", [True, False])
def test_calls_take_the_express_way_unless_it_is_closed(express: bool) -> None:  # noqa: FBT001
    """They are answered on both."""
    assert _came_by_express(express=express) is express


@pytest.mark.parametrize(
    ("at_once", "write"), [(True, write_at_once), (False, write_later)]
)
def test_answers_are_written_as_the_operator_wants(
    at_once: bool,  # noqa: FBT001
    write: Callable[..., None],
) -> None:
    """At once, or when the reactor comes to it."""
    with wired(write_at_once=at_once) as here:
        express: Any = here.service.site.express

        assert express.write is write
