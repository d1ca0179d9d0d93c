"""
A span for each call, and one for each request upstream with links to its calls.

The caller's `traceparent` is continued and ours is sent on.  A request of
several calls belongs to the trace of the first that is recorded, and is linked
with all of them both ways.  Only imported if traces are collected.

Sources: W3C Trace Context; OpenTelemetry's semantic conventions for HTTP.
"""

import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any

from attrs import define, field
from msgspec.structs import replace
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import (
    Link,
    Span,
    SpanKind,
    Status,
    StatusCode,
    Tracer,
    set_span_in_context,
)
from opentelemetry.trace.propagation.tracecontext import (
    TraceContextTextMapPropagator,
)
from twisted.python.failure import Failure

from abproxy import __version__
from abproxy.events import Observer, RequestInfo
from abproxy.http.messages import HeaderList, Response, UpstreamRequest

__all__ = ["Tracing", "make_tracing"]

SERVER_ERROR = 500
METHODS = frozenset(
    {"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "TRACE", "CONNECT"}
)
"""All others count as one, as a client may send any."""

CONTEXT = (b"traceparent", b"tracestate")

_w3c = TraceContextTextMapPropagator()


@define(kw_only=True, eq=False)
class Tracing(Observer):
    """Trace requests through the proxy."""

    tracer: Tracer = field(repr=False)
    shut_down: Callable[[], None] = field(repr=False)
    """Send what is left; blocks."""

    def request_began(self, request: RequestInfo) -> None:
        """Begin the span of a request, in its caller's trace if there is one."""
        if request.is_ours:
            # Monitoring asks all the time, and is not what is monitored.
            return
        method = request.method.decode()
        request.trace = self.tracer.start_span(
            method if method in METHODS else "HTTP",
            context=_w3c.extract(dict(_context_of(request))),
            kind=SpanKind.SERVER,
            attributes={
                "http.request.method": method if method in METHODS else "_OTHER",
                "url.path": request.path.decode(),
            },
        )

    def request_ended(self, request: RequestInfo, *, gone: bool) -> None:
        """End the span of a request."""
        span: Span | None = request.trace
        if span is None:
            return
        if request.route is not None:
            span.update_name(f"{request.method.decode()} {request.route}")
            span.set_attribute("http.route", request.route)
        if gone:
            span.set_attribute("error.type", "client_left")
        else:
            _note_status(span, request.status)
        span.end()

    def mark(self, request: RequestInfo, headers: HeaderList) -> HeaderList:
        """Return the *headers* of a relayed request, with its span."""
        span: Span | None = request.trace
        return headers if span is None else _marked(headers, span)

    def trace(
        self, request: UpstreamRequest
    ) -> tuple[UpstreamRequest, Callable[[Any], Response | Failure]]:
        """
        Begin the span of a request to the upstream.

        Returns:
            the request to send, and what ends the span and returns the outcome
            that it is given.
        """
        span = self._span(request)
        marked = replace(request, headers=_marked(request.headers, span))
        return marked, partial(_end_span, span)

    def _span(self, request: UpstreamRequest) -> Span:
        calls: tuple[Span, ...] = request.traces
        method = request.method.decode()
        path = request.path.partition(b"?")[0].decode()
        span = self.tracer.start_span(
            f"{method} {path}",
            context=_parent_among(calls),
            kind=SpanKind.CLIENT,
            links=[Link(call.get_span_context()) for call in calls],
            attributes={
                "http.request.method": method,
                "url.path": path,
                "http.request.body.size": len(request.body),
                "abproxy.batch.calls": len(calls),
                "abproxy.batch.items": request.items,
            },
        )
        for call in calls:
            call.add_link(span.get_span_context())
        return span


def _parent_among(calls: Sequence[Span]) -> Context | None:
    """Return the first call that is recorded, or else one that says it is not."""
    recorded = (call for call in calls if call.is_recording())
    parent = next(recorded, calls[0] if calls else None)
    return None if parent is None else set_span_in_context(parent)


def _context_of(request: RequestInfo) -> Iterator[tuple[str, str]]:
    for name in CONTEXT:
        lines = request.headers.getRawHeaders(name, [])
        # Lists may be spread over several lines (RFC 9110, section 5.3).
        if lines:
            yield name.decode(), b",".join(lines).decode("latin-1")


def _end_span(span: Span, result: Response | Failure) -> Response | Failure:
    if isinstance(result, Response):
        _note_status(span, result.status)
    else:
        reason = getattr(result.value, "reason", "cancelled")
        span.set_attribute("error.type", reason)
        span.set_status(Status(StatusCode.ERROR))
    span.end()
    return result


def _note_status(span: Span, status: int) -> None:
    span.set_attribute("http.response.status_code", status)
    if status >= SERVER_ERROR:
        span.set_attribute("error.type", str(status))
        span.set_status(Status(StatusCode.ERROR))


def _marked(headers: Iterable[tuple[bytes, bytes]], span: Span) -> HeaderList:
    lines: dict[str, str] = {}
    _w3c.inject(lines, set_span_in_context(span))
    others = (line for line in headers if line[0].lower() not in CONTEXT)
    ours = ((name.encode(), value.encode()) for name, value in lines.items())
    return (*others, *ours)


def make_tracing(endpoint: str) -> Tracing:
    """
    Send spans to an OpenTelemetry collector.

    Args:
        endpoint: its base URL; everything else is in the environment, as for
            any program: OTEL_SERVICE_NAME, OTEL_EXPORTER_OTLP_HEADERS,
            OTEL_TRACES_SAMPLER and so on.
    """
    name = {} if "OTEL_SERVICE_NAME" in os.environ else {"service.name": "abproxy"}
    resource = Resource.create({"service.version": __version__, **name})
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    exporter = OTLPSpanExporter(endpoint=f"{endpoint}/v1/traces")
    provider.add_span_processor(BatchSpanProcessor(exporter))
    tracer = provider.get_tracer("abproxy", __version__)
    return Tracing(tracer=tracer, shut_down=provider.shutdown)
