"""
What a server says of itself: its limits and its model.

TEI says it in its answer to `/info`, a server with the OpenAI API in its list of
models, and TEI in some refusals as well.
"""

import re

import msgspec
from attrs import frozen
from twisted.web.http import OK

from abproxy.http.messages import Response
from abproxy.upstream.identity import Identity

__all__ = ["ServerInfo", "batch_limit_in", "read_info", "read_models"]

_LIMIT = re.compile(rb'"batch size \d+ > maximum allowed batch size (\d{1,9})"')
"""The whole of a message, so that no client can make the server say so."""


@frozen(kw_only=True)
class ServerInfo:
    """The limits and the model of an upstream, as far as they are known."""

    max_batch_inputs: int | None = None
    """Inputs that one request may have."""

    max_inputs_in_flight: int | None = None
    """Inputs of all requests that it works on at once: its permits."""

    max_input_length: int | None = None
    """Tokens of an input that are looked at."""

    task: str | None = None
    """What its model does: embedding, classifier, reranker or splade."""

    model: str | None = None

    models: tuple[str, ...] = ()
    """The ids that it lists, in order, if there are several."""

    version: str | None = None

    sha: str | None = None
    """Which version of the model it is."""

    dtype: str | None = None
    """In which numbers the model computes."""

    embeddings_path: str | None = None
    """Where it makes embeddings, if it has the OpenAI API and not TEI's."""

    def __str__(self) -> str:
        """Return what an operator wants to know of it, in words."""
        model = f"{self.model} ({self.task})" if self.task else self.model
        told = {
            "model {}": model,
            "version {}": self.version,
            "{} inputs a request at most": self.max_batch_inputs,
            "{} inputs at once": self.max_inputs_in_flight,
            "{} tokens an input": self.max_input_length,
            "embeddings at {}": self.embeddings_path,
        }
        return ", ".join(
            words.format(value) for words, value in told.items() if value is not None
        )

    @property
    def identity(self) -> Identity:
        """Return what it says of its model."""
        one = () if self.model is None else (self.model,)
        return Identity(models=self.models or one, sha=self.sha, dtype=self.dtype)

    @property
    def is_tei(self) -> bool:
        """Return whether its `/info` is that of text-embeddings-inference."""
        return self.max_inputs_in_flight is not None


class _Info(msgspec.Struct):
    max_client_batch_size: int
    max_concurrent_requests: int
    max_input_length: int | None = None
    model_type: dict[str, object] | str | None = None
    model_id: str | None = None
    version: str | None = None
    model_sha: str | None = None
    model_dtype: str | None = None


def _task(model_type: dict[str, object] | str | None) -> str | None:
    match model_type:
        case {"embedding": {"pooling": "splade"}}:
            return "splade"
        case dict():
            return next(iter(model_type)).lower() if len(model_type) == 1 else None
        case _:
            return model_type and model_type.lower()


def read_info(response: Response) -> ServerInfo | None:
    """Return what the response to `GET /info` says; None if it is no TEI's."""
    try:
        info = msgspec.json.decode(response.body, type=_Info)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    if min(info.max_client_batch_size, info.max_concurrent_requests) < 1:
        return None
    return ServerInfo(
        max_batch_inputs=info.max_client_batch_size,
        max_inputs_in_flight=info.max_concurrent_requests,
        max_input_length=info.max_input_length,
        task=_task(info.model_type),
        model=info.model_id,
        version=info.version,
        sha=info.model_sha,
        dtype=info.model_dtype,
    )


class _Model(msgspec.Struct):
    id: str


class _Models(msgspec.Struct):
    data: list[_Model]


def read_models(response: Response, embeddings_path: str) -> ServerInfo | None:
    """
    Return what a list of models says; None if it is none of the OpenAI API.

    Args:
        response: to the question for it.
        embeddings_path: where such a server makes embeddings.
    """
    try:
        models = msgspec.json.decode(response.body, type=_Models).data
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    if response.status != OK:
        return None
    ids = tuple(sorted({model.id for model in models}))
    if len(ids) == 1:
        return ServerInfo(model=ids[0], embeddings_path=embeddings_path)
    return ServerInfo(models=ids, embeddings_path=embeddings_path)


def batch_limit_in(response: Response) -> int | None:
    """
    Return the limit in a refusal of too many inputs, if *response* is one.

    TEI says it with 422, and with 413 up to version 1.8.
    """
    if response.status not in {413, 422}:
        return None
    found = _LIMIT.search(response.body)
    return max(1, int(found[1])) if found else None
