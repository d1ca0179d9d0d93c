"""Whatever is asked of the running proxy, it answers as it is described."""

from collections.abc import Iterator

import pytest
import schemathesis
from hypothesis import HealthCheck, settings
from schemathesis import checks

from support.processes import model_server, proxy
from web.openapi.described import CONFORMS, SCHEMA

EXAMPLES = settings(
    max_examples=25,
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],  # on a machine with other work
)
OURS = SCHEMA.include(tag="abproxy")
BATCHED = SCHEMA.include(tag="batched")


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Run the proxy in front of a model."""
    folder = tmp_path_factory.mktemp("conformance")
    with (
        model_server(folder / "model") as model,
        proxy(folder / "proxy", model, " answers on ", "--admin-key=two") as url,
    ):
        yield url


@OURS.parametrize()
@EXAMPLES
def test_our_pages_answer_as_described(case: schemathesis.Case, url: str) -> None:
    """To whatever is asked; that a serial is none is no reason to refuse."""
    lenient = [checks.negative_data_rejection]

    case.call_and_validate(base_url=url, excluded_checks=lenient)


@BATCHED.parametrize()
@EXAMPLES
def test_batched_routes_answer_as_described(case: schemathesis.Case, url: str) -> None:
    """To good bodies and bad; which of them are refused is the server's business."""
    case.call_and_validate(base_url=url, checks=[*CONFORMS, checks.not_a_server_error])
