"""
The embedded model as a child process of the proxy.

The parent listens for it and hands the socket over, so that the address is
known from the start and survives the child.  A request sent before the child
is ready waits in the kernel's queue; its answer says that the model is there.
"""

import socket
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.logger import Logger

from abproxy.process import ChildProcess
from abproxy.upstream.agent import make_agent
from abproxy.upstream.connections import make_pool
from abproxy.upstream.endpoints import EndpointFactory
from abproxy.upstream.treq_client import make_treq
from abproxy_model.errors import ModelUnavailable
from abproxy_model.files import require

__all__ = ["ModelChild", "make_child"]

INHERITED_FD = 3
RESTART_S = 1.0
"""How long after its end a child is started again, in seconds."""

_log = Logger()


@define(kw_only=True, eq=False)
class ModelChild(ChildProcess):
    """The embedded model, running as long as it is wanted."""

    model: str
    listening: socket.socket = field(repr=False)
    is_ready: Callable[[], Deferred[object]] = field(repr=False)
    """Ask the model for its health; fires when it answers."""

    command: ClassVar[tuple[str, ...]] = (
        "-m",
        "twisted",
        "--log-format=text",
        "abproxy-model",
    )

    @property
    def url(self) -> str:
        """Return the address at which the model answers."""
        host, port = self.listening.getsockname()[:2]
        return f"http://{host}:{port}"

    async def start(self) -> None:
        """
        Start the model and wait until it is ready.

        Raises:
            ModelUnavailable: it ended before.
        """
        _log.info("Waiting for the embedded model {model}", model=self.model)
        await super().start()
        _log.info("The embedded model {model} is ready", model=self.model)

    async def stop(self) -> None:
        """Stop the model after it has answered what it was sent."""
        self.end()
        if self._process is not None:
            self._signal("TERM")
            await super().stop()
        self.listening.close()

    def _ready(self) -> Deferred[object]:
        return self.is_ready()

    def _not_started(self, how: str) -> Exception:
        return ModelUnavailable(f"the embedded model ended with {how}")

    def _arguments(self) -> Sequence[str]:
        return (
            "--model",
            self.model,
            "--listen-fd",
            str(INHERITED_FD),
            "--exit-with-stdin",
        )

    def _files(self) -> Mapping[int, int | str]:
        return {0: "w", 1: "r", 2: "r", INHERITED_FD: self.listening.fileno()}

    def _line_received(self, file: int, line: bytes) -> None:
        del file
        _log.info("model: {line}", line=line.decode(errors="replace"))

    def _restart_delay(self, how: str) -> float:
        _log.error("The embedded model ended with {how}; starting it again", how=how)
        return RESTART_S


def make_child(reactor: Any, model: str) -> ModelChild:
    """
    Make the child for *model*, on a free port of this machine.

    Args:
        reactor: what starts processes, and connects to them.
        model: `minilm` or `static`.

    Raises:
        ModelUnavailable: it is not installed.
    """
    require(model)
    agent = make_agent(make_pool(reactor, 1), EndpointFactory(reactor, 1.0))
    http: Any = make_treq(agent)
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
