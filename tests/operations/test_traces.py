"""Traces leave for a real collector, over HTTP, from the real process."""

import gzip
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from attrs import define, field
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
)
from pytest_twisted import ensureDeferred
from twisted.internet.threads import deferToThread
from twisted.web.resource import Resource
from twisted.web.server import Request, Site

from bench.breakable import Traits
from support.client import LOCALHOST, Caller, connect, together, until
from support.processes import daemon
from support.upstream import breakable


@define(eq=False, slots=False)
class Collector(Resource):
    """Takes in spans as an OpenTelemetry collector does."""

    isLeaf = True
    spans: list[Any] = field(factory=list)
    services: set[str] = field(factory=set)
    paths: set[bytes] = field(factory=set)

    def __attrs_post_init__(self) -> None:
        super().__init__()

    def render_POST(self, request: Request) -> bytes:  # noqa: N802
        """Take in an export."""
        self.paths.add(request.path)
        body = request.content.read()
        if request.getHeader("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        for group in ExportTraceServiceRequest.FromString(body).resource_spans:
            told = {
                each.key: each.value.string_value for each in group.resource.attributes
            }
            self.services.add(told["service.name"])
            for scope in group.scope_spans:
                self.spans.extend(scope.spans)
        return b""


@asynccontextmanager
async def _collector() -> AsyncIterator[tuple[Collector, str]]:
    from twisted.internet import reactor  # noqa: PLC0415  not before it is chosen

    collector = Collector()
    site = Site(collector)
    port: Any = reactor.listenTCP(0, site, interface=LOCALHOST)  # type: ignore[attr-defined]
    try:
        yield collector, f"http://{LOCALHOST}:{port.getHost().port}"
    finally:
        await port.stopListening()


@ensureDeferred
async def test_calls_and_their_request_arrive_at_the_collector(tmp_path: Path) -> None:
    """Also the last of them, which are sent when the proxy ends."""
    async with _collector() as (collector, url), breakable(Traits()) as upstream:
        options = ("--max-wait-time=10000", "--max-batch-size=3")
        otlp = f"--otel-exporter-otlp-endpoint={url}"
        async with daemon(tmp_path, upstream, otlp, *options) as proxy:
            callers = await together(connect(proxy.port) for _ in range(3))
            # Equal texts would be computed once.
            await together(map(Caller.embed, callers, "abc"))
            proxy.process.send_signal(signal.SIGTERM)
            exit_code = await deferToThread(proxy.process.wait, 20)
            await until(lambda: not any(caller.is_open for caller in callers))

    calls = [span for span in collector.spans if span.kind == span.SPAN_KIND_SERVER]
    [request] = [span for span in collector.spans if span.kind == span.SPAN_KIND_CLIENT]
    assert exit_code == 0
    assert [call.name for call in calls] == ["POST /embed"] * 3
    assert {link.span_id for link in request.links} == {call.span_id for call in calls}
    assert collector.services == {"abproxy"}
    assert collector.paths == {b"/v1/traces"}


@ensureDeferred
async def test_a_collector_that_is_away_costs_nobody_an_answer(tmp_path: Path) -> None:
    """Calls are answered, and the proxy ends as it should."""
    async with breakable(Traits()) as upstream:
        otlp = "--otel-exporter-otlp-endpoint=http://127.0.0.1:1"
        async with daemon(tmp_path, upstream, otlp) as proxy:
            caller = await connect(proxy.port)
            answer = await caller.embed("a")
            proxy.process.send_signal(signal.SIGTERM)
            exit_code = await deferToThread(proxy.process.wait, 20)
            await until(lambda: not caller.is_open)

    assert answer.is_for(["a"])
    assert exit_code == 0
