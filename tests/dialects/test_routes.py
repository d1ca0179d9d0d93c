"""The dialect of each path."""

import pytest

from abproxy.dialects.call import Dialect
from abproxy.dialects.openai import OpenAIRoute
from abproxy.dialects.rerank import RERANK
from abproxy.dialects.routes import dialect_of, has_rows, may_be_batched
from abproxy.dialects.tei import EMBED, EMBED_SPARSE, PREDICT


@pytest.mark.parametrize("target", [b"/", b"/invocations", b"/?x=1"])
@pytest.mark.parametrize(
    ("task", "dialect"),
    [
        ("embedding", EMBED),
        ("classifier", PREDICT),
        ("splade", EMBED_SPARSE),
        ("reranker", RERANK),
        ("new", None),
        (None, None),
    ],
)
def test_the_root_does_what_the_model_does(
    target: bytes, task: str | None, dialect: Dialect | None
) -> None:
    """Half of the published clients ask there."""
    assert dialect_of(target, task) is dialect


@pytest.mark.parametrize("path", [b"/embeddings", b"/v1/embeddings"])
def test_each_openai_path_is_a_route_of_its_own(path: bytes) -> None:
    """A batch is sent where its calls were, as a server may have only one of them."""
    dialect = dialect_of(path + b"?x=/embed", None)

    assert isinstance(dialect, OpenAIRoute)
    assert dialect.path == path


@pytest.mark.parametrize(
    "target", [b"/embed/", b"//embed", b"/EMBED", b"/embed;x", b"/rerank", b"", b"*"]
)
def test_any_other_path_is_no_batched_route(target: bytes) -> None:
    """It is relayed."""
    assert dialect_of(target, "embedding") is None
    assert not may_be_batched(b"POST", target, "embedding")


@pytest.mark.parametrize("method", [b"GET", b"post", b"PUT", b"OPTIONS"])
def test_only_a_post_can_be_batched(method: bytes) -> None:
    """As TEI has it."""
    assert not may_be_batched(method, b"/embed", "embedding")


@pytest.mark.parametrize("task", ["embedding", "classifier", "splade", None])
def test_rerank_is_batched_for_re_rankers_only(task: str | None) -> None:
    """Elsewhere nothing is known of it, so it is passed on while it arrives."""
    assert may_be_batched(b"POST", b"/rerank", "reranker")
    assert not may_be_batched(b"POST", b"/rerank", task)
    assert dialect_of(b"/rerank", task) is None


@pytest.mark.parametrize(
    ("target", "body", "items"),
    [
        (b"/embed", b"[[1,2],[3,4]]", 2),
        (b"/embed?x", b"[[1]]", 1),
        (b"/embed", b"[]", 0),
        (b"/v1/embeddings", b'{"data":[{"embedding":[1],"index":0}]}', 1),
        (b"/rerank", b"[1]", 2),
        (b"/else", b"?", 2),
    ],
)
def test_an_answer_has_rows_unless_that_is_known_not_to_be(
    target: bytes, body: bytes, items: int
) -> None:
    """Also one of a route of which rows are unknown."""
    assert has_rows(target, body, items)


@pytest.mark.parametrize(
    ("target", "body", "items"),
    [
        (b"/embed", b"[[1,2]]", 2),
        (b"/embed", b"[[1],[2]]", 1),
        (b"/embed", b"<html>", 1),
        (b"/embed", b"", 1),
        (b"/v1/embeddings", b'{"data":[]}', 1),
        (b"/v1/embeddings", b"oops", 1),
    ],
)
def test_an_answer_with_other_rows_is_told(
    target: bytes, body: bytes, items: int
) -> None:
    """Another server may give those that were asked for."""
    assert not has_rows(target, body, items)
