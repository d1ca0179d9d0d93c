"""huggingface_hub's InferenceClient, which asks `POST /` unless told otherwise."""

import asyncio
from typing import Any

import pytest

from clients.ways import KEY, TEXTS, TOO_LONG, Ways, at_once, slices

hub = pytest.importorskip("huggingface_hub")


def embed(url: str, inputs: Any, **options: Any) -> Any:
    """Embed *inputs* with a client of its own."""
    client = hub.InferenceClient(base_url=url)
    return client.feature_extraction(inputs, **options).tolist()


def embed_with_key(url: str, inputs: Any, key: str) -> Any:
    """Embed *inputs* for somebody who has a key."""
    client = hub.InferenceClient(base_url=f"{url}/embed", token=key)
    return client.feature_extraction(inputs).tolist()


async def embed_gathered(url: str) -> Any:
    """Embed all texts at once, each by itself."""
    async with hub.AsyncInferenceClient(base_url=url) as client:
        found = await asyncio.gather(*map(client.feature_extraction, TEXTS))
    return [row.tolist() for row in found]


@pytest.mark.parametrize("inputs", ["one text", ["one"], ["one", "two", "three"]])
def test_a_text_or_a_list_of_texts(ways: Ways, inputs: Any) -> None:
    """The rows are the server's own, digit by digit."""
    proxied, direct = ways.both(lambda url: embed(url, inputs))

    assert proxied == direct


@pytest.mark.parametrize(
    "options",
    [
        {"normalize": False},
        {"truncate": True, "truncation_direction": "right"},
        {"truncate": True, "truncation_direction": "left"},
    ],
)
def test_options_are_kept(ways: Ways, options: dict[str, Any]) -> None:
    """What the client asks for is what it gets."""
    proxied, direct = ways.both(lambda url: embed(url, TOO_LONG, **options))

    assert proxied == direct


@pytest.mark.parametrize("path", ["", "/", "/embed"])
def test_the_url_may_be_given_as_the_model(ways: Ways, path: str) -> None:
    """With and without a path."""

    def ask(url: str) -> Any:
        client = hub.InferenceClient(model=f"{url}{path}")
        return client.feature_extraction(["one", "two"]).tolist()

    proxied, direct = ways.both(ask)

    assert proxied == direct


def test_sentence_similarity(ways: Ways) -> None:
    """A route that is not batched answers as well."""

    def ask(url: str) -> Any:
        client = hub.InferenceClient(model=f"{url}/similarity")
        return client.sentence_similarity("cat", other_sentences=["dog", "car"])

    proxied, direct = ways.both(ask)

    assert proxied == direct


def test_gathered_calls_share_batches(ways: Ways) -> None:
    """Each gets its own row, and the server far fewer requests."""
    direct = asyncio.run(embed_gathered(ways.direct))
    before = ways.requests()

    proxied = asyncio.run(embed_gathered(ways.proxied))

    assert proxied == direct
    assert ways.requests() - before <= len(TEXTS) // 4


def test_many_clients_at_once(ways: Ways) -> None:
    """Threads, each with a client and a connection of its own."""
    direct = [embed(ways.direct, text) for text in TEXTS]

    proxied = at_once(lambda text: embed(ways.proxied, text), TEXTS)

    assert proxied == direct


def test_a_thousand_texts_in_one_call(ways: Ways) -> None:
    """Directly that is an error; the proxy cuts it up and joins the rows."""
    texts = [f"{text} {number}" for number in range(17) for text in TEXTS]

    proxied = embed(ways.proxied, texts)

    assert len(proxied) > 1000
    assert proxied == [
        row for part in slices(texts) for row in embed(ways.direct, part)
    ]


@pytest.mark.parametrize("inputs", ["", ["good", ""], []])
def test_an_empty_input_is_the_same_error(ways: Ways, inputs: Any) -> None:
    """The same class, and the same words."""
    proxied, direct = ways.both_fail(lambda url: embed(url, inputs))

    assert proxied == direct


def test_a_bad_text_among_many_is_only_its_senders_error(ways: Ways) -> None:
    """Those who shared a batch with it get their rows."""
    client = hub.InferenceClient(base_url=ways.proxied)

    def ask(text: str) -> Any:
        try:
            return client.feature_extraction(text).tolist()
        except hub.errors.HfHubHTTPError as error:
            return error.response.status_code

    got = at_once(ask, [*TEXTS[:9], "", *TEXTS[9:20]])

    assert got.pop(9) == 400
    assert got == [embed(ways.direct, text) for text in TEXTS[:20]]


def test_a_text_that_is_too_long_is_the_same_error(strict: Ways) -> None:
    """Where the server does not truncate."""
    proxied, direct = strict.both_fail(
        lambda url: embed_with_key(url, ["good", TOO_LONG], KEY)
    )

    assert proxied == direct
    assert "must have less than" in proxied


def test_a_wrong_key_is_the_same_error(strict: Ways) -> None:
    """The proxy passes the client's key on, and the server's refusal back."""
    proxied, direct = strict.both_fail(lambda url: embed_with_key(url, "a", "wrong"))

    assert proxied == direct
    assert "401" in proxied


def test_the_right_key_opens_the_server(strict: Ways) -> None:
    """It is the client's own that is used."""
    proxied, direct = strict.both(lambda url: embed_with_key(url, "good", KEY))

    assert proxied == direct
