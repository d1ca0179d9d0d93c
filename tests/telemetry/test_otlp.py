"""Spans are written as OpenTelemetry's library does, and sent as it is specified."""

import gzip
from collections.abc import Callable
from email.message import Message
from io import BytesIO
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import Request

import pytest
from attrs import define, field
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
)
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExportResult
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from opentelemetry.trace import (
    Link,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    TraceState,
)
from twisted.logger import capturedLogs, formatEvent

from abproxy import __version__
from abproxy.errors import SettingsError
from abproxy.telemetry.otlp import (
    Exporter,
    Span,
    encode,
    encode_resource,
    make_exporter,
)

RESOURCE = Resource({"service.name": "abproxy", "rack": 7, "zones": ("a", "b")})
VALUES = {
    "text": "grün",
    "long text": "x" * 300,
    "empty": "",
    "yes": True,
    "no": False,
    "zero": 0,
    "one": 1,
    "large": 2**40,
    "negative": -1,
    "half": 0.5,
    "texts": ("a", "b"),
    "numbers": [1, 2.5, True],
}


def context_of(number: int, *, is_remote: bool = False, state: str = "") -> SpanContext:
    """Return where a span is, of which each id differs in each byte."""
    return SpanContext(
        0x0123456789ABCDEF_0011223344556677 + number,
        0x89ABCDEF01234567 + number,
        is_remote=is_remote,
        trace_flags=TraceFlags(TraceFlags.SAMPLED),
        trace_state=TraceState.from_header([state] if state else []),
    )


def span(**about: Any) -> Span:
    """Return a span that has ended."""
    plain = {
        "context": context_of(0),
        "parent": None,
        "kind": SpanKind.SERVER,
        "name": "POST /embed",
        "attributes": {},
        "links": [],
        "began_ns": 1_700_000_000_123_456_789,
        "ended_ns": 1_700_000_001_000_000_000,
    }
    return Span(**{**plain, **about})


def as_the_library_has_it(ours: Span) -> ReadableSpan:
    """Return the same span as an object of the library."""
    return ReadableSpan(
        name=ours.name,
        context=ours.context,
        parent=ours.parent,
        resource=RESOURCE,
        attributes=ours.attributes,
        links=[Link(other) for other in ours.links],
        kind=ours.kind,
        status=Status(ours.status),
        start_time=ours.began_ns,
        end_time=ours.ended_ns,
        instrumentation_scope=InstrumentationScope("abproxy", __version__),
    )


@pytest.mark.parametrize(
    "spans",
    [
        [span()],
        [span(), span(context=context_of(1), kind=SpanKind.CLIENT)],
        [span(name="größer" * 30)],
        [span(attributes=VALUES)],
        [span(parent=context_of(2))],
        [span(parent=context_of(2, is_remote=True))],
        [span(context=context_of(0, state="vendor=1,other=2"))],
        [span(links=[context_of(3), context_of(4, is_remote=True)])],
        [span(status=StatusCode.ERROR, attributes={"error.type": "500"})],
    ],
    ids=[
        *("plain", "several", "name", "attributes", "parent", "remote parent"),
        *("state", "links", "error"),
    ],
)
def test_spans_are_written_as_the_library_writes_them(spans: list[Span]) -> None:
    """What a collector reads is the same."""
    written = encode(spans, encode_resource(RESOURCE))

    [*theirs] = map(as_the_library_has_it, spans)
    assert ExportTraceServiceRequest.FromString(written) == encode_spans(theirs)


@define(eq=False)
class Collector:
    """Takes requests, and fails as often as it is told to."""

    errors: list[Exception] = field(factory=list)
    requests: list[Request] = field(factory=list)
    timeouts_s: list[float] = field(factory=list)

    def open(self, request: Request, *, timeout: float, context: object) -> BytesIO:
        """Take a request, as `urlopen` does."""
        assert context is None
        self.requests.append(request)
        self.timeouts_s.append(timeout)
        if self.errors:
            raise self.errors.pop(0)
        return BytesIO()


def error(status: int, **headers: str) -> HTTPError:
    """Return an answer that is an error."""
    lines = Message()
    for name, value in headers.items():
        lines[name.replace("_", "-")] = value
    return HTTPError("http://collector", status, "no", lines, None)


def sending(collector: Collector, **environ: str) -> Exporter:
    """Return what sends to *collector* as the variables ask for it."""
    exporter = make_exporter("http://collector/v1/traces", RESOURCE, environ)
    exporter.open = collector.open
    return exporter


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Return the pauses that are made, which take no time."""
    found: list[float] = []

    def wait(_event: object, seconds: float) -> bool:
        found.append(seconds)
        return False

    monkeypatch.setattr("abproxy.telemetry.otlp.Event.wait", wait)
    return found


def test_spans_are_sent_in_one_request() -> None:
    """With the type that says what they are."""
    collector = Collector()

    result = sending(collector).export([span(), span()])

    [request] = collector.requests
    assert result is SpanExportResult.SUCCESS
    assert request.full_url == "http://collector/v1/traces"
    assert request.get_header("Content-type") == "application/x-protobuf"
    assert request.data == encode([span(), span()], encode_resource(RESOURCE))


def test_spans_are_compressed_if_that_is_asked_for() -> None:
    """And the collector is told so."""
    collector = Collector()

    sending(collector, OTEL_EXPORTER_OTLP_COMPRESSION="gzip").export([span()])

    [request] = collector.requests
    assert isinstance(request.data, bytes)
    assert request.get_header("Content-encoding") == "gzip"
    written = encode([span()], encode_resource(RESOURCE))
    assert gzip.decompress(request.data) == written


@pytest.mark.parametrize(
    "environ",
    [
        {"OTEL_EXPORTER_OTLP_HEADERS": "api-key=a%20b"},
        {
            "OTEL_EXPORTER_OTLP_HEADERS": "api-key=other",
            "OTEL_EXPORTER_OTLP_TRACES_HEADERS": "api-key=a%20b",
        },
    ],
    ids=["all signals", "traces"],
)
def test_headers_of_the_operator_are_sent(environ: dict[str, str]) -> None:
    """Those for traces win."""
    collector = Collector()

    sending(collector, **environ).export([span()])

    assert collector.requests[0].get_header("Api-key") == "a b"


@pytest.mark.parametrize(
    "why", [error(429), error(503), URLError("away"), ConnectionResetError()]
)
def test_what_a_collector_may_take_later_is_sent_again(
    why: Exception, pauses: list[float]
) -> None:
    """After a pause that grows."""
    collector = Collector([why, why])

    result = sending(collector).export([span()])

    assert result is SpanExportResult.SUCCESS
    assert pauses == [1.0, 2.0]
    assert len({request.data for request in collector.requests}) == 1


def test_a_collector_says_when_to_send_again(pauses: list[float]) -> None:
    """By `Retry-After`."""
    sending(Collector([error(503, Retry_After="4")])).export([span()])

    assert pauses == [4.0]


@pytest.mark.parametrize(
    ("make", "word"),
    [
        (lambda: [error(400)], "400"),
        (lambda: [error(503, Retry_After="60")], "503"),
        (lambda: [URLError("away")] * 9, "away"),
    ],
    ids=["refused", "much later", "away for long"],
)
def test_what_cannot_be_sent_in_time_is_lost(
    make: Callable[[], list[Exception]],
    word: str,
    pauses: list[float],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The log says how much, and why."""
    monkeypatch.setattr("abproxy.telemetry.otlp.time.monotonic", lambda: sum(pauses))

    with capturedLogs() as events:
        result = sending(Collector(make())).export([span(), span()])

    assert result is SpanExportResult.FAILURE
    assert sum(pauses) < 10
    [line] = map(formatEvent, events)
    assert line.startswith("2 spans could not be sent to the collector: ")
    assert word in line


def test_the_time_for_sending_can_be_set(monkeypatch: pytest.MonkeyPatch) -> None:
    """In milliseconds, as it is specified."""
    collector = Collector()
    monkeypatch.setattr("abproxy.telemetry.otlp.time.monotonic", lambda: 7.0)

    sending(collector, OTEL_EXPORTER_OTLP_TIMEOUT="3000").export([span()])

    assert collector.timeouts_s == [3.0]


def test_an_exporter_that_is_shut_down_waits_no_more() -> None:
    """The process is about to end."""
    collector = Collector([error(503)] * 2)
    exporter = sending(collector)
    exporter.shutdown()

    assert exporter.export([span()]) is SpanExportResult.FAILURE
    assert len(collector.requests) == 1


@pytest.mark.parametrize(
    ("name", "value", "why"),
    [
        ("COMPRESSION", "brotli", "spans are sent as they are (none) or with gzip"),
        ("TIMEOUT", "soon", "invalid literal"),
        ("CERTIFICATE", "/no/such/file", "cannot be used"),
    ],
)
def test_a_variable_that_cannot_be_heeded_is_one_line_of_error(
    name: str, value: str, why: str
) -> None:
    """At the start, and not when the first spans are sent."""
    with pytest.raises(SettingsError) as found:
        sending(Collector(), **{f"OTEL_EXPORTER_OTLP_{name}": value})

    assert str(found.value).startswith(f"OTEL_EXPORTER_OTLP_{name}")
    assert why in str(found.value)
