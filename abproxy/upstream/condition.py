"""What the latest attempts say of the upstream: whether it answers, and how."""

from enum import StrEnum
from typing import ClassVar

from attrs import define, field
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from abproxy.errors import CannotConnect, ProxyError
from abproxy.http.messages import NO_ROOM, Response, Send

__all__ = ["Health", "State"]


class State(StrEnum):
    """How the upstream is."""

    UNKNOWN = "unknown"
    """It was not asked yet."""

    UP = "up"
    FULL = "full"
    """It answers that it has no room (429, 503)."""

    UNREACHABLE = "unreachable"
    """It cannot be connected to."""

    FAILING = "failing"
    """Connections to it break, or its answers come too late."""


ANSWERING = frozenset({State.UP, State.FULL})
AWAY = frozenset({State.UNREACHABLE, State.FAILING})


@define(kw_only=True, eq=False)
class Health:
    """How the upstream is, since when, and why we think so."""

    clock: IReactorTime = field(repr=False)
    state: State = field(init=False, default=State.UNKNOWN)
    why: str = field(init=False, default="it was not asked yet")
    since: float = field(init=False)
    _log: ClassVar[Logger] = Logger()

    def __attrs_post_init__(self) -> None:
        """Begin with knowing nothing."""
        self.since = self.clock.seconds()

    @property
    def answers(self) -> bool:
        """Whether it gives answers, be they that it is full."""
        return self.state in ANSWERING

    def following(self, send: Send) -> Send:
        """Make a way to *send* from which something is learnt each time."""
        return lambda outgoing: send(outgoing).addCallbacks(self._heard, self._failed)

    def _heard(self, reply: Response) -> Response:
        if reply.status in NO_ROOM:
            self._is(State.FULL, f"it answers with {reply.status}")
        else:
            self._is(State.UP, "")
        return reply

    def _failed(self, failure: Failure) -> Failure:
        # A request that was cancelled says nothing about the upstream.
        if failure.check(ProxyError):
            away = failure.check(CannotConnect)
            state = State.UNREACHABLE if away else State.FAILING
            self._is(state, failure.getErrorMessage())
        return failure

    def _is(self, state: State, why: str) -> None:
        self.why = why
        if state is self.state:
            return
        now = self.clock.seconds()
        if self.state in AWAY and state in ANSWERING:
            passed_s = f"{now - self.since:.1f}"
            self._log.info("The inference server answers again after {s} s", s=passed_s)
        self.state = state
        self.since = now
