"""The forms in which servers write the same rows."""

from collections.abc import Callable, Sequence

__all__ = ["SHAPES", "usage", "write"]

Rows = Sequence[bytes]


def _numbered(rows: Rows, first: bytes = b',"index":0') -> list[bytes]:
    indexes = [first, *(b',"index":%d' % at for at in range(1, len(rows)))]
    return [
        b'{"object":"embedding","embedding":%b%b}' % each
        for each in zip(rows, indexes, strict=False)
    ]


def _unnumbered(rows: Rows, index: bytes = b"") -> list[bytes]:
    return [b'{"object":"embedding","embedding":%b%b}' % (row, index) for row in rows]


INDEXES: dict[str, Callable[[Rows], list[bytes]]] = {
    "no-index": _unnumbered,
    "null-index": lambda rows: _unnumbered(rows, b',"index":null'),
    "no-zero-index": lambda rows: _numbered(rows, b""),
}
"""Forms of the rows on OpenAI's routes."""

SHAPES = ("", *INDEXES, "bare", "embeddings")
"""
What a server may answer with: what it should (""), OpenAI's rows without their
indexes, with null for each, or without the index that is 0; OpenAI's rows as a
list and nothing around it; TEI's rows as a member of an object.
"""


def write(rows: Rows, shape: str, usage: bytes, *, openai: bool) -> bytes:
    """Write *rows* in a *shape*, with the *usage* where the form has room for it."""
    if not openai:
        frame = b'{"embeddings":[%b]}' if shape == "embeddings" else b"[%b]"
        return frame % b",".join(rows)
    data = b",".join(INDEXES.get(shape, _numbered)(rows))
    if shape == "bare":
        return b"[%b]" % data
    frame = b'{"object":"list","data":[%b],"model":"breakable","usage":%b}'
    return frame % (data, usage)


def usage(tokens: int, *, is_detailed: bool) -> bytes:
    """Write what *tokens* cost; with *is_detailed* as gateways that bill do."""
    plain = b'"prompt_tokens":%d,"total_tokens":%d' % (tokens, tokens)
    if not is_detailed:
        return b"{%b}" % plain
    details = b'"prompt_tokens_details":{"cached_tokens":%d}' % (tokens // 2)
    return b'{%b,"cost":%.9f,%b}' % (plain, tokens * 1.3e-7, details)
