"""What is known of hosted APIs."""

import re

import pytest

from abproxy.upstream.hosted import HOSTED, HostedApi, Most, find_hosted


@pytest.mark.parametrize(
    ("host", "name"),
    [
        ("api.openai.com", "OpenAI"),
        ("API.OpenAI.com.", "OpenAI"),
        ("mine.openai.azure.com", "Azure OpenAI"),
        ("us-central1-aiplatform.googleapis.com", "Vertex AI"),
        ("generativelanguage.googleapis.com", "Gemini API"),
        ("dashscope.aliyuncs.com", "Alibaba"),
        ("api.cohere.ai", "Cohere"),
    ],
)
def test_a_hosted_api_is_known_by_its_host(host: str, name: str) -> None:
    """However it is written."""
    found = find_hosted(host)

    assert found is not None
    assert found.name.startswith(name)


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "api.openai.com.example.org",
        "myapi.openai.com",
        "openai.azure.com",
        "::1",
    ],
)
def test_no_other_host_is_taken_for_one(host: str) -> None:
    """Its limits are its own."""
    assert find_hosted(host) is None


@pytest.mark.parametrize(
    ("host", "model", "most"),
    [
        (
            "api.openai.com",
            b'"text-embedding-3-small"',
            Most(inputs=2048, tokens=300_000),
        ),
        ("api.voyageai.com", b'"voyage-3-large"', Most(inputs=1000, tokens=120_000)),
        ("api.voyageai.com", b'"voyage-4-lite"', Most(inputs=1000, tokens=1_000_000)),
        (
            "eu-aiplatform.googleapis.com",
            b'"google/gemini-embedding-001"',
            Most(inputs=1, tokens=20_000),
        ),
        ("dashscope.aliyuncs.com", b'"text-embedding-v4"', Most(inputs=10)),
        ("dashscope.aliyuncs.com", b'"text-embedding-v2"', Most(inputs=25)),
        ("dashscope.aliyuncs.com", b"", Most(inputs=10)),
        ("dashscope.aliyuncs.com", b'"\\q"', Most(inputs=10)),
    ],
)
def test_a_model_may_take_something_else_than_others(
    host: str, model: bytes, most: Most
) -> None:
    """By its name, with or without who publishes it."""
    found = find_hosted(host)

    assert found is not None
    assert found.most_of(model) == most


@pytest.mark.parametrize("api", HOSTED, ids=lambda api: api.name)
def test_each_row_says_where_its_numbers_are_from(api: HostedApi) -> None:
    """So that they can be looked up again."""
    assert api.sources
    assert all(re.match(r"https://[^/ ]+/\S+$", source) for source in api.sources)
    assert api.inputs > 0
    assert api.most_inputs >= api.inputs
