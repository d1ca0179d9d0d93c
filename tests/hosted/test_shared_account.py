"""Several models of one account at a hosted API: what is used up is so for all."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from support.hosted import openai_call
from support.models import SeveralModels, several_models
from support.upstream import reply

USED_UP = reply(200, b"{}", (b"ratelimit-remaining", b"0"), (b"ratelimit-reset", b"30"))

TABLES = """
[first]
url = "https://{host}"
model = "small"
key = "sk-1"

[same]
url = "https://{host}"
model = "{model}"
key = "sk-1"

[of-another]
url = "https://{host}"
model = "small"
key = "sk-2"
"""


@pytest.fixture
def here(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[SeveralModels]:
    """Three models at one host, the first of which has used up what it may have."""
    host, model = request.param
    with several_models(tmp_path, TABLES.format(host=host, model=model)) as here:
        pace = here.model("first").collector.pace
        pace.look_at(USED_UP, openai_call("a", model="small").lane_key)
        yield here
        here.clock.advance(31)
        here.answer_all()


def is_sent(here: SeveralModels, name: str) -> bool:
    """Return whether a call to this model is sent at once."""
    here.call("/v1/embeddings", model=name, input=["a"])
    return bool(here.sent(name))


@pytest.mark.parametrize(
    "here",
    [("api.openai.com", "small"), ("api.cohere.com", "large")],
    indirect=True,
)
def test_models_of_one_account_wait_together(here: SeveralModels) -> None:
    """One that is the same there, or any where the API counts all together."""
    assert not is_sent(here, "same")


@pytest.mark.parametrize(
    "here", [("api.openai.com", "large"), ("my-gateway", "small")], indirect=True
)
def test_models_with_limits_of_their_own_do_not(here: SeveralModels) -> None:
    """As most APIs count, and of a host of which nothing is known."""
    assert is_sent(here, "same")


@pytest.mark.parametrize(
    "here", [("api.openai.com", "small"), ("api.cohere.com", "small")], indirect=True
)
def test_another_key_is_another_account(here: SeveralModels) -> None:
    """It has limits of its own."""
    assert is_sent(here, "of-another")
