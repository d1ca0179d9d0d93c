"""What an upstream says of one caller's request is for that caller only."""

import msgspec
from twisted.web.resource import Resource
from twisted.web.server import Request

from support.client import Answer, Client
from support.proxy import InMemoryProxy, in_memory_proxy


class _ModelNotLoaded(Resource):
    """Refuses one model, quoting the request, and answers nobody else meanwhile."""

    isLeaf = True

    def render_POST(self, request: Request) -> bytes:  # noqa: N802
        request.setResponseCode(503)
        request.setHeader("X-Debug", request.getHeader("Authorization") or "-")
        return b"not loaded; you sent " + request.content.read()


def _ask(
    proxy: InMemoryProxy, path: str, body: object, *lines: tuple[str, str]
) -> Client:
    client = proxy.connect()
    client.embed(msgspec.json.encode(body), *lines, path=path)
    return client


def _answers(proxy: InMemoryProxy, *clients: Client) -> list[Answer]:
    """Let patience end, and take the one answer of each of *clients*."""
    for _ in range(20):
        proxy.flush()
        proxy.clock.advance(0.5)
    return [answer for client in clients for answer in client.answers()]


def test_a_refusal_reaches_only_the_refused_call() -> None:
    """Callers on another route, with another key, get an error in our words."""
    proxy = in_memory_proxy(_ModelNotLoaded(), slots=1)
    theirs = {"input": ["their text"], "model": "nope"}
    refused = _ask(proxy, "/v1/embeddings", theirs, ("Authorization", "Bearer theirs"))
    behind = _ask(proxy, "/embed", {"inputs": ["a"]}, ("Authorization", "Bearer mine"))

    own, ours = _answers(proxy, refused, behind)

    assert (own.status, own.header("X-Debug")) == (503, "Bearer theirs")
    assert (ours.status, ours.header("X-Debug")) == (429, None)
    assert ours.json["error_type"] == "Overloaded"
    assert ours.header("Retry-After") == "1"
    assert b"their text" not in ours.body


def test_calls_refused_together_never_see_each_others_texts() -> None:
    """An answer to a request that they shared would quote both."""
    proxy = in_memory_proxy(_ModelNotLoaded(), max_wait_ms=100)
    texts = [f"text of {name}" for name in ("one", "two")]
    clients = [_ask(proxy, "/embed", {"inputs": [text]}) for text in texts]

    answers = _answers(proxy, *clients)

    assert [answer.status for answer in answers] == [429, 429]
    assert all(b"text of" not in answer.body for answer in answers)
