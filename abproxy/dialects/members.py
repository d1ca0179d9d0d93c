"""
Which members of a body let calls share a batch.

Those that the route's type knows count by value.  Of the others TEI ignores all,
so they keep calls apart and are shared and split like any.  Another server may read
in them that the inputs of a request belong together, or are counted by their place:
such a call goes alone and whole.
"""

import re
from collections.abc import Iterable, Mapping

from attrs import define, field

from abproxy.dialects.bounds import MAX_INPUTS
from abproxy.http.sharing import MEMBER

__all__ = ["OF_TEI", "TYING", "MemberRules"]

TYING: Mapping[str, str] = {
    # One text that was cut: each piece is embedded with those before it in mind.
    "late_chunking": (
        "https://jina.ai/news/late-chunking-in-long-context-embedding-models/"
    ),
    # What the inputs are is said once for all of them.
    "modality": "https://github.com/michaelfeil/infinity",
    # Several inputs become one vector.
    "enable_fusion": (
        "https://docs.rs/acosmi-sdk/latest/acosmi/models/types/"
        "struct.EmbeddingRequest.html"
    ),
    "fusion": (
        "https://docs.matrixorigin.cn/moi/zh/5.0/developer/api/genesis-model-api/"
        "retrieval-vector/embeddings.html"
    ),
    # One conversation in the place of inputs.
    "messages": "https://docs.vllm.ai/en/latest/serving/openai_compatible_server.html",
    # The answer comes in pieces, which are no rows.
    "stream": "https://platform.openai.com/docs/api-reference/streaming",
}
"""Members by which a server knows that the inputs belong together, and who has them."""

BY_BYTES = frozenset({"parameters", "options", "extra_body", "metadata"})
"""Objects that clients add out of habit, for all inputs in the same way."""

_OFF = frozenset({b"false", b"null"})
_HOLDS_MORE = re.compile(rb"[\[{][ \t\r\n]*[^\]} \t\r\n]")


def _names(words: Iterable[str]) -> frozenset[str]:
    return frozenset(
        word.removeprefix(MEMBER) for word in words if word.startswith(MEMBER)
    )


@define(kw_only=True, eq=False)
class MemberRules:
    """The operator's rules about members, and the built-in ones for all others."""

    is_tei: bool
    """Whether the upstream ignores what it does not know, as TEI does."""

    max_inputs: int = MAX_INPUTS
    """The inputs that a call may have."""

    ignore: frozenset[str] = field(default=(), converter=_names)
    apart: frozenset[str] = field(default=(), converter=_names)
    alone: frozenset[str] = field(default=(), converter=_names)

    def ignores(self, name: str) -> bool:
        """Return whether a shared request is sent without this member."""
        return name in self.ignore and name not in self.apart

    def is_alone(self, name: str, value: bytes, *, is_known: bool) -> bool:
        """
        Return whether a call with this member goes alone and whole.

        Args:
            name: of the member.
            value: as the client wrote it.
            is_known: whether the type of the route knows it.
        """
        if name in self.alone:
            return True
        if is_known or self.is_tei or name in self.apart or name in self.ignore:
            return False
        if name in TYING:
            return value not in _OFF
        return name not in BY_BYTES and _HOLDS_MORE.match(value) is not None


OF_TEI = MemberRules(is_tei=True)
"""For text-embeddings-inference, of which the operator says nothing."""
