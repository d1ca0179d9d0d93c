"""LiteLLM, which speaks to TEI as `huggingface/…` and as `openai/…`."""

import asyncio
from typing import Any

import litellm
import pytest

from clients.ways import KEY, TEXTS, TOO_LONG, Ways, slices

# It imports on demand, and what it imports warns of what else is installed.
pytestmark = pytest.mark.filterwarnings("default::UserWarning")

THOUSAND = [f"{text} {number}" for number in range(17) for text in TEXTS]


def hugging_face(url: str) -> dict[str, Any]:
    """Ask the URL as it stands; without an input type it would ask the hub first."""
    return {
        "model": "huggingface/any/model",
        "api_base": url,
        "input_type": "feature-extraction",
    }


def open_ai(url: str) -> dict[str, Any]:
    """Ask `/v1/embeddings`."""
    return {"model": "openai/any", "api_base": f"{url}/v1"}


def embed(how: Any, url: str, inputs: Any, key: str = KEY) -> list[Any]:
    """Take the rows out of LiteLLM's answer."""
    answer = litellm.embedding(input=inputs, api_key=key, max_retries=0, **how(url))
    return [row["embedding"] for row in answer.data]


BOTH = pytest.mark.parametrize("how", [hugging_face, open_ai])


@BOTH
def test_texts(ways: Ways, how: Any) -> None:
    """The rows are the server's own, digit by digit."""
    proxied, direct = ways.both(lambda url: embed(how, url, TEXTS[:20]))

    assert proxied == direct


@BOTH
def test_a_thousand_texts(ways: Ways, how: Any) -> None:
    """Directly that is an error; the proxy cuts the request up."""
    direct = [embed(how, ways.direct, part) for part in slices(THOUSAND)]

    proxied = embed(how, ways.proxied, THOUSAND)

    assert proxied == [row for part in direct for row in part]


@BOTH
def test_gathered_calls_share_batches(ways: Ways, how: Any) -> None:
    """Each gets its own row, and the server fewer requests."""

    async def gather(url: str) -> list[Any]:
        asked = [
            litellm.aembedding(input=[text], api_key=KEY, **how(url)) for text in TEXTS
        ]
        return [each.data[0]["embedding"] for each in await asyncio.gather(*asked)]

    direct = asyncio.run(gather(ways.direct))
    before = ways.requests()

    proxied = asyncio.run(gather(ways.proxied))

    assert proxied == direct
    assert ways.requests() - before < len(TEXTS)


@BOTH
@pytest.mark.parametrize("texts", [["good", ""], [TOO_LONG]])
def test_an_error_is_the_same_error(strict: Ways, how: Any, texts: list[str]) -> None:
    """The same class, and the same words."""
    proxied, direct = strict.both_fail(lambda url: embed(how, url, texts))

    assert proxied == direct


@BOTH
def test_a_wrong_key_is_the_same_error(strict: Ways, how: Any) -> None:
    """The proxy passes the client's key on, and the server's refusal back."""
    proxied, direct = strict.both_fail(lambda url: embed(how, url, "a", key="wrong"))

    assert proxied == direct
    assert proxied.startswith("AuthenticationError")
