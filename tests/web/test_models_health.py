"""Whether a proxy of several models is well."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from attrs import define
from twisted.internet.defer import Deferred, fail, succeed

from abproxy.errors import CannotConnect
from abproxy.http.messages import Response, UpstreamRequest
from support.models import SeveralModels, several_models, tables


@define(eq=False)
class Server:
    """Answers every question in one way, or not at all."""

    status: int | None

    def send(self, request: UpstreamRequest) -> Deferred[Any]:
        """Answer."""
        if self.status is None:
            return fail(CannotConnect(f"no way to {request.path!r}"))
        if not self.status:
            return Deferred()
        body = b"%d" % self.status
        reply = Response(status=self.status, reason=b"", headers=(), body=body)
        return succeed(reply)


@pytest.fixture
def here(tmp_path: Path) -> Iterator[SeveralModels]:
    """Give a proxy of two models."""
    with several_models(tmp_path, tables(a="", b="")) as proxy:
        yield proxy


def _health(
    here: SeveralModels, path: str, first: int | None, second: int | None
) -> Any:
    for name, status in (("a", first), ("b", second)):
        here.model(name).upstream.transport = Server(status).send
    answer = here.ask("GET", path)
    here.clock.advance(10)
    return answer.status


@pytest.mark.parametrize("path", ["/health", "/-/ready"])
@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        (200, 200, 200),
        (None, 200, 200),
        (200, None, 200),
        (503, 404, 200),
        (0, 200, 200),
        (None, None, 503),
        (503, 500, 503),
    ],
)
def test_it_is_well_if_any_model_is(
    here: SeveralModels,
    path: str,
    first: int | None,
    second: int | None,
    expected: int,
) -> None:
    """A load balancer that takes it out would take out the others as well."""
    assert _health(here, path, first, second) == expected


def test_a_model_s_own_health_is_below_its_path(here: SeveralModels) -> None:
    """For who needs just this one."""
    assert here.ask("GET", "/models/b/health").body == b"b"


def test_it_is_ready_as_long_as_one_model_has_room(tmp_path: Path) -> None:
    """Calls for the others are refused one by one."""
    file = tables(a="max_waiting_inputs = 1\nbudget = 1\nmax_batch_inputs = 1", b="")
    with several_models(tmp_path, file) as here:
        for _ in range(4):
            here.call("/embed", inputs="i")
        assert here.model("a").collector.admission.is_full
        here.model("b").upstream.transport = Server(200).send

        assert here.ask("GET", "/-/ready").status == 200

        here.answer_all()
        here.clock.advance(10)
