"""openai, which asks `POST /v1/embeddings`, for base64 unless told otherwise."""

import asyncio
from pathlib import Path
from typing import Any

import pytest

from clients.ways import KEY, MOST, TEXTS, TOO_LONG, Ways, at_once, refusing, slices
from support.processes import proxy

openai = pytest.importorskip("openai")

ANSWER = (
    b'{"object":"list","data":[{"object":"embedding","embedding":[0.5],"index":0}],'
    b'"model":"m","usage":{"prompt_tokens":1,"total_tokens":1}}'
)


def create(url: str, inputs: Any, key: str = "none", **options: Any) -> Any:
    """Ask for embeddings with a client of its own; give the whole answer."""
    with openai.OpenAI(base_url=f"{url}/v1", api_key=key) as client:
        answer = client.embeddings.create(input=inputs, model="any", **options)
    return answer.to_dict(warnings=False)


def rows(answer: Any) -> list[Any]:
    """Take the embeddings out of an answer, in the order of their indexes."""
    data = sorted(answer["data"], key=lambda each: each["index"])
    return [each["embedding"] for each in data]


async def create_gathered(url: str) -> list[Any]:
    """Ask for all texts at once, each by itself."""
    async with openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="none") as client:
        asked = [client.embeddings.create(input=each, model="any") for each in TEXTS]
        return [
            answer.to_dict(warnings=False) for answer in await asyncio.gather(*asked)
        ]


@pytest.mark.parametrize(
    "inputs", ["one text", ["one", "two"], [5, 6, 7], [[5, 6], [7]]]
)
def test_texts_and_token_ids(ways: Ways, inputs: Any) -> None:
    """The answer is the server's own, its usage included."""
    proxied, direct = ways.both(lambda url: create(url, inputs))

    assert proxied == direct


@pytest.mark.parametrize(
    "options",
    [
        {"encoding_format": "float"},
        {"encoding_format": "base64"},
        {"dimensions": 7},
        {"user": "somebody"},
        {"extra_body": {"unknown": [1, 2]}},
    ],
)
def test_options_are_kept(ways: Ways, options: dict[str, Any]) -> None:
    """What the client asks for is what it gets."""
    proxied, direct = ways.both(lambda url: create(url, TEXTS[:3], **options))

    assert proxied == direct


def test_gathered_calls_share_batches(ways: Ways) -> None:
    """Each gets its own row at index 0, and the server far fewer requests."""
    direct = asyncio.run(create_gathered(ways.direct))
    before = ways.requests()

    proxied = asyncio.run(create_gathered(ways.proxied))

    assert [each["data"] for each in proxied] == [each["data"] for each in direct]
    assert ways.requests() - before <= len(TEXTS) // 4


def test_shared_usage_adds_up_to_what_the_server_counted(ways: Ways) -> None:
    """In a shared batch a call's share is by length; the sum is exact."""
    direct = asyncio.run(create_gathered(ways.direct))

    proxied = asyncio.run(create_gathered(ways.proxied))

    counted = sum(each["usage"]["total_tokens"] for each in direct)
    assert sum(each["usage"]["total_tokens"] for each in proxied) == counted


def test_floats_and_base64_at_once(ways: Ways) -> None:
    """Calls in different formats do not get into each other's batches."""
    formats = ["float", "base64"] * 20
    direct = [create(ways.direct, "same", encoding_format=each) for each in formats[:2]]

    proxied = at_once(
        lambda each: create(ways.proxied, "same", encoding_format=each), formats
    )

    assert [each["data"] for each in proxied] == [each["data"] for each in direct] * 20


def test_a_thousand_texts_in_one_call(ways: Ways) -> None:
    """Directly that is an error; the proxy cuts it up and joins the answer."""
    texts = [f"{text} {number}" for number in range(17) for text in TEXTS]
    direct = [create(ways.direct, part) for part in slices(texts)]

    proxied = create(ways.proxied, texts)

    assert [each["index"] for each in proxied["data"]] == list(range(len(texts)))
    assert rows(proxied) == [row for part in direct for row in rows(part)]
    counted = sum(part["usage"]["total_tokens"] for part in direct)
    assert proxied["usage"]["total_tokens"] == counted


@pytest.mark.parametrize("inputs", ["", ["good", ""], []])
def test_an_empty_input_is_the_same_error(ways: Ways, inputs: Any) -> None:
    """The same class, and the same words."""
    proxied, direct = ways.both_fail(lambda url: create(url, inputs))

    assert proxied == direct


@pytest.mark.parametrize(
    "options", [{"dimensions": 0}, {"dimensions": 10_000}, {"encoding_format": "x"}]
)
def test_a_bad_option_is_the_same_error(ways: Ways, options: dict[str, Any]) -> None:
    """The same class, and the same words."""
    proxied, direct = ways.both_fail(lambda url: create(url, "good", **options))

    assert proxied == direct


def test_a_refused_call_is_sent_once(ways: Ways) -> None:
    """What cannot be answered is not tried again."""
    before = ways.requests()

    ways.both_fail(lambda url: create(url, ["good", ""]))

    assert ways.requests() - before == 2


def test_a_text_that_is_too_long_is_the_same_error(strict: Ways) -> None:
    """Where the server does not truncate."""
    proxied, direct = strict.both_fail(
        lambda url: create(url, ["good", TOO_LONG], key=KEY)
    )

    assert proxied == direct
    assert "must have less than" in proxied


def test_one_bad_text_among_more_than_fit_is_the_same_error(strict: Ways) -> None:
    """The part that was refused speaks for the call."""
    texts = [*TEXTS[:MOST], *TEXTS[:7], TOO_LONG]

    through_proxy = strict.both_fail(lambda url: create(url, texts, key=KEY))[0]
    alone = strict.both_fail(lambda url: create(url, TOO_LONG, key=KEY))[1]

    assert through_proxy == alone


def test_a_wrong_key_is_the_same_error(strict: Ways) -> None:
    """The proxy passes the client's key on, and the server's refusal back."""
    proxied, direct = strict.both_fail(lambda url: create(url, "good", key="wrong"))

    assert proxied == direct
    assert proxied.startswith("AuthenticationError")


def test_a_server_without_room_is_asked_again_by_the_proxy(tmp_path: Path) -> None:
    """A client that does not try again itself gets its row all the same."""
    with (
        refusing(ANSWER, 429, 503) as upstream,
        proxy(tmp_path / "proxy", upstream.url, "answers on") as url,
        openai.OpenAI(base_url=f"{url}/v1", api_key="x", max_retries=0) as client,
    ):
        answer = client.embeddings.create(input="a", model="m", encoding_format="float")

    assert rows(answer.to_dict(warnings=False)) == [[0.5]]
    assert upstream.requests == 3


def test_a_server_that_stays_without_room_is_the_same_error(tmp_path: Path) -> None:
    """When the proxy's patience is at its end the refusal is passed on."""

    def ask(url: str) -> Any:
        with openai.OpenAI(base_url=f"{url}/v1", api_key="x", max_retries=0) as client:
            return client.embeddings.create(input="a", model="m")

    with (
        refusing(ANSWER, *[429] * 99) as upstream,
        proxy(
            tmp_path / "proxy", upstream.url, "answers on", "--overload-patience=0.3"
        ) as url,
    ):
        proxied, direct = Ways(direct=upstream.url, proxied=url).both_fail(ask)

    assert proxied == direct
    assert proxied.startswith("RateLimitError")
