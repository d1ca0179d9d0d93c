"""
The fields of every request there is, in the order TEI declares them.

Only shapes; what the values may be is decided where they are used.
"""

from collections.abc import Sequence
from functools import partial
from typing import Any

from attrs import frozen

from abproxy_model import shapes
from abproxy_model.shapes import Field, Reader
from abproxy_model.tokens import Input

__all__ = (
    "Decode",
    "Embed",
    "EmbedAll",
    "OpenAI",
    "Predict",
    "Rerank",
    "Similarity",
    "Tokenize",
)

_MAX_ID = 2**32


@frozen(kw_only=True)
class Embed:
    """A request to /embed, / and /invocations."""

    inputs: Input | list[Input]
    truncate: bool | None
    truncation_direction: str
    prompt_name: str | None
    normalize: bool
    dimensions: int | None

    @classmethod
    def read(cls, body: bytes) -> "Embed":
        """Read it from a *body*."""
        return cls(**shapes.read(body, "EmbedRequest", _EMBED))


@frozen(kw_only=True)
class EmbedAll:
    """A request to /embed_all, and to /embed_sparse."""

    inputs: Input | list[Input]
    truncate: bool | None
    truncation_direction: str
    prompt_name: str | None

    @classmethod
    def read(cls, body: bytes, name: str = "EmbedAllRequest") -> "EmbedAll":
        """Read it from a *body*."""
        return cls(**shapes.read(body, name, _EMBED_ALL))


@frozen(kw_only=True)
class OpenAI:
    """A request to /v1/embeddings and /embeddings."""

    input: Input | list[Input]
    model: str | None
    user: str | None
    encoding_format: str
    dimensions: int | None

    @classmethod
    def read(cls, body: bytes) -> "OpenAI":
        """Read it from a *body*."""
        return cls(**shapes.read(body, "OpenAICompatRequest", _OPENAI))


@frozen(kw_only=True)
class Tokenize:
    """A request to /tokenize."""

    inputs: str | list[str]
    add_special_tokens: bool
    prompt_name: str | None

    @classmethod
    def read(cls, body: bytes) -> "Tokenize":
        """Read it from a *body*."""
        return cls(**shapes.read(body, "TokenizeRequest", _TOKENIZE))


@frozen(kw_only=True)
class Decode:
    """A request to /decode."""

    ids: list[int] | list[list[int]]
    skip_special_tokens: bool

    @classmethod
    def read(cls, body: bytes) -> "Decode":
        """Read it from a *body*."""
        return cls(**shapes.read(body, "DecodeRequest", _DECODE))


@frozen(kw_only=True)
class Similarity:
    """A request to /similarity."""

    source_sentence: str
    sentences: list[str]
    truncate: bool | None
    truncation_direction: str
    prompt_name: str | None

    @classmethod
    def read(cls, body: bytes) -> "Similarity":
        """Read it from a *body*."""
        found = shapes.read(body, "SimilarityRequest", _SIMILARITY)
        return cls(**found["inputs"], **(found["parameters"] or _NO_PARAMETERS))


@frozen(kw_only=True)
class Predict:
    """A request to /predict, which no embedding model answers."""

    @classmethod
    def read(cls, body: bytes) -> "Predict":
        """Read it from a *body*."""
        shapes.read(body, "PredictRequest", _PREDICT)
        return cls()


@frozen(kw_only=True)
class Rerank:
    """A request to /rerank, which no embedding model answers."""

    texts: list[str]

    @classmethod
    def read(cls, body: bytes) -> "Rerank":
        """Read it from a *body*."""
        return cls(texts=shapes.read(body, "RerankRequest", _RERANK)["texts"])


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
_DIRECTION = Field(
    name="truncation_direction",
    read=partial(Reader.variant, names=_DIRECTIONS),
    default="Right",
)
_PROMPT = Field(name="prompt_name", read=_OPTIONAL_STRING, default=None, in_list=False)
_DIMENSIONS = Field(name="dimensions", read=_OPTIONAL_SIZE, default=None, in_list=False)


def _required(name: str, read: shapes.Read) -> Field:
    return Field(name=name, read=read, in_list=False)


def _flag(name: str, *, default: bool) -> Field:
    return Field(name=name, read=Reader.boolean, default=default)


_EMBED_ALL = (_required("inputs", _INPUT), _TRUNCATE, _DIRECTION, _PROMPT)
_EMBED = (*_EMBED_ALL, _flag("normalize", default=True), _DIMENSIONS)
_OPENAI = (
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
_TOKENIZE = (
    _required(
        "inputs", partial(Reader.untagged, name="TokenizeInput", accept=_is_texts)
    ),
    _flag("add_special_tokens", default=True),
    _PROMPT,
)
_DECODE = (
    _required("ids", partial(Reader.untagged, name="InputIds", accept=_is_many_ids)),
    _flag("skip_special_tokens", default=True),
)
_PARAMETERS: Sequence[Field] = (
    Field(name="truncate", read=_OPTIONAL_BOOLEAN, default=None, in_list=False),
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
_PREDICT = (
    _required("inputs", Reader.anything),
    Field(name="truncate", read=_OPTIONAL_BOOLEAN, default=None, in_list=False),
    _DIRECTION,
    _flag("raw_scores", default=False),
)
_RERANK = (
    _required("query", Reader.string),
    _required("texts", Reader.strings),
    _TRUNCATE,
    _DIRECTION,
    _flag("raw_scores", default=False),
    _flag("return_text", default=False),
)
