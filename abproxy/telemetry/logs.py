"""
The format of log lines: text for people, or one JSON object a line.

Only plain values of an event are written as JSON, never an object as it prints
itself: what is logged by mistake stays out of the log.
"""

import logging
import signal
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec
from attrs import frozen
from twisted.logger import (
    FileLogObserver,
    FilteringLogObserver,
    ILogObserver,
    LogEvent,
    Logger,
    LogLevel,
    LogLevelFilterPredicate,
    formatEvent,
    formatEventAsClassicLogText,
)
from twisted.python.failure import Failure
from twisted.python.logfile import LogFile

from abproxy.telemetry.lines import LineWriter, open_stdout

__all__ = [
    "forward_standard_logging",
    "json_line",
    "observer",
    "set_threshold",
    "threshold",
]

_PLAIN = (str, int, float, bool)

_LEGACY = frozenset({"format", "isError", "message", "system", "time"})
"""Members that Twisted adds to each event for its older way of logging."""

_TAKEN = _LEGACY | {"level", "logger", "traceback"}
"""Names that a line has already, so that no other member gets them."""


QUIET = ("twisted.application._client_service",)
"""Of these only warnings are logged: each attempt to connect again is none."""


def threshold(level: str) -> LogLevelFilterPredicate:
    """Return a filter for events from *level* on, which may change later."""
    enough = LogLevelFilterPredicate(LogLevel.lookupByName(level))
    for namespace in QUIET:
        enough.setLogLevelForNamespace(namespace, LogLevel.warn)
    return enough


def set_threshold(enough: LogLevelFilterPredicate, level: str) -> None:
    """Set *enough* to let events from *level* on pass."""
    enough.setLogLevelForNamespace("", LogLevel.lookupByName(level))


def observer(
    twistd: Mapping[str, Any],
    *,
    as_json: bool,
    enough: LogLevelFilterPredicate,
    when_running: Callable[[Callable[[], None]], object] = lambda _start: None,
) -> ILogObserver | None:
    """
    Return what writes events to where `twistd` would write them.

    Args:
        twistd: its own options.
        as_json: whether a line is a JSON object.
        enough: which events are important enough.
        when_running: called with what starts the thread that writes; until then it
            is written at once.

    Returns:
        None if the operator has told `twistd` to log in another way, or if it is
        not `twistd` that runs us.
    """
    if "nodaemon" not in twistd or twistd.get("logger") or twistd.get("syslog"):
        return None
    to_text = json_line if as_json else formatEventAsClassicLogText

    def say_lost(lines: int) -> str:
        event = {"log_level": LogLevel.warn, "log_namespace": __name__, "lines": lines}
        event["log_format"] = "{lines} lines of the log could not be written"
        event["log_time"] = time.time()
        return to_text(event) or ""

    file = _file(twistd, say_lost)
    if isinstance(file, LineWriter):
        when_running(file.start)
    writes = FileLogObserver(file, to_text)
    return FilteringLogObserver(writes, [enough])


def _file(twistd: Mapping[str, Any], say_lost: Callable[[int], str]) -> Any:
    about: dict[str, Any] = {"collect_s": 0.0, "on_again": say_lost}
    name = twistd.get("logfile")
    if name == "-" or (not name and twistd.get("nodaemon")):
        return open_stdout("log", **about)
    log = LogFile.fromFullPath(name or "twistd.log")
    file = LineWriter("log", _Rotating(log), **about)
    # As twistd does for its own: an operator may rely on it.
    if not signal.getsignal(signal.SIGUSR1):
        signal.signal(signal.SIGUSR1, lambda *_: file.between_lines(log.rotate))
    return file


@frozen(eq=False)
class _Rotating:
    """A file that rotates by itself, and takes whatever it is given."""

    log: LogFile

    def write(self, data: bytes) -> int:
        self.log.write(data)
        return len(data)

    def close(self) -> None:
        self.log.close()


def json_line(event: LogEvent) -> str | None:
    """Return *event* as one line; None if it says nothing."""
    message = formatEvent(event)
    failure = event.get("log_failure")
    if not message and failure is None:
        return None
    line: dict[str, Any] = {
        "time": datetime.fromtimestamp(event["log_time"], UTC).isoformat(),
        "level": event.get("log_level", LogLevel.info).name,
        "logger": event.get("log_namespace", ""),
        "message": message,
        **_fields(event),
    }
    if isinstance(failure, Failure):
        line["traceback"] = failure.getTraceback()
    return msgspec.json.encode(line).decode() + "\n"


def _fields(event: LogEvent) -> dict[str, Any]:
    return {
        name: value
        for name, value in event.items()
        if isinstance(value, _PLAIN)
        and not name.startswith("log_")
        and name not in _TAKEN
    }


class _Forward(logging.Handler):
    """Write into our log what libraries write with Python's own logging."""

    def emit(self, record: logging.LogRecord) -> None:
        level = LogLevel.lookupByName(
            "warn" if record.levelno < logging.ERROR else "error"
        )
        Logger(namespace=record.name).emit(level, "{text}", text=record.getMessage())


def forward_standard_logging() -> None:
    """Write warnings of libraries into our log."""
    logging.getLogger().addHandler(_Forward(logging.WARNING))
