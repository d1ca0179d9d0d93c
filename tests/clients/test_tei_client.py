"""tei-client, which asks `GET /info` first and sends every option, null or not."""

import asyncio
from typing import Any

import pytest

from clients.ways import TEXTS, TOO_LONG, Ways, slices

tei_client = pytest.importorskip("tei_client")


def ask(url: str, what: str, *arguments: Any, **options: Any) -> Any:
    """Call the method *what* of a client of its own."""
    client = tei_client.HttpClient(url)
    with client.client:
        return getattr(client, what)(*arguments, **options)


async def embed_gathered(url: str) -> list[Any]:
    """Embed all texts at once, each by itself."""
    client = tei_client.HttpClient(url)
    with client.client:
        async with client.async_client:
            return await asyncio.gather(*map(client.async_embed, TEXTS))


def test_it_learns_what_the_server_is(ways: Ways) -> None:
    """The proxy has nothing to say in this: it is the server's own answer."""
    proxied, direct = ways.both(lambda url: ask(url, "info"))

    assert proxied == direct
    assert proxied.server_model_type == tei_client.ModelType.Embedding


def test_it_finds_the_server_healthy(ways: Ways) -> None:
    """With and without the proxy."""
    assert ways.both(lambda url: ask(url, "health")) == (True, True)


@pytest.mark.parametrize(
    "options", [{}, {"normalize": False}, {"truncate": True}, {"prompt_name": None}]
)
def test_embed(ways: Ways, options: dict[str, Any]) -> None:
    """The rows are the server's own, digit by digit."""
    proxied, direct = ways.both(lambda url: ask(url, "embed", TEXTS[:5], **options))

    assert proxied == direct


def test_embed_all(ways: Ways) -> None:
    """One row for each token."""
    proxied, direct = ways.both(lambda url: ask(url, "embed_all", TEXTS[:5]))

    assert proxied == direct


def test_tokenize(ways: Ways) -> None:
    """The tokens are the server's own."""
    proxied, direct = ways.both(lambda url: ask(url, "tokenize", TEXTS[:5]))

    assert proxied == direct


def test_gathered_calls_share_batches(ways: Ways) -> None:
    """Each gets its own row, and the server far fewer requests."""
    direct = asyncio.run(embed_gathered(ways.direct))
    before = ways.requests()

    proxied = asyncio.run(embed_gathered(ways.proxied))

    assert proxied == direct
    assert ways.requests() - before <= len(TEXTS) // 4


def test_a_thousand_texts_in_one_call(ways: Ways) -> None:
    """Directly that is an error; the proxy cuts it up and joins the rows."""
    texts = [f"{text} {number}" for number in range(17) for text in TEXTS]
    direct = [ask(ways.direct, "embed", part) for part in slices(texts)]

    proxied = ask(ways.proxied, "embed", texts)

    assert proxied == [row for part in direct for row in part]


@pytest.mark.parametrize("texts", ["", [], ["good", TOO_LONG]])
def test_an_error_is_the_same_result(ways: Ways, texts: Any) -> None:
    """This client takes an error's body for the result."""
    proxied, direct = ways.both(lambda url: ask(url, "embed", texts))

    assert proxied == direct
    assert "error" in proxied
