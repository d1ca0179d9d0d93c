"""
Spans, how they are written as OTLP, and sent to a collector.

They are written here because the library for it takes as much CPU time as a whole
call: of the few messages that there are only the ids and times differ each time.

Sources: OTLP 1.9 (`opentelemetry/proto/trace/v1/trace.proto`), its retries, and the
encoding of Protocol Buffers.
"""

import gzip
import os
import ssl
import time
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from http.client import HTTPException
from struct import pack
from threading import Event
from typing import Any, ClassVar
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from attrs import define, field
from msgspec import Struct
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.trace import SpanContext, SpanKind, StatusCode
from opentelemetry.util.re import parse_env_headers
from twisted.logger import Logger

from abproxy import __version__
from abproxy.errors import SettingsError

__all__ = ["Exporter", "Span", "encode", "encode_resource", "make_exporter"]

MAY_RETRY = frozenset({429, 502, 503, 504})
"""With these a collector says that it may take the same spans later."""

FIRST_PAUSE_S = 1.0
TIMEOUT_MS = 10_000


class Span(Struct, kw_only=True, eq=False):
    """A span that has begun."""

    context: SpanContext
    parent: SpanContext | None
    kind: SpanKind
    name: str
    attributes: dict[str, Any]
    links: list[SpanContext]
    began_ns: int
    ended_ns: int = 0
    status: StatusCode = StatusCode.UNSET

    @property
    def is_recorded(self) -> bool:
        """Return whether anything is kept of it."""
        return self.context.trace_flags.sampled

    def fail(self, kind: str) -> None:
        """Note that it ends with an error of this *kind*."""
        self.attributes["error.type"] = kind
        self.status = StatusCode.ERROR


# Encoding


def _varint(number: int) -> bytes:
    found = bytearray()
    while number > 0x7F:  # noqa: PLR2004  seven bits a byte
        found.append(number & 0x7F | 0x80)
        number >>= 7
    found.append(number)
    return bytes(found)


def _message(number: int, content: bytes) -> bytes:
    """Return field *number*, whose *content* is bytes, text or a message."""
    return _varint(number << 3 | 2) + _varint(len(content)) + content


@lru_cache(4096, typed=True)
def _pair(name: str, value: Any) -> bytes:
    """Return an attribute of a span; most are the same again and again."""
    return _message(9, _pair_content(name, value))


def _pair_content(name: str, value: Any) -> bytes:
    return _message(1, name.encode()) + _message(2, _any(value))


def _hashable(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _any(value: Any) -> bytes:
    match value:
        case bool():
            return b"\x10%c" % value
        case int():
            return b"\x18" + _varint(value & 0xFFFF_FFFF_FFFF_FFFF)
        case float():
            return b"\x21" + pack("<d", value)
        case tuple() | list():
            return _message(5, b"".join([_message(1, _any(each)) for each in value]))
        case _:
            return _message(1, str(value).encode(errors="replace"))


_SCOPE = _message(1, _message(1, b"abproxy") + _message(2, __version__.encode()))
_STATUS = {StatusCode.UNSET: b"\x7a\x00", StatusCode.ERROR: b"\x7a\x02\x18\x02"}


def encode_resource(resource: Resource) -> bytes:
    """Return what all spans of a process have in common, as a field."""
    pairs = [_pair_content(*pair) for pair in resource.attributes.items()]
    return _message(1, b"".join([_message(1, pair) for pair in pairs]))


def encode(spans: Sequence[Span], resource: bytes) -> bytes:
    """
    Return an `ExportTraceServiceRequest`.

    Args:
        spans: those that have ended.
        resource: what they have in common, as `encode_resource` returns it.
    """
    of_scope = _SCOPE + b"".join([_message(2, _span(span)) for span in spans])
    return _message(1, resource + _message(2, of_scope))


def _span(span: Span) -> bytes:
    context, parent = span.context, span.parent
    state = context.trace_state
    fields = (
        _ids(context),
        _message(3, state.to_header().encode()) if state else b"",
        b"\x22\x08" + parent.span_id.to_bytes(8) if parent else b"",
        _message(5, span.name.encode()),
        b"\x30%c" % (span.kind.value + 1),
        pack("<BQBQ", 0x39, span.began_ns, 0x41, span.ended_ns),
        *[_pair(name, _hashable(value)) for name, value in span.attributes.items()],
        *[_message(13, _ids(of) + b"\x35" + _flags(of)) for of in span.links],
        _STATUS[span.status],
        b"\x85\x01" + _flags(parent),
    )
    return b"".join(fields)


def _ids(context: SpanContext) -> bytes:
    ids = context.trace_id.to_bytes(16), context.span_id.to_bytes(8)
    return b"\x0a\x10%b\x12\x08%b" % ids


def _flags(other: SpanContext | None) -> bytes:
    """Return the flags: whether *other* is a span of another process, and known so."""
    return b"\x00\x03\x00\x00" if other and other.is_remote else b"\x00\x01\x00\x00"


# Sending


@define(kw_only=True, eq=False)
class Exporter(SpanExporter):
    """Sends spans to a collector, from the thread that collects them."""

    endpoint: str
    resource: bytes = field(repr=False)
    headers: Mapping[str, str] = field(repr=False)
    timeout_s: float
    """How long sending some may take, with all repetitions."""

    compresses: bool = False
    tls: ssl.SSLContext | None = field(default=None, repr=False)
    open: Callable[..., Any] = field(default=urlopen, repr=False)
    _stopped: Event = field(init=False, factory=Event, repr=False)
    _log: ClassVar[Logger] = Logger()

    def export(self, spans: Sequence[Any]) -> SpanExportResult:
        """Send *spans*; if they cannot be sent in time, they are lost."""
        body = encode(spans, self.resource)
        if self.compresses:
            body = gzip.compress(body)
        until = time.monotonic() + self.timeout_s
        pause_s = FIRST_PAUSE_S
        while (why := self._send(body, until)) is not None:
            wait_s = max(pause_s, _retry_after_s(why))
            is_final = isinstance(why, HTTPError) and why.code not in MAY_RETRY
            is_late = time.monotonic() + wait_s >= until
            if is_final or is_late or self._stopped.wait(wait_s):
                message = "{count} spans could not be sent to the collector: {why}"
                self._log.warn(message, count=len(spans), why=str(why))
                return SpanExportResult.FAILURE
            pause_s *= 2
        return SpanExportResult.SUCCESS

    def _send(self, body: bytes, until: float) -> Exception | None:
        request = Request(self.endpoint, body, dict(self.headers))  # noqa: S310
        left_s = max(until - time.monotonic(), 0.01)
        try:
            with self.open(request, timeout=left_s, context=self.tls) as answer:
                answer.read()
        except (OSError, HTTPException) as error:
            return error
        return None

    def shutdown(self) -> None:
        """Cancel the wait before a retry."""
        self._stopped.set()

    def force_flush(self, timeout_millis: int = 30000) -> bool:  # noqa: ARG002
        """Return True: nothing is held back here."""
        return True


def _retry_after_s(why: Exception) -> float:
    value = why.headers.get("Retry-After", "") if isinstance(why, HTTPError) else ""
    return float(value) if value.isdecimal() else 0.0


def make_exporter(
    endpoint: str, resource: Resource, environ: Mapping[str, str] = os.environ
) -> Exporter:
    """
    Return an exporter to *endpoint*, as OpenTelemetry's variables ask for it.

    Raises:
        SettingsError: a variable cannot be heeded.
    """

    def told(name: str) -> str:
        names = f"OTEL_EXPORTER_OTLP_TRACES_{name}", f"OTEL_EXPORTER_OTLP_{name}"
        return next(filter(None, (environ.get(each, "").strip() for each in names)), "")

    compression = told("COMPRESSION").lower()
    if compression not in {"", "none", "gzip"}:
        why = f"spans are sent as they are (none) or with gzip, not with {compression}"
        raise SettingsError(f"OTEL_EXPORTER_OTLP_COMPRESSION: {why}")
    ours = {
        "Content-Type": "application/x-protobuf",
        "User-Agent": f"abproxy/{__version__}",
    }
    if compression == "gzip":
        ours["Content-Encoding"] = "gzip"
    try:
        timeout_s = int(told("TIMEOUT") or TIMEOUT_MS) / 1000
    except ValueError as error:
        raise SettingsError(f"OTEL_EXPORTER_OTLP_TIMEOUT: {error}") from error
    return Exporter(
        endpoint=endpoint,
        resource=encode_resource(resource),
        headers={**ours, **parse_env_headers(told("HEADERS"), liberal=True)},
        timeout_s=timeout_s,
        compresses=compression == "gzip",
        tls=_tls(*map(told, ("CERTIFICATE", "CLIENT_CERTIFICATE", "CLIENT_KEY"))),
    )


def _tls(authority: str, certificate: str, key: str) -> ssl.SSLContext | None:
    if not authority and not certificate:
        return None
    try:
        context = ssl.create_default_context(cafile=authority or None)
        if certificate:
            context.load_cert_chain(certificate, key or None)
    except OSError as error:
        why = error.strerror or error
        message = f"OTEL_EXPORTER_OTLP_CERTIFICATE: it cannot be used: {why}"
        raise SettingsError(message) from error
    return context
