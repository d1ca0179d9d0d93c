"""What the routes log and count."""

from collections.abc import Callable
from typing import Any

from abproxy_model.model import Model

BODY = b'{"inputs":"a"}'


def test_a_mistake_of_ours_is_logged_and_answered(
    static: Model, serve: Callable[..., Any], nothing_leaked: list[object]
) -> None:
    """A bug is a 500, and the log has the traceback."""

    def broken(_work: Callable[[], Any]) -> Any:
        raise ZeroDivisionError

    answer = serve(static, run=broken).post("/embed", BODY)

    assert answer.status == 500
    assert len(nothing_leaked) == 1
    nothing_leaked.clear()


def test_operators_see_the_sizes_of_what_was_computed(
    static: Model, serve: Callable[..., Any]
) -> None:
    """The metrics have TEI's names and tell batch sizes."""
    server = serve(static)
    server.post("/embed", b'{"inputs":["a","b","c"]}')
    server.post("/embed", BODY)

    metrics = server.ask("GET", "/metrics", None).body

    assert b'te_request_count{method="batch"} 1.0' in metrics
    assert b"te_batch_next_size_sum 4.0" in metrics
    assert b"te_batch_next_size_count 2.0" in metrics
    assert b"te_queue_size 0.0" in metrics
