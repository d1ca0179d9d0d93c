"""
A worker's line to its foreman: settings and signals come in, log lines go out.

Signals come as words, once, from the foreman alone: what a terminal or a
supervisor sends to the whole group would reach a worker twice, and twice means
to stop at once.  When the line breaks the foreman is dead, and the worker
ends, after it has answered what it has accepted.
"""

import signal
from collections.abc import Callable
from typing import Any

import msgspec
from attrs import define, field
from twisted.protocols.basic import LineOnlyReceiver

from abproxy.settings import Settings

__all__ = [
    "END",
    "IN",
    "OUT",
    "PUBLIC",
    "READY",
    "STDERR",
    "STDOUT",
    "ControlChannel",
    "read_settings",
    "write_settings",
]

IN, STDOUT, STDERR, OUT, PUBLIC = range(5)
"""The files that a worker is born with: orders, output, errors, log, and the port."""

END = b"end"
"""The foreman's word for SIGTERM; a second one after a while means at once."""

READY = b"ready"
"""The worker's word when it lets clients in."""


def write_settings(settings: Settings) -> bytes:
    """Write *settings* as one line; their secrets are seen by nobody else."""
    return msgspec.json.encode(settings)


def read_settings(line: bytes) -> Settings:
    """Read what the foreman wrote."""
    return msgspec.json.decode(line, type=Settings)


@define(eq=False, slots=False)
class ControlChannel(LineOnlyReceiver):
    """What the foreman says; to the service these are signals."""

    settings: Settings
    """Those that it sent last."""

    delimiter = b"\n"
    MAX_LENGTH = 1 << 24
    _callbacks: dict[int, Callable[[], None]] = field(init=False, factory=dict)
    is_alone: bool = field(init=False, default=False)
    """Whether the foreman has died."""

    _is_told: bool = field(init=False, default=False)
    """Whether the foreman wants the end."""

    _retires: bool = field(init=False, default=False)

    def on(self, number: int, callback: Callable[[], None]) -> None:
        """Call *callback* when the foreman hears this signal."""
        self._callbacks[number] = callback

    def on_hangup(self, asked: Callable[[], None], gone: Callable[[], None]) -> None:
        """Call *asked* when there are new settings; the terminal is not ours."""
        del gone
        self.on(signal.SIGHUP, asked)

    def restore(self) -> None:
        """Listen no more."""
        self._callbacks.clear()

    def lineReceived(self, line: bytes) -> None:
        """Take a word, or new settings."""
        if line != END:
            self.settings = read_settings(line)
            self._call(signal.SIGHUP)
        elif self._retires and not self._is_told:
            self._is_told = True
        else:
            self._is_told = True
            self._call(signal.SIGTERM)

    def retire(self) -> None:
        """End alone; that the foreman wants it as well is no hurry."""
        if not self._is_told and not self._retires:
            self._retires = True
            self._call(signal.SIGTERM)

    def connectionLost(self, reason: Any = None) -> None:
        """End: there is no foreman any more."""
        del reason
        # When the reactor ends it breaks as well; nobody listens any more then.
        if self._callbacks and not self._is_told:
            self.is_alone = True
            self.lineReceived(END)

    def _call(self, number: int) -> None:
        self._callbacks.get(number, lambda: None)()
