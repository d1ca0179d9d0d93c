"""Each recorded request, sent alone, comes back as TEI answered it."""

import pytest

from support.proxy import in_memory_proxy
from support.recorded import Exchange, ReplayingUpstream, exchanges

ALL = list(exchanges())
TASKS = {
    "embed": "embedding",
    "limited": "embedding",
    "classifier": "classifier",
    "reranker": "reranker",
    "splade": "splade",
}
OURS = {"connection", "content-length", "date", "transfer-encoding"}


def _significant(headers: object) -> set[tuple[str, str]]:
    return {
        (name.lower(), value)
        for name, value in headers  # type: ignore[attr-defined]
        if name.lower() not in OURS
    }


@pytest.mark.parametrize("is_fast", [True, False], ids=["fast", "klein"])
@pytest.mark.parametrize("exchange", ALL, ids=[each.name for each in ALL])
def test_alone_a_request_is_answered_as_recorded(
    exchange: Exchange, *, is_fast: bool
) -> None:
    """Status, reason, body and significant headers are TEI's own."""
    upstream = ReplayingUpstream([exchange])
    task = TASKS[exchange.server]
    proxy = in_memory_proxy(
        upstream, oversize="refuse", task=task, is_fast=is_fast, has_pages=False
    )
    headers = [h for h in exchange.headers if h[0].lower() != "connection"]
    headers = [h for h in headers if h[0].lower() not in {"host", "content-length"}]

    answer = proxy.ask(exchange.method, exchange.path, exchange.body, *headers)

    assert (answer.status, answer.reason) == (exchange.status, exchange.reason)
    expected = b"" if exchange.method == "HEAD" else exchange.reply_body
    assert answer.body == expected
    assert _significant(answer.headers) == _significant(exchange.reply_headers)
    assert answer.header("Content-Length") == str(len(exchange.reply_body))
    assert len(set(upstream.asked)) == 1
