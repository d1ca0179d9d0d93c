"""Keys, texts and queries stay where they belong: in requests and answers."""

from collections.abc import Iterator
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from typing import Any, cast

import pytest
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from twisted.logger import (
    LogEvent,
    eventAsText,
    globalLogPublisher,
)

from abproxy.errors import ConnectionBroken, UpstreamTimeout
from abproxy.events import Observers
from abproxy.settings.key_files import KEY_FILES
from abproxy.telemetry.logs import json_line
from abproxy.telemetry.otlp import Span, encode
from abproxy.telemetry.tracing import Tracing
from support.proxy import InMemoryProxy, wired

CLIENTS_KEY, SERVERS_KEY, WRONG_KEY = "CLIENTS-KEY", "SERVERS-KEY", "WRONG-KEY"
TEXT, QUERY = "A-TEXT", "A-QUERY"
BULK_KEY, NEW_KEY, ADMIN_KEY = "BULK-KEY", "NEW-KEY", "ADMIN-KEY"
KEYS = [CLIENTS_KEY, SERVERS_KEY, WRONG_KEY, BULK_KEY, NEW_KEY, ADMIN_KEY]
SECRETS = [*KEYS, TEXT, QUERY]

AUTHORIZED = ("Authorization", f"Bearer {CLIENTS_KEY}")
REFERRED = ("Referer", f"http://page/?{QUERY}")


@contextmanager
def _noted() -> Iterator[list[LogEvent]]:
    events: list[LogEvent] = []
    globalLogPublisher.addObserver(events.append)
    try:
        yield events
    finally:
        globalLogPublisher.removeObserver(events.append)


def _call(here: InMemoryProxy) -> None:
    client = here.connect()
    body = b'{"inputs":["%b"],"prompt_name":"%b"}' % (TEXT.encode(), TEXT.encode())
    client.embed(body, AUTHORIZED, REFERRED, path=f"/embed?q={QUERY}")


def _all_that_may_happen(here: InMemoryProxy) -> None:
    """Calls that go well, and calls that go wrong in many ways."""
    _call(here)
    here.answer_all()
    _call(here)
    here.upstream.open[0].refuse(422, b"cannot embed " + TEXT.encode())
    _call(here)
    here.upstream.open[0].refuse(429, b"no room for " + TEXT.encode())
    here.clock.advance(0.05)
    here.upstream.open[0].fail(ConnectionBroken("broken"))
    here.answer_all()
    _call(here)
    here.upstream.open[0].fail(UpstreamTimeout("too slow"))
    send = here.collector.sender.send_request
    here.collector.sender.send_request = (
        here.upstream.send
    )  # all that fails there is ours
    _call(here)
    here.upstream.open[0].fail(ZeroDivisionError("a bug"))
    here.collector.sender.send_request = send
    for _ in range(3):
        _call(here)
    here.upstream.open[0].answer()
    here.upstream.open[0].refuse(200, b"[[1]]")
    here.call(TEXT, key=WRONG_KEY)
    here.ask("POST", "/embed", b"no JSON, but " + TEXT.encode(), AUTHORIZED)
    here.ask("GET", f"/elsewhere?{QUERY}", b"", AUTHORIZED, REFERRED)
    here.ask("GET", f"/-/status.json?{QUERY}", b"", ("X-Api-Key", WRONG_KEY))
    for key in (ADMIN_KEY, WRONG_KEY):
        shown = ("Authorization", f"Bearer {key}")
        here.ask("POST", "/-/upstreams/nowhere/drain", b"", shown)
    here.ask("POST", "/embed", TEXT.encode() * 1000, AUTHORIZED)


def _pages(here: InMemoryProxy) -> str:
    """Read all figures while a call waits."""
    _call(here)
    _call(here)
    pages = [
        here.ask("GET", path, b"", AUTHORIZED).body.decode()
        for path in ("/metrics", "/-/status.json")
    ]
    here.answer_all()
    return "\n".join(pages)


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_no_secret_is_ever_shown_or_written_down(
    tmp_path: Path, nothing_leaked: list[object], log_format: str
) -> None:
    """Neither on a page, nor among the figures, nor in a log of any kind."""
    access_log = tmp_path / "access.log"
    with (
        _noted() as events,
        wired(
            slots=1,
            api_keys=(CLIENTS_KEY,),
            upstream_key=SERVERS_KEY,
            max_body_bytes=5000,
            access_log=str(access_log),
            log_format=log_format,
        ) as here,
    ):
        _all_that_may_happen(here)
        shown = _pages(here)

    logged = "".join(f"{json_line(event)}{eventAsText(event)}" for event in events)
    written = access_log.read_text()
    assert [secret for secret in SECRETS if secret in shown + logged + written] == []
    assert "upstream_timeout" in shown
    assert "A batch failed" in logged
    assert "/elsewhere" in written
    nothing_leaked.clear()


PATHS = [
    *("/", "/metrics", "/health", "/ping", "/-/", "/-/status.json", "/-/ready"),
    *("/-/healthy", "/-/docs", "/-/openapi.json", "/-/nothing", "/-/page.css"),
]
FILES = {
    "api_key_file": CLIENTS_KEY,
    "bulk_api_key_file": BULK_KEY,
    "upstream_key_file": SERVERS_KEY,
    "admin_key_file": ADMIN_KEY,
}


def _rotate(here: InMemoryProxy, folder: Path) -> None:
    """Change the files with keys, in good ways and bad ones."""
    for content in (f"{NEW_KEY} with a blank", f"{NEW_KEY}\xff", "", NEW_KEY):
        for name in FILES:
            (folder / name).write_bytes(content.encode("latin-1"))
        here.service.look_at_keys()
        for key in (CLIENTS_KEY, BULK_KEY, NEW_KEY, WRONG_KEY):
            here.call("a", key=key)
            here.answer_all()


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_no_key_is_in_anything_that_a_proxy_emits(
    tmp_path: Path, nothing_leaked: list[object], log_format: str
) -> None:
    """In no log at any level, page, figure, error or trace; not from files either."""
    for name, key in FILES.items():
        (tmp_path / name).write_text(key)
    named: Any = {name: str(tmp_path / name) for name in FILES}
    values: Any = {each.of: each.read(named[each.name]) for each in KEY_FILES}
    exporter = InMemorySpanExporter()
    tracing = Tracing(
        provider=TracerProvider(shutdown_on_exit=False),
        processor=SimpleSpanProcessor(exporter),
    )
    with (
        _noted() as events,
        wired(
            slots=1,
            max_body_bytes=5000,
            access_log=str(tmp_path / "access.log"),
            log_format=log_format,
            **named,
            **values,
        ) as here,
    ):
        observers = [here.recorder, here.telemetry.access_log, tracing]
        here.site.observer = Observers(observers)
        here.model.relay.trace = tracing.relay
        here.inference_server.trace = tracing.trace
        _all_that_may_happen(here)
        _rotate(here, tmp_path)
        keys = [NEW_KEY, WRONG_KEY]
        clients = [here.connect() for _ in range(len(PATHS) * len(keys))]
        for client, (path, key) in zip(clients, product(PATHS, keys), strict=True):
            client.ask("GET", path, b"", ("Authorization", f"Bearer {key}"))
            here.flush()
            here.answer_all()
        told = b"".join(client.transport.value() for client in here.clients).decode()
        settings = repr(here.service.reload.__self__.settings)  # type: ignore[attr-defined]

    tracing.shut_down()
    spans = [
        encode([cast("Span", span)], b"").decode("latin-1")
        for span in exporter.get_finished_spans()
    ]
    logged = [f"{json_line(event)}{eventAsText(event)}" for event in events]
    written = (tmp_path / "access.log").read_text()
    everything = "\n".join([told, settings, *spans, *logged, written])
    assert [key for key in KEYS if key in everything] == []
    assert "The former keys stay: API_KEY_FILE" in everything
    assert "API_KEY_FILE has changed, and is used" in everything
    assert "/-/status.json" in written
    assert len(spans) > 10
    nothing_leaked.clear()


def test_the_secrets_were_really_there(tmp_path: Path) -> None:
    """What is looked for above was sent, so that it could have been found."""
    with wired(
        slots=1,
        api_keys=(CLIENTS_KEY,),
        upstream_key=SERVERS_KEY,
        access_log=str(tmp_path / "access.log"),
    ) as here:
        _call(here)

        [sent] = here.upstream.sent
        request = sent.request
        assert TEXT.encode() in request.body
        assert QUERY.encode() in request.path
        assert (b"Authorization", f"Bearer {SERVERS_KEY}".encode()) in request.headers
        here.answer_all()
