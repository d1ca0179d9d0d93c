"""
The routes of text-embeddings-inference (TEI), as version 1.9 reads them.

Each is a type that says what is plainly understood, with the upstream's own
defaults, and a word on its items and rows where they are special.  Source:
TEI's `router/src/http/types.rs` and the exchanges recorded from TEI 1.9.3.
"""

from typing import Annotated, Any

import msgspec

from abproxy.dialects.call import Items
from abproxy.dialects.inputs import Direction, Inputs, Size, Text, Token, canonical
from abproxy.dialects.members import read_elements
from abproxy.dialects.route import JSONRoute
from abproxy.dialects.rows import deal_arrays

__all__ = ["DECODE", "EMBED", "EMBED_ALL", "EMBED_SPARSE", "PREDICT", "TOKENIZE"]


class _Truncating(msgspec.Struct, kw_only=True):
    truncate: bool | None = None
    truncation_direction: Direction = "Right"

    def __post_init__(self) -> None:
        self.truncation_direction = canonical(self.truncation_direction)


class PromptedBody(_Truncating, kw_only=True):
    inputs: Inputs
    prompt_name: str | None = None


class EmbedBody(PromptedBody, kw_only=True):
    normalize: bool = True
    dimensions: Size | None = None


class PredictBody(_Truncating, kw_only=True):
    inputs: Text | list[Text | list[Text]]
    raw_scores: bool = False


class TokenizeBody(msgspec.Struct):
    inputs: Text | Annotated[list[Text], msgspec.Meta(min_length=1)]
    add_special_tokens: bool = True
    prompt_name: str | None = None


class DecodeBody(msgspec.Struct):
    ids: Annotated[list[Token | list[Token]], msgspec.Meta(min_length=1)]
    skip_special_tokens: bool = True


def read_sequences(value: Any, spelled: bytes) -> Items | None:
    """
    List the texts and pairs in a body for /predict.

    `"a"`, `["a"]` and the pair `["a","b"]` are one input each and answered by
    one bare row; only a list of lists is a batch, answered by a list of rows.
    """
    if isinstance(value, str):
        return Items(raw=[b"[%b]" % spelled], lengths=[len(value)], is_list=False)
    if _is_sequence(value):
        return Items(raw=[spelled], lengths=[_length(value)], is_list=False)
    if not value or not all(map(_is_sequence, value)):
        return None
    return Items(raw=read_elements(spelled), lengths=list(map(_length, value)))


def _is_sequence(value: Any) -> bool:
    one_or_two = isinstance(value, list) and len(value) in {1, 2}
    return one_or_two and all(isinstance(text, str) for text in value)


def _length(texts: list[str]) -> int:
    return sum(map(len, texts))


EMBED = JSONRoute(path=b"/embed", items="inputs", body=EmbedBody, deal=deal_arrays)
EMBED_ALL = JSONRoute(path=b"/embed_all", items="inputs", body=PromptedBody)
EMBED_SPARSE = JSONRoute(path=b"/embed_sparse", items="inputs", body=PromptedBody)
PREDICT = JSONRoute(
    path=b"/predict", items="inputs", body=PredictBody, read_items=read_sequences
)
TOKENIZE = JSONRoute(path=b"/tokenize", items="inputs", body=TokenizeBody)
DECODE = JSONRoute(path=b"/decode", items="ids", body=DecodeBody)
