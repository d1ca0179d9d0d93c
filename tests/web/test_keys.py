"""Who may come in."""

import pytest
from replay import exchanges
from webdoubles import OpenUpstream, in_memory_proxy

from abproxy.web.keys import Keys

JSON = ("Content-Type", "application/json")
PROTECTED = [
    ("POST", "/embed"),
    ("POST", "/"),
    ("POST", "/v1/embeddings"),
    ("POST", "/rerank"),
    ("GET", "/info"),
    ("GET", "/embed"),
    ("GET", "/nobody/knows"),
    ("POST", "/health"),
    ("GET", "/docs/../info"),
    ("GET", "/docs/%2e%2e/info"),
]
PUBLIC = [
    ("GET", "/"),
    ("HEAD", "/health"),
    ("GET", "/ping"),
    ("GET", "/metrics"),
    ("GET", "/docs/"),
    ("GET", "/docs/swagger-ui.css"),
    ("GET", "/api-doc/openapi.json"),
    ("OPTIONS", "/embed"),
]


@pytest.mark.parametrize(("method", "path"), PROTECTED)
@pytest.mark.parametrize(
    "shown", [None, "Bearer nope", "one", "bearer one", "Bearer one ", "Bearer "]
)
def test_without_a_key_the_door_is_shut(
    method: str, path: str, shown: str | None
) -> None:
    """Nothing is sent upstream for a stranger, and the answer is TEI's 401."""
    upstream = OpenUpstream()
    proxy = in_memory_proxy(upstream, api_keys=("one", "two"))
    headers = [JSON, *([("Authorization", shown)] if shown else [])]
    if shown == "Bearer one ":
        headers[-1] = ("Authorization", "Bearer  one")
    recorded = next(each for each in exchanges() if each.name == "key missing")

    answer = proxy.ask(method, path, b'{"inputs":"a"}', *headers)

    assert answer.status == recorded.status
    assert answer.body == recorded.reply_body
    told = {(name.lower(), value) for name, value in answer.headers}
    ours = {"connection", "date"}
    assert {h for h in recorded.reply_headers if h[0] not in ours} <= told
    assert upstream.shown == []


@pytest.mark.parametrize("key", ["one", "two"])
@pytest.mark.parametrize(("method", "path"), PROTECTED)
def test_any_of_the_keys_opens_the_door(method: str, path: str, key: str) -> None:
    """Several keys may be in use, and none of them is passed on."""
    upstream = OpenUpstream()
    proxy = in_memory_proxy(upstream, api_keys=("one", "two"))
    shown = ("Authorization", f"Bearer {key}")

    answer = proxy.ask(method, path, b'{"inputs":"a"}', JSON, shown)

    assert answer.status == 200
    assert upstream.shown == [None]


@pytest.mark.parametrize(("method", "path"), PUBLIC)
def test_public_paths_are_public(method: str, path: str) -> None:
    """Probes, scrapers and preflights come without a key."""
    upstream = OpenUpstream()
    proxy = in_memory_proxy(upstream, api_keys=("one",))

    answer = proxy.ask(method, path)

    assert answer.status == 200


def test_callers_with_different_keys_share_a_batch() -> None:
    """Keys of our own door are no reason to travel apart."""
    upstream = OpenUpstream()
    proxy = in_memory_proxy(upstream, api_keys=("one", "two"), key="ours", max_wait_s=1)
    for key in ("one", "two"):
        shown = ("Authorization", f"Bearer {key}")
        proxy.connect().embed(b'{"inputs":"a"}', shown)

    proxy.clock.advance(1)
    proxy.flush()

    assert upstream.shown == ["Bearer ours"]


def test_keys_are_never_printed() -> None:
    """A key does not reach a log by way of a repr."""
    assert "one" not in repr(Keys(accepted=("one",)))
