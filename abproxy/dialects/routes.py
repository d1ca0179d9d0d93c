"""
The dialect of each path.

`/` and `/invocations` are whatever the upstream's model does: as long as that
is not known they are not batched.
"""

from collections.abc import Mapping

from abproxy.dialects.call import BadAnswer, Dialect, UnsplittableAnswer
from abproxy.dialects.openai import OPENAI, OPENAI_BARE
from abproxy.dialects.rerank import RERANK
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
    "has_rows",
    "may_be_batched",
]

_TEI = (EMBED, EMBED_ALL, EMBED_SPARSE, PREDICT, TOKENIZE, DECODE, RERANK)

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
    "reranker": RERANK,
}
"""The route of a model's task."""


def _path(target: bytes) -> bytes:
    return target.partition(b"?")[0]


def may_be_batched(method: bytes, target: bytes, task: str | None) -> bool:
    """
    Return whether a request must be read whole because it may share a batch.

    Args:
        method: of the request.
        target: its path and query.
        task: the model's, if it is known.
    """
    is_known = _path(target) in ALIASES or dialect_of(target, task) is not None
    return method == b"POST" and is_known


def dialect_of(target: bytes, task: str | None) -> Dialect | None:
    """Return the dialect for a target, given the model's task if it is known."""
    path = _path(target)
    if path in ALIASES:
        return TASKS.get(task or "")
    dialect = ROUTES.get(path)
    if dialect is None or dialect.of_task not in {None, task}:
        return None
    return dialect


def has_rows(target: bytes, body: bytes, items: int) -> bool:
    """
    Return whether a good answer may have a row for each of so many *items*.

    It may also be in a form of its own, or that of a route of which this is not known.
    """
    dialect = ROUTES.get(_path(target))
    if dialect is None or dialect.batch_path != dialect.path or not items:
        return True
    try:
        dialect.split(body, [[1] * items])
    except UnsplittableAnswer:
        return True
    except BadAnswer:
        return False
    return True
