"""
One line for each request in the Combined Log Format, if the operator wants it.

No user is named, as only a key could name one, and queries are left out, the
request's and its referrer's, as some hold keys.  Where the log is JSON, a line is
an object.
"""

import re
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from functools import lru_cache
from typing import ClassVar, TextIO

import msgspec
from attrs import define, field
from msgspec import UNSET, Struct, UnsetType
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from abproxy.events import Observer, RequestInfo
from abproxy.tuning import wall_clock

__all__ = ["AccessLog"]

CLIENT_LEFT = 499

SHORT = 200
"""Bytes up to which a text is kept as it was spelled: most come again and again."""

_UNSAFE = re.compile(rb"[^ !#-\[\]-~]")
"""What could end a field or the line."""


@define(kw_only=True, eq=False)
class AccessLog(Observer):
    """Write a line for each request when it has ended."""

    open_file: Callable[[], TextIO]
    """Open the file; called again after it was moved away."""

    as_json: bool
    clock: IReactorTime = field(repr=False)
    _wall: Callable[[], float] = field(init=False, repr=False)
    """Return the time of day, which may step as the clock does not."""

    _file: TextIO = field(init=False, repr=False)
    _works: bool = field(default=True, init=False)
    """Whether the last line could be written: a full disk is logged once."""

    _log: ClassVar[Logger] = Logger()

    def __attrs_post_init__(self) -> None:
        self._file = self.open_file()
        self._wall = wall_clock(self.clock)

    def reopen(self) -> None:
        """Write into a new file of the same name, if the old one has moved."""
        try:
            former, self._file = self._file, self.open_file()
        except OSError as error:
            self._log.error(
                "Cannot reopen the access log, so it stays in its old file: {why}",
                why=error,
            )
            return
        if former is not self._file:
            with suppress(OSError):  # what could not be written cannot be now
                former.close()

    def request_ended(self, request: RequestInfo, *, gone: bool) -> None:
        """Write a line."""
        status = CLIENT_LEFT if gone else request.status
        write = self._object if self.as_json else _combined
        self._write(write(request, status, self._wall()) + "\n")

    def _write(self, line: str) -> None:
        try:
            self._file.write(line)
            # Standard output is buffered where it is no terminal.
            self._file.flush()
        except OSError as error:
            if self._works:
                message = "Requests are missing in the access log: {why}"
                self._log.error(message, why=error)
            self._works = False
        else:
            self._works = True

    def _object(self, request: RequestInfo, status: int, now: float) -> str:
        seconds, micros = divmod(int(now * 1e6), 1_000_000)
        line = _Line(
            time=f"{_iso_second(seconds)}.{micros:06d}+00:00",
            client=request.client_host or "-",
            method=_safe(request.method),
            path=_safe(request.below + request.path),
            model=request.model or UNSET,
            status=status,
            bytes=request.size,
            duration_ms=int((self.clock.seconds() - request.began_at) * 1e6) / 1000,
            route=request.route or ("relayed" if request.is_relayed else None),
            user_agent=_header(request, b"User-Agent"),
            request_id=request.request_id().decode(),
        )
        return _encode(line).decode()


class _Line(Struct, kw_only=True):
    """A line as JSON; a struct is written in a fraction of the time of a dict."""

    time: str
    logger: str = "access"
    client: str
    method: str
    path: str
    model: str | UnsetType = UNSET
    """Where there are several."""

    status: int
    bytes: int
    duration_ms: float
    route: str | None
    user_agent: str
    request_id: str


_encode = msgspec.json.Encoder().encode


@lru_cache(1)
def _iso_second(now: int) -> str:
    return datetime.fromtimestamp(now, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def _combined(request: RequestInfo, status: int, now: float) -> str:
    time = _to_the_second(int(now))
    asked = b" ".join((request.method, request.below + request.path, request.version))
    referer = _header(request, b"Referer").partition("?")[0]
    agent = _header(request, b"User-Agent")
    sent = request.size or "-"
    return (
        f"{request.client_host or '-'} - - [{time}] "
        f'"{_safe(asked)}" {status} {sent} "{referer}" "{agent}"'
    )


@lru_cache(1)
def _to_the_second(now: int) -> str:
    return datetime.fromtimestamp(now, UTC).strftime("%d/%b/%Y:%H:%M:%S +0000")


def _header(request: RequestInfo, name: bytes) -> str:
    [value, *_] = request.headers.getRawHeaders(name, [b"-"])
    return _safe(value)


def _safe(text: bytes) -> str:
    return _spell_short(text) if len(text) <= SHORT else _spell(text)


def _spell(text: bytes) -> str:
    return _UNSAFE.sub(lambda found: b"\\x%02x" % found[0][0], text).decode()


_spell_short = lru_cache(1000)(_spell)
