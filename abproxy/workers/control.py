"""
The pipes between a worker and its supervisor: settings and signals, log lines.

Signals come as words, once, from the supervisor alone: what a terminal or an
init system sends to the whole group would reach a worker twice, and twice
means to stop at once.  When the pipe breaks the supervisor is dead, and the
worker ends, after it has answered what it has accepted.
"""

import signal
from collections.abc import Callable
from typing import Any

import msgspec
from attrs import define, field
from twisted.protocols.basic import LineOnlyReceiver

from abproxy.settings.settings import Settings

__all__ = [
    "CONTROL_IN",
    "CONTROL_OUT",
    "END",
    "END_AFTER_DELAY",
    "PORT",
    "READY",
    "STDERR",
    "STDOUT",
    "ControlChannel",
    "read_settings",
    "write_settings",
]

CONTROL_IN, STDOUT, STDERR, CONTROL_OUT, PORT = range(5)
"""The file descriptors that a worker inherits; the last is the clients' port."""

END = b"end"
"""From the supervisor, for SIGINT; a second one after a while means at once."""

END_AFTER_DELAY = b"end after delay"
"""The same for SIGTERM: the port stays open for `DRAIN_DELAY`."""

_SIGNALS = {END: signal.SIGINT, END_AFTER_DELAY: signal.SIGTERM}

READY = b"ready"
"""From the worker, when it accepts clients."""


def write_settings(settings: Settings) -> bytes:
    """Return *settings* as one line; only the worker sees the secrets in it."""
    return msgspec.json.encode(settings)


def read_settings(line: bytes) -> Settings:
    """Return the settings that the supervisor wrote."""
    return msgspec.json.decode(line, type=Settings)


@define(eq=False, slots=False)
class ControlChannel(LineOnlyReceiver):
    """A worker's end of the pipes; to its service it stands for the signals."""

    settings: Settings
    """Those that the supervisor sent last."""

    delimiter = b"\n"
    MAX_LENGTH = 1 << 24
    _callbacks: dict[int, Callable[[], None]] = field(init=False, factory=dict)
    supervisor_died: bool = field(init=False, default=False)

    must_end: bool = field(init=False, default=False)
    """Whether the supervisor has asked for the end, which all workers hear."""

    _is_retiring: bool = field(init=False, default=False)

    def on(self, number: int, callback: Callable[[], None]) -> None:
        """Call *callback* when the supervisor passes on this signal."""
        self._callbacks[number] = callback

    def on_hangup(self, asked: Callable[[], None], gone: Callable[[], None]) -> None:
        """Call *asked* when there are new settings; the terminal is not ours."""
        del gone
        self.on(signal.SIGHUP, asked)

    def restore(self) -> None:
        """Call nothing any more."""
        self._callbacks.clear()

    def lineReceived(self, line: bytes) -> None:
        """Handle a word or new settings."""
        number = _SIGNALS.get(line)
        if number is None:
            self.settings = read_settings(line)
            self._call(signal.SIGHUP)
        elif self._is_retiring and not self.must_end:
            self.must_end = True
        else:
            self.must_end = True
            self._call(number)

    def retire(self) -> None:
        """End alone; if the supervisor asks for it as well, that is no hurry."""
        if not self.must_end and not self._is_retiring:
            self._is_retiring = True
            # The other workers accept what comes, so there is nothing to announce.
            self._call(signal.SIGINT)

    def connectionLost(self, reason: Any = None) -> None:
        """End: the supervisor is dead."""
        del reason
        # When the reactor ends it breaks as well, but has no callbacks any more.
        if self._callbacks and not self.must_end:
            self.supervisor_died = True
            self.lineReceived(END)

    def _call(self, number: int) -> None:
        self._callbacks.get(number, lambda: None)()
