"""
A span for each call, and one for each request upstream with links to its calls.

The caller's `traceparent` is continued and ours is sent on.  A request of
several calls belongs to the trace of the first that is recorded, and is linked
with all of them both ways.  Only imported if traces are collected.

Spans are plain values: one of OpenTelemetry's own costs as much as a whole call.

Sources: W3C Trace Context; OpenTelemetry's semantic conventions for HTTP, and for
generative AI.
"""

import os
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache, partial
from typing import Any, cast
from urllib.parse import urlsplit

import msgspec
from attrs import define, field
from msgspec import Struct
from msgspec.structs import replace
from opentelemetry.context import Context
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import Sampler
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    TraceFlags,
    get_current_span,
    set_span_in_context,
)
from opentelemetry.trace.propagation.tracecontext import (
    TraceContextTextMapPropagator,
)
from twisted.python.failure import Failure

from abproxy import __version__
from abproxy.events import Observer, RequestInfo
from abproxy.http.messages import HeaderList, Response, UpstreamRequest
from abproxy.telemetry.otlp import Span, make_exporter

__all__ = ["Tracing", "make_tracing"]

CLIENT_ERROR, SERVER_ERROR = 400, 500
METHODS = frozenset(
    {"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "CONNECT"}
)
"""All others count as one, as a client may send any."""

CONTEXT = (b"traceparent", b"tracestate")

EMBEDDINGS = {
    **dict.fromkeys(
        (b"/embed", b"/embed_all", b"/embed_sparse"), "text_embeddings_inference"
    ),
    **dict.fromkeys((b"/v1/embeddings", b"/embeddings"), "openai"),
}
"""Routes that embed, and whose language they speak."""

LONGEST = 200
"""Characters of a header that are kept."""


_w3c = TraceContextTextMapPropagator()


@define(kw_only=True, eq=False)
class Tracing(Observer):
    """Trace requests through the proxy."""

    provider: TracerProvider = field(repr=False)
    """Decides what is sampled, and makes ids."""

    processor: SpanProcessor = field(repr=False)
    """What spans are given to when they have ended."""

    scheme: str = "http"
    """How clients reach the proxy."""

    def shut_down(self) -> None:
        """Send what is left; blocks."""
        self.processor.shutdown()

    def request_began(self, request: RequestInfo) -> None:
        """Begin the span of a request, in its caller's trace if there is one."""
        if request.is_ours:
            # Monitoring asks all the time, and is not what is monitored.
            return
        headers = request.headers
        attributes = _server_attributes(
            request.method,
            request.path,
            _first(headers, b"Host"),
            _first(headers, b"User-Agent"),
            request.client_host,
            self.scheme,
        )
        name, context = _name_of(attributes), _context_of(request)
        request.trace = self._begin(name, SpanKind.SERVER, context, attributes, [])

    def request_ended(self, request: RequestInfo, *, gone: bool) -> None:
        """End the span of a request."""
        span: Span | None = request.trace
        if span is None or not span.is_recorded:
            return
        if request.route is not None:
            span.name = f"{request.method.decode()} {request.route}"
            span.attributes["http.route"] = request.route
        if gone:
            span.attributes["error.type"] = "client_left"
        else:
            span.attributes["http.response.status_code"] = request.status
            if request.status >= SERVER_ERROR:
                span.fail(str(request.status))
        self._end(span)

    def reused(
        self, source: str, items: int, trace: Any = None, others: Sequence[Any] = ()
    ) -> None:
        """Note where the rows of a call are from, and link it with *others*."""
        del items
        span: Span | None = trace
        if span is None or not span.is_recorded:
            return
        found = span.attributes.get("abproxy.reused")
        span.attributes["abproxy.reused"] = f"{found},{source}" if found else source
        span.links += [other.context for other in others if other is not None]

    def relay(
        self, request: RequestInfo, headers: HeaderList, base_url: str
    ) -> tuple[HeaderList, Callable[[Any], Any]]:
        """
        Begin the span of a request that is relayed.

        Args:
            request: that of the client.
            headers: those with which it is to be sent.
            base_url: where to.

        Returns:
            the headers to send, and what ends the span, with the head of the answer
            or a failure, and returns it.
        """
        attributes = _client_attributes(base_url, request.method, request.path)
        name = _name_of(attributes)
        parent = None if request.trace is None else request.trace.context
        span = self._begin(name, SpanKind.CLIENT, parent, attributes, [])
        return _marked(headers, span.context), partial(self._end_request, span)

    def trace(
        self, request: UpstreamRequest, base_url: str, model: str | None
    ) -> tuple[UpstreamRequest, Callable[[Any], Any]]:
        """
        Begin the span of a request to the upstream.

        Args:
            request: what is to be sent.
            base_url: where to.
            model: the model that answers, if it is known.

        Returns:
            the request to send, and what ends the span and returns the outcome
            that it is given.
        """
        calls: tuple[Span, ...] = request.traces
        attributes = _client_attributes(
            base_url, request.method, request.path.partition(b"?")[0]
        )
        span = self._begin(
            f"{request.method.decode()} {attributes['url.path']}",
            SpanKind.CLIENT,
            _parent_among(calls),
            attributes,
            [call.context for call in calls],
        )
        if span.is_recorded:
            span.attributes.update(_about_batch(request, len(calls), model))
        for call in calls:
            call.links.append(span.context)
        marked = replace(request, headers=_marked(request.headers, span.context))
        return marked, partial(self._end_request, span)

    def _begin(
        self,
        name: str,
        kind: SpanKind,
        parent: SpanContext | None,
        attributes: Mapping[str, Any],
        links: list[SpanContext],
    ) -> Span:
        ids = self.provider.id_generator
        trace_id = parent.trace_id if parent else ids.generate_trace_id()
        sampler: Sampler = self.provider.sampler
        decided = sampler.should_sample(
            _in_context(parent),
            trace_id,
            name,
            kind,
            attributes,
            [Link(other) for other in links],
        )
        is_sampled = decided.decision.is_sampled()
        flags = TraceFlags.SAMPLED if is_sampled else TraceFlags.DEFAULT
        context = SpanContext(
            trace_id,
            ids.generate_span_id(),
            is_remote=False,
            trace_flags=TraceFlags(flags),
            trace_state=decided.trace_state,
        )
        return Span(
            context=context,
            parent=parent,
            kind=kind,
            name=name,
            attributes=dict(decided.attributes or {}) if is_sampled else {},
            links=links,
            began_ns=time.time_ns(),
        )

    def _end(self, span: Span) -> None:
        span.ended_ns = time.time_ns()
        # Ours has what the processor looks at; only our exporter sees the rest.
        self.processor.on_end(cast("ReadableSpan", span))

    def _end_request(self, span: Span, result: Any) -> Any:
        if not span.is_recorded:
            return result
        if isinstance(result, Failure):
            span.fail(getattr(result.value, "reason", "cancelled"))
        else:
            status = result.status if isinstance(result, Response) else result.code
            span.attributes["http.response.status_code"] = status
            # Of a client's span, also what the client itself has done wrong.
            if status >= CLIENT_ERROR:
                span.fail(str(status))
        self._end(span)
        return result


# Attributes, which are the same again and again


def _first(headers: Any, name: bytes) -> bytes:
    lines = headers.getRawHeaders(name)
    return lines[0][:LONGEST] if lines else b""


@lru_cache(1024)
def _server_attributes(  # noqa: PLR0913, PLR0917  each is a part of the cache's key
    method: bytes, path: bytes, host: bytes, agent: bytes, client: str, scheme: str
) -> Mapping[str, Any]:
    """Return the attributes of a request as it comes; a query is none of them."""
    found = {
        **_method(method),
        "url.path": path.decode(),
        "url.scheme": scheme,
        **_address(f"{scheme}://{host.decode('latin-1')}"),
    }
    if client:
        found["client.address"] = client
    if agent:
        found["user_agent.original"] = agent.decode("latin-1")
    return found


@lru_cache(256)
def _client_attributes(base_url: str, method: bytes, path: bytes) -> Mapping[str, Any]:
    """Return the attributes of a request that is sent."""
    text = path.decode()
    return {
        **_method(method),
        "url.full": base_url + text,
        "url.path": text,
        **_address(base_url),
    }


def _method(method: bytes) -> dict[str, Any]:
    name = method.decode()
    if name in METHODS:
        return {"http.request.method": name}
    return {"http.request.method": "_OTHER", "http.request.method_original": name}


def _name_of(attributes: Mapping[str, Any]) -> str:
    method: str = attributes["http.request.method"]
    return "HTTP" if method == "_OTHER" else method


def _address(url: str) -> dict[str, Any]:
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:  # a client may send any Host
        return {}
    if not host:
        return {}
    usual = 443 if parts.scheme == "https" else 80
    return {"server.address": host, "server.port": port or usual}


class _Body(Struct):
    model: str | None = None


def _about_batch(
    request: UpstreamRequest, calls: int, model: str | None
) -> dict[str, Any]:
    found: dict[str, Any] = {
        "http.request.body.size": len(request.body),
        "abproxy.batch.calls": calls,
        "abproxy.batch.items": request.items,
    }
    if request.resends:
        found["http.request.resend_count"] = request.resends
    provider = EMBEDDINGS.get(request.path.partition(b"?")[0])
    if provider is not None:
        found["gen_ai.operation.name"] = "embeddings"
        found["gen_ai.provider.name"] = provider
        model = _model_in(request.body) or model if provider == "openai" else model
        if model:
            found["gen_ai.request.model"] = model
    return found


def _model_in(body: bytes) -> str | None:
    try:
        return msgspec.json.decode(body, type=_Body).model
    except msgspec.DecodeError:
        return None


# Contexts


def _parent_among(calls: Sequence[Span]) -> SpanContext | None:
    """Return the first call that is recorded, or else one that says it is not."""
    recorded = (call.context for call in calls if call.is_recorded)
    return next(recorded, calls[0].context if calls else None)


def _in_context(parent: SpanContext | None) -> Context | None:
    return None if parent is None else set_span_in_context(NonRecordingSpan(parent))


def _context_of(request: RequestInfo) -> SpanContext | None:
    """Return the span of the caller, if it has named one."""
    if not request.headers.hasHeader(CONTEXT[0]):
        return None
    carrier: dict[str, str] = {}
    for name in CONTEXT:
        lines = request.headers.getRawHeaders(name, [])
        # Lists may be spread over several lines (RFC 9110, section 5.3).
        if lines:
            carrier[name.decode()] = b",".join(lines).decode("latin-1")
    found = get_current_span(_w3c.extract(carrier)).get_span_context()
    return found if found.is_valid else None


def _marked(headers: Iterable[tuple[bytes, bytes]], span: SpanContext) -> HeaderList:
    flags = int(span.trace_flags) & 0xFF
    parent = b"00-%032x-%016x-%02x" % (span.trace_id, span.span_id, flags)
    ours = [(CONTEXT[0], parent)]
    if span.trace_state:
        ours.append((CONTEXT[1], span.trace_state.to_header().encode()))
    others = (line for line in headers if line[0].lower() not in CONTEXT)
    return (*others, *ours)


def make_tracing(endpoint: str, scheme: str = "http") -> Tracing:
    """
    Send spans to an OpenTelemetry collector.

    Args:
        endpoint: where traces are sent to; everything else is in the environment,
            as for any program: OTEL_SERVICE_NAME, OTEL_EXPORTER_OTLP_HEADERS,
            OTEL_TRACES_SAMPLER and so on.
        scheme: how clients reach the proxy.
    """
    ours = {"service.name": "abproxy", "service.version": __version__}
    set_by_operator = OTELResourceDetector().detect().attributes
    missing = {name: ours[name] for name in ours.keys() - set_by_operator.keys()}
    if "OTEL_SERVICE_NAME" in os.environ:
        missing.pop("service.name", None)
    resource = Resource.create(missing)
    return Tracing(
        provider=TracerProvider(resource=resource, shutdown_on_exit=False),
        processor=BatchSpanProcessor(make_exporter(endpoint, resource)),
        scheme=scheme,
    )
