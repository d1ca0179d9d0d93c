"""Clients of TEI in front of a server that has the OpenAI API only."""

from typing import Any

import msgspec
import pytest
import pytest_twisted
from attrs import define, field
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.defer import maybeDeferred
from twisted.web.resource import Resource
from twisted.web.server import Request, Site

from support.client import LOCALHOST, Answer, the_reactor, until
from support.proxy import InMemoryProxy, in_front_of, in_memory_proxy, inference_server


def vector_of(text: str) -> list[float]:
    """Return what the model makes of a text."""
    return [len(text) / 3, -0.5, float(sum(map(ord, text)))]


class OpenAIServer(Resource):
    """Has /v1/embeddings and nothing else."""

    isLeaf = True
    has_models = False

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[Any] = []
        self.others: list[str] = []

    def render(self, request: Request) -> bytes:
        """Answer one request."""
        if request.path == b"/v1/models" and self.has_models:
            return b'{"object":"list","data":[{"id":"m","object":"model"}]}'
        if request.path != b"/v1/embeddings":
            self.others.append(request.path.decode())
            request.setResponseCode(404)
            return b'{"detail":"Not Found"}'
        body = msgspec.json.decode(request.content.read())
        self.asked.append(body)
        texts = [body["input"]] if isinstance(body["input"], str) else body["input"]
        if "bad" in texts:
            request.setResponseCode(400)
            return b'{"error":{"message":"bad input","code":400}}'
        rows = [
            {"object": "embedding", "embedding": vector_of(text), "index": at}
            for at, text in enumerate(texts)
        ]
        tokens = {"prompt_tokens": len(texts), "total_tokens": len(texts)}
        answer = {"object": "list", "data": rows, "model": "m", "usage": tokens}
        return msgspec.json.encode(answer)


@define
class Started:
    """The same on a real socket, with a list of its models."""

    server: OpenAIServer = field(factory=OpenAIServer)
    port: Any = None

    def listen(self) -> "Started":
        """Begin."""
        self.server.has_models = True
        site = Site(self.server)
        site.timeOut = None
        self.port = the_reactor().listenTCP(0, site, interface=LOCALHOST)
        return self

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://{LOCALHOST}:{self.port.getHost().port}"

    async def stop(self) -> None:
        """End."""
        await maybeDeferred(self.port.stopListening)


def before(server: OpenAIServer, **chosen: Any) -> InMemoryProxy:
    """Put a proxy before the server."""
    return in_memory_proxy(server, **{"upstream_dialect": "openai", **chosen})


def ask_at_once(
    proxy: InMemoryProxy, *bodies: bytes, path: str = "/embed"
) -> list[Answer]:
    """Ask all *bodies* at the same moment."""
    clients = [proxy.connect() for _ in bodies]
    for client, body in zip(clients, bodies, strict=True):
        client.embed(body, path=path)
    for _ in range(100):
        if not all(client.transport.value() for client in clients):
            proxy.flush()
            proxy.clock.advance(0.5)
    return [client.answers()[0] for client in clients]


def body_of(*texts: str, **more: Any) -> bytes:
    """Write the body of a call."""
    return msgspec.json.encode({"inputs": texts, **more})


def right(*texts: str) -> bytes:
    """Return what TEI would answer with the same model."""
    return msgspec.json.encode(list(map(vector_of, texts)))


@pytest.mark.parametrize("is_fast", [True, False], ids=["fast", "klein"])
@pytest.mark.parametrize("path", ["/embed", "/", "/invocations"])
def test_a_lone_call_is_translated_both_ways(path: str, *, is_fast: bool) -> None:
    """It gets a list of vectors, with the server's own digits."""
    server = OpenAIServer()

    [answer] = ask_at_once(before(server, is_fast=is_fast), body_of("a"), path=path)

    assert (answer.status, answer.body) == (200, right("a"))
    assert server.asked == [{"input": ["a"]}]


def test_calls_share_a_batch() -> None:
    """As in front of TEI, and those of the OpenAI route are left as they are."""
    server = OpenAIServer()
    proxy = before(server, max_wait_ms=1000)

    answers = ask_at_once(proxy, body_of("a"), body_of("b", "c", truncate=True))
    [own] = ask_at_once(proxy, b'{"input":"a","model":"m"}', path="/v1/embeddings")

    assert [answer.body for answer in answers] == [right("a"), right("b", "c")]
    assert server.asked == [
        {"input": ["a", "b", "c"]},
        {"input": "a", "model": "m"},
    ]
    assert own.json["data"][0]["embedding"] == vector_of("a")


def test_a_bad_input_is_its_senders_only() -> None:
    """Who hears of it in the words of the server."""
    server = OpenAIServer()
    proxy = before(server, max_wait_ms=1000)

    good, bad, other = ask_at_once(proxy, body_of("a"), body_of("bad"), body_of("b"))

    assert (good.body, other.body) == (right("a"), right("b"))
    assert (bad.status, bad.json["error"]["message"]) == (400, "bad input")


def test_what_the_server_cannot_do_is_refused_in_the_words_of_the_route() -> None:
    """Nothing is sent: it would be another vector than the one asked for."""
    server = OpenAIServer()

    [answer] = ask_at_once(before(server), body_of("a", normalize=False))

    assert answer.status == 422
    assert answer.json["error_type"] == "Validation"
    assert "leave normalize out" in answer.json["error"]
    assert not server.asked


def test_too_many_inputs_that_are_not_to_be_split_are_refused() -> None:
    """There is no route to relay them to."""
    server = OpenAIServer()
    proxy = before(server, oversize="refuse", max_batch_inputs=2)

    [answer] = ask_at_once(proxy, body_of("a", "b", "c"))

    assert answer.status == 422
    assert not server.asked
    assert not server.others


@pytest.mark.parametrize("chosen", ["auto", "tei"])
def test_without_the_knowledge_nothing_is_translated(chosen: str) -> None:
    """The server may have an /embed of its own."""
    server = OpenAIServer()

    [answer] = ask_at_once(before(server, upstream_dialect=chosen), body_of("a"))

    assert answer.status == 404
    assert server.others == ["/embed"]


@pytest_twisted.ensureDeferred
async def test_which_api_a_server_has_is_found_out() -> None:
    """With its only model, which is then named."""
    upstream = Started().listen()
    async with in_front_of(upstream, {}) as proxy:
        discovery = inference_server(proxy.service).discovery
        await until(lambda: discovery.info.embeddings_path)
        caller = await proxy.caller()
        answer = await caller.embed("a", "b")

    assert answer.body == right("a", "b")
    assert upstream.server.asked == [{"input": ["a", "b"], "model": "m"}]


@settings(max_examples=40, deadline=None)
@given(
    calls=st.lists(
        st.lists(st.text(min_size=1, max_size=3), min_size=1, max_size=7),
        min_size=1,
        max_size=4,
    ),
    cap=st.integers(1, 9),
    dedupe=st.booleans(),
    cache_bytes=st.sampled_from([0, 1 << 20]),
)
def test_each_call_gets_the_vectors_of_its_own_texts(
    calls: list[list[str]], cap: int, cache_bytes: int, *, dedupe: bool
) -> None:
    """Whatever shares, is split, or was known before."""
    server = OpenAIServer()
    chosen = {"max_batch_inputs": cap, "dedupe": dedupe, "cache_bytes": cache_bytes}
    proxy = before(server, max_wait_ms=1000, **chosen)
    calls = [[text for text in texts if text != "bad"] or ["a"] for texts in calls]

    for _ in range(2):
        answers = ask_at_once(proxy, *(body_of(*texts) for texts in calls))
        assert [answer.body for answer in answers] == [right(*each) for each in calls]
    proxy.close()
