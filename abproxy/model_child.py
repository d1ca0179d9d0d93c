"""
The embedded model as a child of the proxy: start, watch, stop.

The parent listens for it and hands the socket over, so that the address is
known from the start and survives the child.  A request sent before the child
is ready waits in the kernel's queue; its answer says that the model is there.
A child that ends before that is not started again: it would end again.
"""

import os
import socket
import sys
from collections.abc import Callable
from contextlib import suppress
from typing import Any, ClassVar

from attrs import define, field
from twisted.internet.defer import Deferred, race
from twisted.internet.error import ProcessExitedAlready
from twisted.internet.interfaces import IDelayedCall
from twisted.logger import Logger

from abproxy.pipes import Pipes, never_began
from abproxy_model.errors import ModelUnavailable

__all__ = ["ModelChild"]

INHERITED_FD = 3
RESTART_S = 1.0
"""How long after its end a child is started again, in seconds."""

KILL_S = 15.0
"""How long a child may take to end, in seconds."""

_log = Logger()


@define(kw_only=True, eq=False)
class ModelChild:
    """The embedded model, running as long as it is wanted."""

    reactor: Any = field(repr=False)
    model: str
    listening: socket.socket = field(repr=False)
    is_ready: Callable[[], Deferred[object]] = field(repr=False)
    """Ask the model for its health; fires when it answers."""

    _process: Any = field(init=False, default=None, repr=False)
    _wanted: bool = field(init=False, default=False)
    _restart: IDelayedCall | None = field(init=False, default=None, repr=False)
    _starting: Deferred[object] | None = field(init=False, default=None, repr=False)
    """Fires if the first child ends before it is ready."""

    _stopped: Deferred[None] | None = field(init=False, default=None, repr=False)

    command: ClassVar[tuple[str, ...]] = (
        "-m",
        "twisted",
        "--log-format=text",
        "abproxy-model",
    )

    @property
    def url(self) -> str:
        """Where the model answers."""
        host, port = self.listening.getsockname()[:2]
        return f"http://{host}:{port}"

    async def start(self) -> None:
        """
        Start the model and wait until it is ready.

        Raises:
            ModelUnavailable: it ended before.
        """
        self._wanted = True
        self._starting = Deferred()
        self._spawn()
        has_ended, how = await race([self.is_ready(), self._starting])
        self._starting = None
        if has_ended:
            raise ModelUnavailable(f"the embedded model ended with {how}")
        _log.info("The embedded model {model} is ready", model=self.model)

    async def stop(self) -> None:
        """Let the model finish what it was given, and end it."""
        self._wanted = False
        if self._restart is not None and self._restart.active():
            self._restart.cancel()
        if self._process is not None:
            self._stopped = Deferred()
            self._signal("TERM")
            kill = self.reactor.callLater(KILL_S, self._signal, "KILL")
            await self._stopped
            if kill.active():
                kill.cancel()
        self.listening.close()

    def _signal(self, name: str) -> None:
        # It may have ended by itself just before we hear of it.
        with suppress(ProcessExitedAlready):
            self._process.signalProcess(name)

    def _spawn(self) -> None:
        options = (
            "--model",
            self.model,
            "--listen-fd",
            str(INHERITED_FD),
            "--exit-with-stdin",
        )
        files = {0: "w", 1: "r", 2: "r", INHERITED_FD: self.listening.fileno()}
        try:
            self._process = self.reactor.spawnProcess(
                Pipes(_log_line, self._ended),
                sys.executable,
                [sys.executable, *self.command, *options],
                env=os.environ,
                childFDs=files,
            )
        except OSError as error:
            self._ended(never_began(error))

    def _ended(self, how: str) -> None:
        self._process = None
        if self._stopped is not None:
            self._stopped.callback(None)
        elif self._starting is not None:
            self._starting.callback(how)
        elif self._wanted:
            _log.error(
                "The embedded model ended with {how}; starting it again", how=how
            )
            self._restart = self.reactor.callLater(RESTART_S, self._spawn)


def _log_line(_file: int, line: bytes) -> None:
    _log.info("model: {line}", line=line.decode(errors="replace"))


def make_child(reactor: Any, http: Any, model: str) -> ModelChild:
    """
    Make the child for *model*, on a free port of this machine.

    Args:
        reactor: what starts processes.
        http: a treq client.
        model: `minilm` or `static`.
    """
    listening = socket.create_server(("127.0.0.1", 0), backlog=1024)
    listening.setblocking(False)
    host, port = listening.getsockname()
    url = f"http://{host}:{port}/health"
    return ModelChild(
        reactor=reactor,
        model=model,
        listening=listening,
        is_ready=lambda: http.request("GET", url, unbuffered=False),
    )
