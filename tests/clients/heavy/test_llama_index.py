"""LlamaIndex's TEI embeddings: ten texts a request, each on a new connection."""

import asyncio
from typing import Any

import pytest
from llama_index.embeddings.text_embeddings_inference import TextEmbeddingsInference

from clients.ways import KEY, TEXTS, TOO_LONG, Ways, at_once, slices

THOUSAND = [f"{text} {number}" for number in range(17) for text in TEXTS]


def made(url: str, **options: Any) -> TextEmbeddingsInference:
    """Make a client."""
    return TextEmbeddingsInference(model_name="any/model", base_url=url, **options)


def test_texts(ways: Ways) -> None:
    """The rows are the server's own, digit by digit."""
    proxied, direct = ways.both(
        lambda url: made(url).get_text_embedding_batch(TEXTS[:25])
    )

    assert proxied == direct


def test_a_query(ways: Ways) -> None:
    """With the instruction that goes before it."""
    proxied, direct = ways.both(
        lambda url: made(url, query_instruction="Find:").get_query_embedding("it")
    )

    assert proxied == direct


def test_a_thousand_texts_in_one_call(ways: Ways) -> None:
    """Directly that is an error; the proxy cuts the request up."""
    direct = [
        made(ways.direct, embed_batch_size=2000).get_text_embedding_batch(part)
        for part in slices(THOUSAND)
    ]

    proxied = made(ways.proxied, embed_batch_size=2000)

    assert proxied.get_text_embedding_batch(THOUSAND) == [
        row for part in direct for row in part
    ]


def test_gathered_queries_share_batches(ways: Ways) -> None:
    """Each gets its own row, and the server far fewer requests."""

    async def gather(url: str) -> list[Any]:
        client = made(url)
        return await asyncio.gather(*map(client.aget_query_embedding, TEXTS))

    direct = asyncio.run(gather(ways.direct))
    before = ways.requests()

    proxied = asyncio.run(gather(ways.proxied))

    assert proxied == direct
    assert ways.requests() - before <= len(TEXTS) // 2


def test_many_clients_at_once(ways: Ways) -> None:
    """Threads, each with a client of its own."""
    direct = [made(ways.direct).get_text_embedding(text) for text in TEXTS[:20]]

    proxied = at_once(
        lambda text: made(ways.proxied).get_text_embedding(text), TEXTS[:20]
    )

    assert proxied == direct


@pytest.mark.parametrize(
    ("key", "text"), [(KEY, ""), (KEY, TOO_LONG), ("wrong", "good")]
)
def test_an_error_is_the_same_error(strict: Ways, key: str, text: str) -> None:
    """This client takes any answer for rows, and stumbles over it."""
    proxied, direct = strict.both_fail(
        lambda url: made(url, auth_token=key, truncate_text=False).get_query_embedding(
            text
        )
    )

    assert proxied == direct
