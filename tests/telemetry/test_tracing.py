"""Who collects traces sees each call, and the requests that carried it."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, cast

import pytest
from attrs import frozen
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, ParentBased
from opentelemetry.trace import SpanKind, StatusCode
from twisted.web.server import Request

from abproxy.telemetry.otlp import Span
from abproxy.telemetry.tracing import Tracing
from abproxy.upstream.server_info import ServerInfo
from support.client import Client
from support.proxy import InMemoryProxy, in_memory_proxy
from support.upstream import HeldUpstream

TRACE, SPAN = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
RECORDED = ("traceparent", f"00-{TRACE}-{SPAN}-01")
NOT_RECORDED = ("traceparent", f"00-{TRACE}-{SPAN}-00")
STATE = ("tracestate", "vendor=1")


@frozen
class Followed:
    """A proxy in front of an upstream that waits, and what is seen of both."""

    upstream: HeldUpstream
    proxy: InMemoryProxy
    exporter: InMemorySpanExporter

    def call(self, text: bytes, *headers: tuple[str, str]) -> Client:
        """Ask for the embedding of a text."""
        client = self.proxy.connect()
        client.embed(b'{"inputs":["%b"]}' % text, *headers)
        self.proxy.flush()
        return client

    def answer(self, at: int, body: bytes, status: int = 200) -> None:
        """Let the upstream answer one request."""
        self.upstream.answer(at, body, status)
        self.proxy.flush()

    def two_that_share(self, *headers: tuple[str, str]) -> None:
        """Two calls wait for a slot, leave together, and are answered."""
        for text in (b"x", b"y"):
            self.call(text)
        self.call(b"a", *headers)
        self.call(b"b")
        self.answer(0, b"[[0]]")
        self.answer(1, b"[[0]]")
        self.answer(2, b"[[1],[2]]")

    @property
    def calls(self) -> list[Span]:
        """The spans of calls that are over."""
        return self._of(SpanKind.SERVER)

    @property
    def requests(self) -> list[Span]:
        """The spans of requests to the upstream that are over."""
        return self._of(SpanKind.CLIENT)

    def _of(self, kind: SpanKind) -> list[Span]:
        found = cast("tuple[Span, ...]", self.exporter.get_finished_spans())
        return [span for span in found if span.kind is kind]


@contextmanager
def following(**settings: Any) -> Iterator[Followed]:
    """Wire a proxy whose requests are traced."""
    exporter = InMemorySpanExporter()
    tracing = Tracing(
        provider=TracerProvider(sampler=ParentBased(ALWAYS_ON), shutdown_on_exit=False),
        processor=SimpleSpanProcessor(exporter),
    )
    upstream = HeldUpstream()
    proxy = in_memory_proxy(upstream, **settings)
    proxy.site.observer = tracing
    proxy.model.relay.trace = tracing.relay
    proxy.inference_server.trace = tracing.trace
    layers = proxy.model.layers
    for layer in filter(None, (layers.in_flight, layers.memory)):
        layer.observer = tracing
    yield Followed(upstream, proxy, exporter)
    tracing.shut_down()


@pytest.fixture
def followed() -> Iterator[Followed]:
    """Follow calls of which each is computed by itself."""
    with following() as found:
        yield found


@pytest.fixture
def reusing() -> Iterator[Followed]:
    """Follow calls of which nothing is computed twice."""
    with following(dedupe=True, cache_bytes=1 << 20) as found:
        yield found


def _shown(request: Request, name: bytes) -> list[bytes]:
    return request.requestHeaders.getRawHeaders(name, [])


def _id(span: Any) -> int:
    found: int = span.context.span_id
    return found


def test_a_call_belongs_to_its_callers_trace(followed: Followed) -> None:
    """The caller's `traceparent` is taken up."""
    followed.call(b"a", RECORDED)
    followed.answer(0, b"[[1]]")

    [call] = followed.calls
    assert call.parent is not None
    assert f"{call.context.trace_id:032x}" == TRACE
    assert f"{call.parent.span_id:016x}" == SPAN


def test_a_call_says_what_it_was_and_how_it_ended(followed: Followed) -> None:
    """In the words of OpenTelemetry's conventions."""
    followed.call(b"a")
    followed.answer(0, b"[[1]]")

    [call] = followed.calls
    assert call.name == "POST /embed"
    assert dict(call.attributes or {}) == {
        "client.address": "192.168.1.1",
        "http.request.method": "POST",
        "http.response.status_code": 200,
        "http.route": "/embed",
        "server.address": "door",
        "server.port": 80,
        "url.path": "/embed",
        "url.scheme": "http",
    }


def test_a_request_says_where_it_was_sent_and_what_for(followed: Followed) -> None:
    """In the words of the conventions for HTTP and for generative AI."""
    followed.proxy.inference_server.discovery.info = ServerInfo(model="bge")
    followed.call(b"a")
    followed.answer(0, b"[[1]]")

    [request] = followed.requests
    assert request.name == "POST /embed"
    assert dict(request.attributes or {}) == {
        "abproxy.batch.calls": 1,
        "abproxy.batch.items": 1,
        "gen_ai.operation.name": "embeddings",
        "gen_ai.provider.name": "text_embeddings_inference",
        "gen_ai.request.model": "bge",
        "http.request.body.size": len(b'{"inputs":["a"]}'),
        "http.request.method": "POST",
        "http.response.status_code": 200,
        "server.address": "upstream",
        "server.port": 80,
        "url.full": "http://upstream/embed",
        "url.path": "/embed",
    }


def test_the_model_of_an_openai_call_is_the_one_that_it_names(
    followed: Followed,
) -> None:
    """Several may be behind one server."""
    client = followed.proxy.connect()
    client.embed(b'{"input":["a"],"model":"e5"}', path="/v1/embeddings")
    followed.proxy.flush()
    followed.answer(0, b"{}")

    told = followed.requests[0].attributes or {}
    assert told["gen_ai.request.model"] == "e5"
    assert told["gen_ai.provider.name"] == "openai"


def test_a_route_that_does_not_embed_has_nothing_of_generative_ai(
    followed: Followed,
) -> None:
    """A classifier is none."""
    client = followed.proxy.connect()
    client.embed(b'{"inputs":"a"}', path="/predict")
    followed.proxy.flush()
    followed.answer(0, b"[]")

    told = followed.requests[0].attributes or {}
    assert not [name for name in told if name.startswith("gen_ai.")]


def test_a_request_that_is_sent_again_says_so(followed: Followed) -> None:
    """How often its inputs have been sent before."""
    followed.call(b"a")
    followed.answer(0, b"full", 429)
    followed.proxy.clock.pump([0.5] * 4)
    followed.proxy.flush()
    followed.answer(1, b"[[1]]")

    first, second = (span.attributes or {} for span in followed.requests)
    assert "http.request.resend_count" not in first
    assert second["http.request.resend_count"] == 1


def test_a_refusal_is_an_error_of_the_request_that_was_refused(
    followed: Followed,
) -> None:
    """The conventions count it as one for who has sent it."""
    followed.call(b"a")
    followed.answer(0, b"no", 422)

    [request] = followed.requests
    assert request.status is StatusCode.ERROR
    assert (request.attributes or {})["error.type"] == "422"


def test_a_method_of_a_clients_own_is_kept_beside_its_name(followed: Followed) -> None:
    """As the conventions want it."""
    client = followed.proxy.connect()
    client.ask("FROB", "/embed")
    followed.proxy.flush()
    followed.answer(0, b"")

    told = followed.calls[0].attributes or {}
    assert told["http.request.method_original"] == "FROB"


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("proxy:8443", ("proxy", 8443)),
        ("[::1]:81", ("::1", 81)),
        ("proxy", ("proxy", 80)),
        ("proxy:x", None),
        ("[::1", None),
    ],
)
def test_the_address_is_the_one_that_the_client_has_asked(
    followed: Followed, host: str, address: tuple[str, int] | None
) -> None:
    """Whatever it wrote: what is no address is left out."""
    client = followed.proxy.connect()
    head = f"GET /x HTTP/1.1\r\nHost: {host}\r\nUser-Agent: me\r\n\r\n"
    client.send(head.encode())
    followed.proxy.flush()
    followed.answer(0, b"")

    told = followed.calls[0].attributes or {}
    assert told["user_agent.original"] == "me"
    found = told.get("server.address"), told.get("server.port")
    assert found == (address or (None, None))


def test_the_request_of_a_lone_call_is_its_child(followed: Followed) -> None:
    """And the upstream is told so."""
    followed.call(b"a", RECORDED, STATE)
    followed.answer(0, b"[[1]]")

    [call], [request] = followed.calls, followed.requests
    assert request.parent is not None
    assert request.parent.span_id == _id(call)
    [asked] = followed.upstream.requests
    told = f"00-{TRACE}-{_id(request):016x}-01".encode()
    assert _shown(asked, b"traceparent") == [told]
    assert _shown(asked, b"tracestate") == [b"vendor=1"]


def test_a_shared_request_is_linked_with_its_calls(followed: Followed) -> None:
    """Both ways, so that one finds from any call what carried it."""
    followed.two_that_share()

    shared = followed.requests[-1]
    pair = followed.calls[-2:]
    assert [link.span_id for link in shared.links] == [_id(call) for call in pair]
    assert [[link.span_id for link in call.links] for call in pair] == [
        [_id(shared)],
        [_id(shared)],
    ]


def test_a_shared_request_says_how_many_it_carries(followed: Followed) -> None:
    """Calls and inputs."""
    followed.two_that_share()

    told = followed.requests[-1].attributes or {}
    assert told["abproxy.batch.calls"] == 2
    assert told["abproxy.batch.items"] == 2


def test_a_shared_request_belongs_to_the_first_recorded_call(
    followed: Followed,
) -> None:
    """One that is not recorded does not hide the others' request."""
    followed.two_that_share(NOT_RECORDED)

    shared, recorded = followed.requests[-1], followed.calls[-1]
    assert shared.parent is not None
    assert shared.parent.span_id == _id(recorded)


def test_who_is_not_recorded_is_followed_nowhere(followed: Followed) -> None:
    """The caller's choice is kept, and passed on."""
    followed.call(b"a", NOT_RECORDED)
    followed.answer(0, b"[[1]]")

    assert not followed.exporter.get_finished_spans()
    [told] = _shown(followed.upstream.requests[0], b"traceparent")
    assert told.startswith(b"00-" + TRACE.encode())
    assert told.endswith(b"-00")


def test_a_broken_context_begins_a_trace_of_its_own(followed: Followed) -> None:
    """No call is refused for it."""
    followed.call(b"a", ("traceparent", "nonsense"))
    followed.answer(0, b"[[1]]")

    [call] = followed.calls
    assert call.parent is None


def test_an_upstreams_failure_is_an_error_of_both(followed: Followed) -> None:
    """With its status."""
    followed.call(b"a")
    followed.answer(0, b"no", 500)

    spans = [*followed.calls, *followed.requests]
    assert [span.status for span in spans] == [StatusCode.ERROR] * 2
    assert [(span.attributes or {})["error.type"] for span in spans] == ["500"] * 2


def test_a_callers_mistake_is_no_error_of_ours(followed: Followed) -> None:
    """The status says it."""
    followed.call(b"a")
    followed.answer(0, b"no", 422)

    [call] = followed.calls
    assert call.status is StatusCode.UNSET
    assert (call.attributes or {})["http.response.status_code"] == 422


def test_a_client_that_leaves_ends_its_span(followed: Followed) -> None:
    """And the span of the request that is cancelled ends as well."""
    client = followed.call(b"a")
    client.leave()
    followed.proxy.flush()

    [call], [request] = followed.calls, followed.requests
    assert (call.attributes or {})["error.type"] == "client_left"
    assert (request.attributes or {})["error.type"] == "cancelled"


def test_a_relayed_request_is_followed(followed: Followed) -> None:
    """Its own span is what the upstream hears of."""
    client = followed.proxy.connect()
    client.ask("GET", "/info", b"", RECORDED)
    followed.proxy.flush()
    followed.answer(0, b"{}")

    [call], [request] = followed.calls, followed.requests
    assert call.name == request.name == "GET"
    assert request.parent is not None
    assert request.parent.span_id == _id(call)
    told = f"00-{TRACE}-{_id(request):016x}-01".encode()
    assert _shown(followed.upstream.requests[0], b"traceparent") == [told]


def test_a_relayed_request_says_where_it_was_sent(followed: Followed) -> None:
    """And how it was answered."""
    client = followed.proxy.connect()
    client.ask("GET", "/info?key=secret")
    followed.proxy.flush()
    followed.answer(0, b"no", 404)

    [request] = followed.requests
    assert request.attributes == {
        "error.type": "404",
        "http.request.method": "GET",
        "http.response.status_code": 404,
        "server.address": "upstream",
        "server.port": 80,
        "url.full": "http://upstream/info",
        "url.path": "/info",
    }
    assert request.status is StatusCode.ERROR


def test_a_relayed_request_whose_client_leaves_is_cancelled(
    followed: Followed,
) -> None:
    """Its span ends all the same."""
    client = followed.proxy.connect()
    client.ask("GET", "/info")
    followed.proxy.flush()
    client.leave()
    followed.proxy.flush()

    [request] = followed.requests
    assert request.attributes["error.type"] == "cancelled"


def test_a_call_that_waits_for_the_work_of_another_is_linked_with_it(
    reusing: Followed,
) -> None:
    """Its span says why no request carried it."""
    reusing.call(b"a")
    reusing.call(b"a")
    reusing.answer(0, b"[[1]]")

    first, second = reusing.calls
    assert "abproxy.reused" not in first.attributes
    assert second.attributes["abproxy.reused"] == "in_flight"
    assert [link.span_id for link in second.links] == [_id(first)]


def test_a_call_that_is_answered_from_memory_says_so(reusing: Followed) -> None:
    """No request is linked with it."""
    reusing.call(b"a")
    reusing.answer(0, b"[[1]]")
    reusing.call(b"a")

    [_, second] = reusing.calls
    assert second.attributes["abproxy.reused"] == "cache"
    assert second.links == []


def test_a_call_whose_rows_are_from_several_places_names_them(
    reusing: Followed,
) -> None:
    """The request for the rest is linked as ever."""
    reusing.call(b"a")
    reusing.answer(0, b"[[1]]")
    reusing.call(b"b")
    reusing.call(b'a","b","c')
    reusing.answer(1, b"[[2]]")
    reusing.answer(2, b"[[3]]")

    _, other, third = reusing.calls
    assert third.attributes["abproxy.reused"] == "cache,in_flight"
    rest = reusing.requests[-1]
    assert {link.span_id for link in third.links} == {_id(other), _id(rest)}


def test_a_query_is_in_no_span(followed: Followed) -> None:
    """Keys have been seen there."""
    client = followed.proxy.connect()
    client.embed(b'{"inputs":["a"]}', path="/embed?key=secret")
    followed.proxy.flush()
    followed.answer(0, b"[[1]]")

    told = [
        dict(span.attributes or {}) for span in (*followed.calls, *followed.requests)
    ]
    assert [each["url.path"] for each in told] == ["/embed"] * 2
    assert "secret" not in str([told, [span.name for span in followed.requests]])


def test_a_method_of_a_clients_own_is_no_name(followed: Followed) -> None:
    """Names are few, whatever clients think of."""
    client = followed.proxy.connect()
    client.ask("FROB", "/embed")
    followed.proxy.flush()
    followed.answer(0, b"")

    [call] = followed.calls
    assert call.name == "HTTP"
    assert (call.attributes or {})["http.request.method"] == "_OTHER"


def test_our_own_pages_are_not_followed(followed: Followed) -> None:
    """What monitors the proxy asks all the time."""
    followed.proxy.ask("GET", "/-/ready")

    assert not followed.exporter.get_finished_spans()
