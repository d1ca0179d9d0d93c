"""
What an inference server says of itself in `GET /info`, as far as it matters.

A server that is no TEI answers otherwise or not at all; then nothing is known
and nothing is guessed.
"""

import re

import msgspec
from attrs import frozen

from abproxy.http.messages import Response

__all__ = ["ServerInfo", "batch_limit_in", "read_info"]

_LIMIT = re.compile(rb'"batch size \d+ > maximum allowed batch size (\d{1,9})"')
"""The whole of a message, so that no client can make the server say so."""


@frozen(kw_only=True)
class ServerInfo:
    """What is known of the upstream."""

    max_batch_inputs: int | None = None
    """Inputs that one request may have."""

    max_inputs_in_flight: int | None = None
    """Inputs of all requests that it works on at once: its permits."""

    max_input_length: int | None = None
    """Tokens of an input that are looked at."""

    task: str | None = None
    """What its model does: embedding, classifier, reranker or splade."""

    model: str | None = None

    version: str | None = None


class _Info(msgspec.Struct):
    max_client_batch_size: int
    max_concurrent_requests: int
    max_input_length: int | None = None
    model_type: dict[str, object] | str | None = None
    model_id: str | None = None
    version: str | None = None


def _task(model_type: dict[str, object] | str | None) -> str | None:
    match model_type:
        case {"embedding": {"pooling": "splade"}}:
            return "splade"
        case dict():
            return next(iter(model_type)).lower() if len(model_type) == 1 else None
        case _:
            return model_type and model_type.lower()


def read_info(reply: Response) -> ServerInfo | None:
    """Understand the answer to `GET /info`; None if it is no TEI's."""
    try:
        info = msgspec.json.decode(reply.body, type=_Info)
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
    )


def batch_limit_in(reply: Response) -> int | None:
    """
    Find the limit in a refusal of too many inputs, if *reply* is one.

    TEI says it with 422, and with 413 up to version 1.8.
    """
    if reply.status not in {413, 422}:
        return None
    found = _LIMIT.search(reply.body)
    return max(1, int(found[1])) if found else None
