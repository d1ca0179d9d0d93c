"""
How the rooms are put together that watch the others and show what they see.

Who watches is there before everything else; what looks into the other rooms is
made when they stand.
"""

import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from threading import Thread
from typing import Any

from attrs import define, field, frozen
from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger

from abproxy.batching.collector import BatchCollector
from abproxy.http.headers import Credentials
from abproxy.http.messages import Send, UpstreamRequest
from abproxy.settings import Settings, SettingsError
from abproxy.telemetry.access_log import AccessLog
from abproxy.telemetry.gauges import Gauges
from abproxy.telemetry.logs import forward_standard_logging
from abproxy.telemetry.metered import Metered
from abproxy.telemetry.recorder import Recorder
from abproxy.telemetry.status import Status
from abproxy.upstream.discovery import Discovery
from abproxy.upstream.health import Health, HealthCheck
from abproxy.web.admin import HealthPages, Operations, own_pages
from abproxy.web.observing import RequestObserver, Several
from abproxy.web.relay import AddHeaders
from abproxy.web.site import ProxySite

__all__ = ["Rooms", "Telemetry", "make_watch", "show_surface"]

LAST_SPANS_S = 5.0
"""How long sending the last spans may take, in seconds."""


@define(kw_only=True, eq=False)
class Telemetry:
    """All who watch: figures always, access log and traces if they are wanted."""

    reactor: Any
    recorder: Recorder
    access: AccessLog | None
    tracing: Any
    _log: Logger = field(init=False, factory=Logger)

    @property
    def observer(self) -> RequestObserver:
        """Who watches the door."""
        others: list[Any] = [self.tracing, self.access]
        found = [self.recorder, *filter(None, others)]
        return Several(found) if len(found) > 1 else self.recorder

    @property
    def relay_headers(self) -> AddHeaders | None:
        """What is added to the headers of relayed requests."""
        return self.tracing.mark if self.tracing else None

    def following(self, send: Send) -> Send:
        """Make a way to *send* that is watched."""
        metered = Metered(send_on=send, meter=self.recorder, clock=self.reactor).send
        return self.tracing.following(metered) if self.tracing else metered

    def reopen(self) -> None:
        """Write into new files, if the old ones were moved away."""
        if self.access is not None:
            self.access.reopen()

    def stop(self) -> Deferred[None]:
        """Send what is left; fires when that is done, or takes too long."""
        if self.tracing is None:
            return succeed(None)
        sent: Deferred[None] = Deferred()
        # In no thread of the reactor's pool: the process would wait for it.
        work = partial(self._send_last_spans, sent)
        Thread(target=work, daemon=True, name="last spans").start()
        sent.addTimeout(LAST_SPANS_S, self.reactor)
        return sent.addErrback(lambda _: self._log.warn("The last spans were not sent"))

    def _send_last_spans(self, sent: Deferred[None]) -> None:
        self.tracing.shut_down()
        # By then it may be too late, and nobody waits any more.
        self.reactor.callFromThread(_fire_once, sent)


def _fire_once(waiting: Deferred[None]) -> None:
    if not waiting.called:
        waiting.callback(None)


def make_watch(settings: Settings, reactor: Any) -> Telemetry:
    """
    Make all who watch, before there is anything to see.

    Raises:
        SettingsError: there is no way to write the access log, or to trace.
    """
    return Telemetry(
        reactor=reactor,
        recorder=Recorder(clock=reactor, cpu_s=time.process_time),
        access=_access(settings, reactor) if settings.access_log else None,
        tracing=_tracing(settings.otlp_endpoint) if settings.otlp_endpoint else None,
    )


def _access(settings: Settings, reactor: Any) -> AccessLog:
    name, stdout = str(settings.access_log), sys.stdout

    def open_file() -> Any:
        return stdout if name == "-" else Path(name).open("a", encoding="utf-8")

    as_json = settings.log_format == "json"
    try:
        return AccessLog(open_file=open_file, as_json=as_json, clock=reactor)
    except OSError as error:
        reason = error.strerror or error
        raise SettingsError(f"cannot write to {name}: {reason}") from error


def _tracing(endpoint: str) -> Any:
    try:
        from abproxy.telemetry.tracing import make_tracing
    except ImportError as error:
        raise SettingsError(
            "OTEL_EXPORTER_OTLP_ENDPOINT is set, but traces need more: "
            "pip install 'abproxy[tracing]'"
        ) from error
    forward_standard_logging()
    return make_tracing(endpoint)


@frozen(kw_only=True)
class Rooms:
    """The rooms that are looked into."""

    reactor: Any
    recorder: Recorder
    collector: BatchCollector
    discovery: Discovery
    condition: Health
    sites: Sequence[ProxySite]
    """The clients' door first."""

    settings: Callable[[], Settings]
    credentials: Credentials
    upstream_url: str


def show_surface(rooms: Rooms) -> Status:
    """
    Show our own pages: all at the last door, and health at every other.

    Returns:
        what the pages show.
    """
    gauges = Gauges(
        collector=rooms.collector,
        condition=rooms.condition,
        entrances=rooms.sites,
        blocked_time=rooms.recorder.blocked_time,
        cpu_s_per_call=rooms.recorder.cpu_s_per_call,
        is_draining=lambda: rooms.sites[0].is_draining,
    )
    rooms.recorder.metrics.registry.register(gauges)
    status = Status(
        recorder=rooms.recorder,
        collector=rooms.collector,
        discovery=rooms.discovery,
        condition=rooms.condition,
        gauges=gauges,
        settings=rooms.settings,
        upstream_url=rooms.upstream_url,
    )
    health = _health(rooms).by_path()
    own = own_pages(rooms.recorder.metrics.write, status.document)
    for site in rooms.sites:
        site.operations = Operations(pages=health)
    rooms.sites[-1].operations = Operations(pages=health | own)
    return status


def _health(rooms: Rooms) -> HealthPages:
    return HealthPages(
        checks={path: _check(rooms, path).ask for path in (b"/health", b"/ping")},
        room=rooms.collector.room,
        is_draining=lambda: rooms.sites[0].is_draining,
    )


def _check(rooms: Rooms, path: bytes) -> HealthCheck:
    headers = rooms.credentials.on(())
    return HealthCheck(
        question=UpstreamRequest(method=b"GET", path=path, headers=headers, body=b""),
        send=rooms.discovery.send,
        clock=rooms.reactor,
    )
