"""What of telemetry there is, and what it shows, as the settings say."""

import sys
import time
from functools import partial
from pathlib import Path
from threading import Thread
from typing import Any

import attrs
from attrs import define, field
from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger

from abproxy.errors import SettingsError
from abproxy.events import Observer, Observers
from abproxy.settings import Settings, default_of, shown, variable
from abproxy.telemetry.access_log import AccessLog
from abproxy.telemetry.diagnosis import LimitsInForce
from abproxy.telemetry.logs import forward_standard_logging
from abproxy.telemetry.recorder import Recorder

__all__ = ["Telemetry", "limits_in_force", "list_settings", "make_telemetry"]

LAST_SPANS_S = 5.0
"""How long sending the last spans may take, in seconds."""


@define(kw_only=True, eq=False)
class Telemetry:
    """All observers: figures always, access log and traces if they are wanted."""

    reactor: Any
    recorder: Recorder
    access_log: AccessLog | None
    tracing: Any
    observer: Observer = field(init=False)
    """All of them as one."""

    _log: Logger = field(init=False, factory=Logger)

    def __attrs_post_init__(self) -> None:
        others: list[Any] = [self.tracing, self.access_log]
        self.observer = Observers([self.recorder, *filter(None, others)])

    @property
    def relay_headers(self) -> Any:
        """What adds to the headers of a relayed request, if anything does."""
        return self.tracing.mark if self.tracing else None

    @property
    def trace(self) -> Any:
        """What begins the span of a request to the upstream, if anything does."""
        return self.tracing.trace if self.tracing else None

    def reopen(self) -> None:
        """Write into new files, if the old ones were moved away."""
        if self.access_log is not None:
            self.access_log.reopen()

    def stop(self) -> Deferred[None]:
        """Send the last spans; fires when that is done, or takes too long."""
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
        # By then it may be too late, and nothing waits for it any more.
        self.reactor.callFromThread(_fire_once, sent)


def _fire_once(waiting: Deferred[None]) -> None:
    if not waiting.called:
        waiting.callback(None)


def make_telemetry(settings: Settings, reactor: Any) -> Telemetry:
    """
    Make all observers, before there is anything to observe.

    Raises:
        SettingsError: there is no way to write the access log, or to trace.
    """
    return Telemetry(
        reactor=reactor,
        recorder=Recorder(clock=reactor, cpu_s=time.process_time),
        access_log=_access_log(settings, reactor) if settings.access_log else None,
        tracing=_tracing(settings.otlp_endpoint) if settings.otlp_endpoint else None,
    )


def _access_log(settings: Settings, reactor: Any) -> AccessLog:
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


def limits_in_force(
    settings: Settings, batch_items: int, upstream_max_items: int | None
) -> LimitsInForce:
    """Return the limits in force, where a batch has so many inputs at most."""
    return LimitsInForce(
        slots=settings.slots,
        budget=settings.budget,
        max_batch_calls=settings.max_batch_calls,
        max_wait_ms=settings.max_wait_ms,
        batch_items=batch_items,
        batch_bytes=settings.max_batch_bytes,
        upstream_max_items=upstream_max_items,
    )


def list_settings(settings: Settings) -> list[dict[str, Any]]:
    """List all *settings* for the status; of secrets only whether there are any."""
    return [
        {
            "name": variable(each.metadata["option"]),
            "value": shown(each, getattr(settings, each.name)),
            "default": default_of(each),
            "unit": each.metadata["unit"],
            "meaning": each.metadata["meaning"],
        }
        for each in attrs.fields(Settings)
    ]
