"""The observers of a proxy, made as the settings ask for them."""

import os
import time
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Any

from attrs import define, evolve, field
from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger

from abproxy.errors import SettingsError
from abproxy.events import Observer, Observers
from abproxy.telemetry.by_model import ByModel
from abproxy.telemetry.lines import LineWriter, append_to, open_stdout
from abproxy.telemetry.logs import forward_standard_logging
from abproxy.telemetry.metrics import Metrics
from abproxy.telemetry.recorder import Recorder

if TYPE_CHECKING:
    from abproxy.telemetry.access_log import AccessLog

__all__ = ["Telemetry", "make_telemetry", "traces_endpoint"]

LAST_SPANS_S = 5.0
"""How long sending the last spans may take, in seconds."""


@define(kw_only=True, eq=False)
class Telemetry:
    """All observers: figures always, access log and traces if they are wanted."""

    reactor: Any
    recorder: Recorder
    access_log: "AccessLog | None"
    tracing: Any
    by_model: ByModel | None = None
    """The figures of several models, each by its name."""

    observer: Observer = field(init=False)
    """All of them as one."""

    _log: Logger = field(init=False, factory=Logger)

    def __attrs_post_init__(self) -> None:
        others: list[Any] = [self.tracing, self.access_log]
        figures = self.by_model or self.recorder
        self.observer = Observers([figures, *filter(None, others)])

    def of_model(self) -> "Telemetry":
        """Return the observers of one of several models, with figures of its own."""
        recorder = Recorder(
            clock=self.reactor,
            cpu_s=self.recorder.cpu_s,
            metrics=Metrics(is_of_process=False),
        )
        return evolve(self, recorder=recorder, access_log=None, by_model=None)

    def show(self, name: str, recorder: Recorder) -> None:
        """Add the metrics of the model of this *name*."""
        if self.by_model is not None:
            self.by_model.recorders[name] = recorder

    def forget(self, recorder: Recorder) -> None:
        """Remove the metrics of a model that is not served any more."""
        if self.by_model is not None:
            self.by_model.forget(recorder)

    def write_metrics(self, accepted: bytes) -> tuple[bytes, bytes]:
        """Return content type and body of all metrics, as an `Accept` line asks."""
        return (self.by_model or self.recorder.metrics).write(accepted)

    @property
    def trace_relayed(self) -> Any:
        """Return what begins the span of a relayed request, if anything does."""
        return self.tracing.relay if self.tracing else None

    @property
    def trace(self) -> Any:
        """Return what begins the span of an upstream request, if anything does."""
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


def make_telemetry(  # noqa: PLR0913  each is one wish of the operator
    reactor: Any,
    *,
    access_log: str | None = None,
    as_json: bool = False,
    owner: tuple[int, int] = (-1, -1),
    traces_endpoint: str | None = None,
    scheme: str = "http",
    has_models: bool = False,
) -> Telemetry:
    """
    Return all observers, before there is anything to observe.

    Args:
        reactor: clock and threads.
        access_log: the file of the access log, "-" for standard output, or none.
        as_json: whether its lines are JSON objects.
        owner: the user and group of the file, which are to open it again; -1 for
            those that this process has.
        traces_endpoint: where traces are sent, if they are.
        scheme: how clients reach the proxy.
        has_models: whether the figures of several models are to be told apart.

    Raises:
        SettingsError: there is no way to write the access log, or to trace.
    """
    recorder = Recorder(clock=reactor, cpu_s=time.process_time)
    return Telemetry(
        reactor=reactor,
        recorder=recorder,
        by_model=ByModel(whole=recorder) if has_models else None,
        access_log=(
            _open_access_log(access_log, reactor, owner, as_json=as_json)
            if access_log
            else None
        ),
        tracing=_make_tracing(traces_endpoint, scheme) if traces_endpoint else None,
    )


def _open_access_log(
    name: str, reactor: Any, owner: tuple[int, int], *, as_json: bool
) -> "AccessLog":
    from abproxy.telemetry.access_log import AccessLog

    stdout = open_stdout("access", is_strict=True) if name == "-" else None
    # It is opened again later, when `twistd --rundir` has changed the folder.
    path = Path(name).absolute()

    def open_file() -> Any:
        file = stdout
        if file is None:
            file = LineWriter("access", append_to(path), is_strict=True)
        if isinstance(file, LineWriter):
            reactor.callWhenRunning(file.start)
        return file

    try:
        log = AccessLog(open_file=open_file, as_json=as_json, clock=reactor)
        # Not a device, such as /dev/null, and not a pipe of another program.
        if owner != (-1, -1) and path.is_file():
            os.chown(name, *owner)
    except OSError as error:
        reason = error.strerror or error
        raise SettingsError(f"ACCESS_LOG: cannot write to {name}: {reason}") from error
    return log


def traces_endpoint(
    endpoint: str | None, own: str | None, environ: Mapping[str, str] = os.environ
) -> str | None:
    """
    Return where traces are sent, or None if none are wanted.

    Args:
        endpoint: that of all signals, to which a path is added.
        own: that of traces.
        environ: OpenTelemetry's own variables.

    Raises:
        SettingsError: traces are wanted in a way that there is not.
    """
    exporter = environ.get("OTEL_TRACES_EXPORTER", "otlp").strip() or "otlp"
    is_off = environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"
    if is_off or exporter == "none" or not (endpoint or own):
        return None
    if exporter != "otlp":
        why = f"traces are sent by otlp, or not at all (none), not by {exporter!r}"
        raise SettingsError(f"OTEL_TRACES_EXPORTER: {why}")
    for name in ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"):
        protocol = environ.get(name, "").strip()
        if protocol and protocol != "http/protobuf":
            raise SettingsError(
                f"{name}: traces are sent as http/protobuf, usually to port 4318, "
                f"not as {protocol}"
            )
        if protocol:
            break
    return own or f"{endpoint}/v1/traces"


def _make_tracing(endpoint: str, scheme: str) -> Any:
    try:
        from abproxy.telemetry.tracing import make_tracing
    except ImportError as error:
        raise SettingsError(
            "traces are to be sent (OTEL_EXPORTER_OTLP_ENDPOINT), which needs more: "
            "pip install 'abproxy[tracing]'"
        ) from error
    forward_standard_logging()
    return make_tracing(endpoint, scheme)
