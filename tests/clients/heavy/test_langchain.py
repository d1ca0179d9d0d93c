"""LangChain's embeddings, which send all documents in one request."""

import asyncio
from typing import Any

import pytest
from huggingface_hub import AsyncInferenceClient, InferenceClient
from langchain_huggingface import HuggingFaceEndpointEmbeddings
from langchain_openai import OpenAIEmbeddings

from clients.ways import KEY, TEXTS, TOO_LONG, Ways, at_once, slices

# LangChain leaves its connections to the garbage collector.
pytestmark = [
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
    pytest.mark.filterwarnings("ignore:unclosed:ResourceWarning"),
]

THOUSAND = [f"{text} {number}" for number in range(17) for text in TEXTS]


def hugging_face(url: str) -> HuggingFaceEndpointEmbeddings:
    """Make the one that asks `POST /`; it takes no URL, but a client that has one."""
    embeddings = HuggingFaceEndpointEmbeddings(
        model="any/model", huggingfacehub_api_token=KEY
    )
    embeddings.client = InferenceClient(base_url=url, token=KEY)
    embeddings.async_client = AsyncInferenceClient(base_url=url, token=KEY)
    return embeddings


def open_ai(url: str, key: str = KEY) -> OpenAIEmbeddings:
    """Make the one that asks `POST /v1/embeddings`; it is told to send texts."""
    return OpenAIEmbeddings(
        model="any",
        base_url=f"{url}/v1",
        api_key=key,
        check_embedding_ctx_length=False,
    )


BOTH = pytest.mark.parametrize("made", [hugging_face, open_ai])


@BOTH
def test_documents(ways: Ways, made: Any) -> None:
    """The rows are the server's own, digit by digit."""
    proxied, direct = ways.both(lambda url: made(url).embed_documents(TEXTS[:20]))

    assert proxied == direct


@BOTH
def test_a_query(ways: Ways, made: Any) -> None:
    """A query is a text like any other."""
    proxied, direct = ways.both(lambda url: made(url).embed_query("What is it?"))

    assert proxied == direct


@BOTH
def test_a_thousand_documents(ways: Ways, made: Any) -> None:
    """Directly that is an error; the proxy cuts the request up."""
    direct = made(ways.direct)

    proxied = made(ways.proxied).embed_documents(THOUSAND)

    parts = [direct.embed_documents(part) for part in slices(THOUSAND)]
    assert proxied == [row for part in parts for row in part]


@BOTH
def test_gathered_queries_share_batches(ways: Ways, made: Any) -> None:
    """Each gets its own row, and the server far fewer requests."""

    async def gather(url: str) -> list[Any]:
        embeddings = made(url)
        return await asyncio.gather(*map(embeddings.aembed_query, TEXTS))

    direct = asyncio.run(gather(ways.direct))
    before = ways.requests()

    proxied = asyncio.run(gather(ways.proxied))

    assert proxied == direct
    assert ways.requests() - before <= len(TEXTS) // 4


@BOTH
def test_many_clients_at_once(ways: Ways, made: Any) -> None:
    """Threads, each with a client of its own."""
    direct = made(ways.direct).embed_documents(TEXTS[:20])

    proxied = at_once(lambda text: made(ways.proxied).embed_query(text), TEXTS[:20])

    assert proxied == direct


@BOTH
@pytest.mark.parametrize("texts", [["good", ""], [TOO_LONG]])
def test_an_error_is_the_same_error(strict: Ways, made: Any, texts: list[str]) -> None:
    """The same class, and the same words."""
    proxied, direct = strict.both_fail(lambda url: made(url).embed_documents(texts))

    assert proxied == direct


def test_a_wrong_key_is_the_same_error(strict: Ways) -> None:
    """The proxy passes the client's key on, and the server's refusal back."""
    proxied, direct = strict.both_fail(
        lambda url: open_ai(url, "wrong").embed_query("good")
    )

    assert proxied == direct
    assert proxied.startswith("AuthenticationError")
