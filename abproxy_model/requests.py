"""
Parsing of requests: the body as JSON, then the fields that its route has.

Only types and sizes; what the values may be is decided where they are used.
"""

import re
from collections.abc import Sequence
from functools import partial
from typing import Any, ClassVar, Self

from attrs import evolve, frozen
from twisted.web.iweb import IRequest

from abproxy_model import schema
from abproxy_model.schema import BadBody, Field, Reader
from abproxy_model.tokens import Input

__all__ = (
    "MAX_BODY_BYTES",
    "Decode",
    "Embed",
    "EmbedAll",
    "EmbedSparse",
    "OpenAI",
    "Predict",
    "Rerank",
    "Similarity",
    "Tokenize",
    "json_body",
)

MAX_BODY_BYTES = 2_000_000
_JSON = re.compile(rb"\s*application/([^;/\s]+\+)?json\s*(;.*)?", re.IGNORECASE)
_MAX_ID = 2**32


def json_body(request: IRequest) -> bytes:
    """
    The bytes of a JSON *request*; its type is looked at before its size.

    Raises:
        BadBody: it does not say that it is JSON, or there is too much of it.
    """
    kind = request.getHeader(b"content-type") or b""
    if not _JSON.fullmatch(kind):
        raise BadBody(415, "Expected request with `Content-Type: application/json`")
    body: bytes = request.content.read()
    if len(body) > MAX_BODY_BYTES:
        raise BadBody(413, "Failed to buffer the request body: length limit exceeded")
    return body


def _is_ids(value: Any) -> bool:
    return isinstance(value, list) and all(
        type(each) is int and 0 <= each < _MAX_ID for each in value
    )


def _is_input_item(value: Any) -> bool:
    return isinstance(value, str) or _is_ids(value)


def _is_input(value: Any) -> bool:
    return _is_input_item(value) or (
        isinstance(value, list) and all(map(_is_input_item, value))
    )


def _is_texts(value: Any) -> bool:
    return isinstance(value, str) or (
        isinstance(value, list) and all(isinstance(each, str) for each in value)
    )


def _is_many_ids(value: Any) -> bool:
    return _is_ids(value) or (isinstance(value, list) and all(map(_is_ids, value)))


_DIRECTIONS = ("Left", "left", "Right", "right")
_OPTIONAL_BOOLEAN = partial(Reader.optional, read=Reader.boolean)
_OPTIONAL_STRING = partial(Reader.optional, read=Reader.string)
_OPTIONAL_SIZE = partial(Reader.optional, read=Reader.size)

_INPUT = partial(Reader.untagged, name="Input", accept=_is_input)
_TRUNCATE = Field(name="truncate", read=_OPTIONAL_BOOLEAN, default=None)
_TRUNCATE_NOT_IN_LIST = evolve(_TRUNCATE, in_list=False)
_DIRECTION = Field(
    name="truncation_direction",
    read=partial(Reader.variant, names=_DIRECTIONS),
    default="Right",
)
_PROMPT = Field(name="prompt_name", read=_OPTIONAL_STRING, default=None, in_list=False)
_DIMENSIONS = Field(name="dimensions", read=_OPTIONAL_SIZE, default=None, in_list=False)


def _required(name: str, read: schema.Read) -> Field:
    return Field(name=name, read=read, in_list=False)


def _flag(name: str, *, default: bool) -> Field:
    return Field(name=name, read=Reader.boolean, default=default)


_EMBED_ALL = (_required("inputs", _INPUT), _TRUNCATE, _DIRECTION, _PROMPT)
_PARAMETERS: Sequence[Field] = (
    _TRUNCATE_NOT_IN_LIST,
    _DIRECTION,
    _PROMPT,
)
_NO_PARAMETERS = {each.name: each.default for each in _PARAMETERS}
_SIMILARITY = (
    _required(
        "inputs",
        lambda reader: reader.struct(
            "SimilarityInput",
            (
                _required("source_sentence", Reader.string),
                _required("sentences", Reader.strings),
            ),
        ),
    ),
    Field(
        name="parameters",
        read=partial(
            Reader.optional,
            read=partial(
                Reader.struct, name="SimilarityParameters", fields=_PARAMETERS
            ),
        ),
        default=None,
        in_list=False,
    ),
)


@frozen(kw_only=True)
class _Call:
    """The fields of a request, read from its body."""

    _struct: ClassVar[str]
    """TEI's name for it, which its errors mention."""

    _fields: ClassVar[Sequence[Field]]
    """In the order TEI declares them: a request may be a list of their values."""

    @classmethod
    def read(cls, body: bytes) -> Self:
        """
        Read it from a *body*.

        Raises:
            BadBody: it is not what the route expects.
        """
        return cls(**schema.read(body, cls._struct, cls._fields))


@frozen(kw_only=True)
class EmbedAll(_Call):
    """A request to /embed_all."""

    _struct = "EmbedAllRequest"
    _fields: ClassVar[Sequence[Field]] = _EMBED_ALL

    inputs: Input | list[Input]
    truncate: bool | None
    truncation_direction: str
    prompt_name: str | None


@frozen(kw_only=True)
class EmbedSparse(EmbedAll):
    """A request to /embed_sparse, which needs another kind of model."""

    _struct = "EmbedSparseRequest"


@frozen(kw_only=True)
class Embed(EmbedAll):
    """A request to /embed, / and /invocations."""

    _struct = "EmbedRequest"
    _fields = (*_EMBED_ALL, _flag("normalize", default=True), _DIMENSIONS)

    normalize: bool
    dimensions: int | None


@frozen(kw_only=True)
class OpenAI(_Call):
    """A request to /v1/embeddings and /embeddings."""

    _struct = "OpenAICompatRequest"
    _fields = (
        _required("input", _INPUT),
        Field(name="model", read=_OPTIONAL_STRING, default=None, in_list=False),
        Field(name="user", read=_OPTIONAL_STRING, default=None, in_list=False),
        Field(
            name="encoding_format",
            read=partial(Reader.variant, names=("float", "base64")),
            default="float",
        ),
        _DIMENSIONS,
    )

    input: Input | list[Input]
    model: str | None
    user: str | None
    encoding_format: str
    dimensions: int | None


@frozen(kw_only=True)
class Tokenize(_Call):
    """A request to /tokenize."""

    _struct = "TokenizeRequest"
    _fields = (
        _required(
            "inputs", partial(Reader.untagged, name="TokenizeInput", accept=_is_texts)
        ),
        _flag("add_special_tokens", default=True),
        _PROMPT,
    )

    inputs: str | list[str]
    add_special_tokens: bool
    prompt_name: str | None


@frozen(kw_only=True)
class Decode(_Call):
    """A request to /decode."""

    _struct = "DecodeRequest"
    _fields = (
        _required(
            "ids", partial(Reader.untagged, name="InputIds", accept=_is_many_ids)
        ),
        _flag("skip_special_tokens", default=True),
    )

    ids: list[int] | list[list[int]]
    skip_special_tokens: bool


@frozen(kw_only=True)
class Similarity:
    """A request to /similarity; its fields are in two structs of their own."""

    source_sentence: str
    sentences: list[str]
    truncate: bool | None
    truncation_direction: str
    prompt_name: str | None

    @classmethod
    def read(cls, body: bytes) -> Self:
        """
        Read it from a *body*.

        Raises:
            BadBody: it is not what the route expects.
        """
        found = schema.read(body, "SimilarityRequest", _SIMILARITY)
        return cls(**found["inputs"], **(found["parameters"] or _NO_PARAMETERS))


@frozen(kw_only=True)
class Predict(_Call):
    """A request to /predict, which needs another kind of model."""

    _struct = "PredictRequest"
    _fields = (
        _required("inputs", Reader.anything),
        _TRUNCATE_NOT_IN_LIST,
        _DIRECTION,
        _flag("raw_scores", default=False),
    )

    inputs: Any
    truncate: bool | None
    truncation_direction: str
    raw_scores: bool


@frozen(kw_only=True)
class Rerank(_Call):
    """A request to /rerank, which needs another kind of model."""

    _struct = "RerankRequest"
    _fields = (
        _required("query", Reader.string),
        _required("texts", Reader.strings),
        _TRUNCATE,
        _DIRECTION,
        _flag("raw_scores", default=False),
        _flag("return_text", default=False),
    )

    query: str
    texts: list[str]
    truncate: bool | None
    truncation_direction: str
    raw_scores: bool
    return_text: bool
