"""
Hosted APIs: what one request may have, by host and model.

Each row names where its numbers are from, as they were in November 2026.  What is not
here, or has changed since, is learned from refusals; `MAX_BATCH_INPUTS` and
`MAX_BATCH_TOKENS` win over it.
"""

from collections.abc import Mapping, Sequence

import msgspec
from attrs import field, frozen

__all__ = ["HOSTED", "HostedApi", "Most", "find_hosted"]


@frozen(kw_only=True)
class Most:
    """What one request may have."""

    inputs: int
    tokens: int | None = None
    """Tokens of all its inputs together, if that is limited."""


@frozen(kw_only=True)
class HostedApi:
    """One hosted API, by the names of its hosts."""

    name: str
    hosts: Sequence[str]
    """Names of hosts; one that begins with a dot or a hyphen is the end of a name."""

    inputs: int
    """Inputs that one request may have, of all models that are not in `models`."""

    tokens: int | None = None
    """Tokens of all its inputs together."""

    counts_models_together: bool = False
    """Whether the requests and tokens of an account are limited for all its models."""

    models: Mapping[str, Most] = field(factory=dict)
    """Models for which it is something else."""

    sources: Sequence[str]
    """Where that is said."""

    @property
    def most_inputs(self) -> int:
        """Return the most inputs that a request with any model may have."""
        return max([self.inputs, *(each.inputs for each in self.models.values())])

    def most_of(self, model: bytes) -> Most:
        """Return what a request with a *model* may have, its name written in JSON."""
        found = self.models.get(_name(model))
        return found or Most(inputs=self.inputs, tokens=self.tokens)


HOSTED: Sequence[HostedApi] = (
    HostedApi(
        name="OpenAI",
        hosts=["api.openai.com"],
        inputs=2048,
        tokens=300_000,
        sources=["https://platform.openai.com/docs/api-reference/embeddings/create"],
    ),
    HostedApi(
        name="Azure OpenAI",
        hosts=[".openai.azure.com"],
        inputs=2048,
        sources=["https://learn.microsoft.com/azure/ai-services/openai/quotas-limits"],
    ),
    HostedApi(
        name="Vertex AI",
        hosts=["aiplatform.googleapis.com", "-aiplatform.googleapis.com"],
        inputs=250,
        tokens=20_000,
        models={"gemini-embedding-001": Most(inputs=1, tokens=20_000)},
        sources=[
            (
                "https://cloud.google.com/vertex-ai/generative-ai/docs/embeddings/"
                "get-text-embeddings"
            )
        ],
    ),
    HostedApi(
        name="Gemini API",
        hosts=["generativelanguage.googleapis.com"],
        inputs=100,
        # Its own refusal says so: "at most 100 requests can be in one batch".
        sources=[
            "https://github.com/lancedb/lancedb/pull/3618",
            "https://github.com/vercel/ai/pull/16575",
        ],
    ),
    HostedApi(
        name="Cohere",
        hosts=["api.cohere.com", "api.cohere.ai"],
        inputs=96,
        counts_models_together=True,
        sources=[
            "https://docs.cohere.com/reference/embed",
            "https://docs.cohere.com/docs/rate-limits",
        ],
    ),
    HostedApi(
        name="Voyage AI",
        hosts=["api.voyageai.com", "ai.mongodb.com"],
        inputs=1000,
        tokens=120_000,
        models={
            "voyage-4-lite": Most(inputs=1000, tokens=1_000_000),
            "voyage-3.5-lite": Most(inputs=1000, tokens=1_000_000),
            "voyage-4": Most(inputs=1000, tokens=320_000),
            "voyage-3.5": Most(inputs=1000, tokens=320_000),
            "voyage-2": Most(inputs=1000, tokens=320_000),
        },
        sources=[
            "https://docs.voyageai.com/reference/embeddings-api",
            (
                "https://www.mongodb.com/docs/api/doc/atlas-embedding-and-reranking-api/"
                "operation/operation-createembedding"
            ),
        ],
    ),
    HostedApi(
        name="Alibaba Cloud Model Studio (Bailian)",
        hosts=["dashscope.aliyuncs.com", "dashscope-intl.aliyuncs.com"],
        inputs=10,
        models={
            "text-embedding-v1": Most(inputs=25),
            "text-embedding-v2": Most(inputs=25),
        },
        sources=[
            (
                "https://help.aliyun.com/zh/model-studio/developer-reference/"
                "embedding-interfaces-compatible-with-openai"
            )
        ],
    ),
    HostedApi(
        name="Mistral",
        hosts=["api.mistral.ai"],
        inputs=512,
        tokens=16_384,
        # Its own refusals say so: code 3210, and "Max is 16384".
        sources=[
            "https://github.com/raphaelmansuy/edgequake-llm/pull/74",
            "https://github.com/aurelio-labs/semantic-router/issues/297",
        ],
    ),
    HostedApi(
        name="Jina AI",
        hosts=["api.jina.ai"],
        inputs=512,
        counts_models_together=True,
        # Its own refusal says so: "Each input list can contain at most 512 items".
        sources=[
            "https://github.com/langgenius/dify-official-plugins/issues/1997",
            "https://jina.ai/api-dashboard/rate-limit/",
        ],
    ),
    HostedApi(
        name="DeepInfra",
        hosts=["api.deepinfra.com"],
        inputs=1024,
        sources=[
            "https://github.com/langchain-ai/langchain/issues/21188",
            "https://github.com/deepinfra/deepinfra-node/issues/62",
        ],
    ),
    HostedApi(
        name="Fireworks AI",
        hosts=["api.fireworks.ai"],
        inputs=2048,
        sources=[
            (
                "https://docs.fireworks.ai/api-reference/"
                "creates-an-embedding-vector-representing-the-input-text"
            )
        ],
    ),
    HostedApi(
        name="SiliconFlow",
        hosts=["api.siliconflow.cn", "api.siliconflow.com"],
        inputs=64,
        # Its own refusal says so: "maximum allowed batch size 64".
        sources=[
            "https://github.com/apecloud/ApeRAG/issues/716",
            "https://github.com/apecloud/ApeRAG/pull/724",
        ],
    ),
    HostedApi(
        name="Upstage",
        hosts=["api.upstage.ai"],
        inputs=100,
        tokens=204_799,
        sources=["https://console.upstage.ai/ko/api/embeddings"],
    ),
)


def find_hosted(host: str) -> HostedApi | None:
    """Return the hosted API at *host*, if it is one that is known."""
    host = host.rstrip(".").lower()
    return next((api for api in HOSTED if _is_of(host, api.hosts)), None)


def _is_of(host: str, names: Sequence[str]) -> bool:
    ends = tuple(name for name in names if name[0] in ".-")
    return host in names or host.endswith(ends)


def _name(model: bytes) -> str:
    """Return the name of a model without who publishes it, as in `google/NAME`."""
    try:
        return msgspec.json.decode(model or b'""', type=str).rpartition("/")[2]
    except msgspec.DecodeError:
        return ""
