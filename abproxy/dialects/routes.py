"""
The dialect of each path.

`/` and `/invocations` are whatever the upstream's model does: as long as that
is not known they are not batched.
"""

from collections.abc import Mapping

from abproxy.dialects.call import Dialect
from abproxy.dialects.openai import OPENAI, OPENAI_BARE
from abproxy.dialects.tei import (
    DECODE,
    EMBED,
    EMBED_ALL,
    EMBED_SPARSE,
    PREDICT,
    TOKENIZE,
)

__all__ = [
    "ALIASES",
    "MEMBERS_THAT_COUNT",
    "ROUTES",
    "TASKS",
    "dialect_of",
    "may_be_batched",
]

_TEI = (EMBED, EMBED_ALL, EMBED_SPARSE, PREDICT, TOKENIZE, DECODE)

ROUTES: Mapping[bytes, Dialect] = {
    **{dialect.path: dialect for dialect in _TEI},
    OPENAI.path: OPENAI,
    OPENAI_BARE.path: OPENAI_BARE,
}
"""The batched routes by path."""

MEMBERS_THAT_COUNT = frozenset(
    name for dialect in ROUTES.values() for name in dialect.body.__struct_fields__
) - {"user"}
"""Members on which answers depend; OpenAI's `user` only names the end user."""

ALIASES = (b"/", b"/invocations")
"""The routes that do the model's own task."""

TASKS: Mapping[str, Dialect] = {
    "embedding": EMBED,
    "classifier": PREDICT,
    "splade": EMBED_SPARSE,
}
"""The route of a model's task; a reranker's cannot be batched."""


def _path(target: bytes) -> bytes:
    return target.partition(b"?")[0]


def may_be_batched(method: bytes, target: bytes) -> bool:
    """Return whether a request must be read whole because it may share a batch."""
    path = _path(target)
    return method == b"POST" and (path in ROUTES or path in ALIASES)


def dialect_of(target: bytes, task: str | None) -> Dialect | None:
    """Return the dialect for a target, given the model's task if it is known."""
    path = _path(target)
    if path in ALIASES:
        return TASKS.get(task or "")
    return ROUTES.get(path)
