"""Health of the upstream: from the outcome of each request, and by asking it."""

from typing import Any, ClassVar, cast

from attrs import define, field
from msgspec.structs import replace
from twisted.internet import defer
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from abproxy.errors import (
    CannotConnect,
    HandshakeFailed,
    InternalError,
    ProxyError,
    UpstreamTimeout,
)
from abproxy.events import UpstreamState
from abproxy.http.messages import (
    GATEWAY,
    NO_ROOM,
    HeaderList,
    Response,
    Send,
    UpstreamRequest,
)

__all__ = ["Answer", "Health", "HealthCheck", "answers_question", "make_checks"]


AWAY = frozenset({UpstreamState.UNREACHABLE, UpstreamState.FAILING})


@define(kw_only=True, eq=False)
class Health:
    """The state of the upstream, since when, and the reason for it."""

    clock: IReactorTime = field(repr=False)
    which: str = field(default="", init=False)
    """What the log calls it beside others: a blank and its URL."""

    state: UpstreamState = field(init=False, default=UpstreamState.UNKNOWN)
    why: str = field(init=False, default="not checked yet")
    since: float = field(init=False)
    _log: ClassVar[Logger] = Logger()

    def __attrs_post_init__(self) -> None:
        self.since = self.clock.seconds()

    def answered(self, response: Response) -> Response:
        """Learn from a *response*."""
        if response.status in NO_ROOM:
            self._become(UpstreamState.FULL, f"it answers with {response.status}")
        elif self.state is not UpstreamState.UP:
            self._become(UpstreamState.UP, "")
        return response

    def failed(self, failure: Failure) -> Failure:
        """Learn from a *failure*; a request that was cancelled says nothing."""
        if failure.check(ProxyError):
            away = failure.check(CannotConnect, HandshakeFailed)
            state = UpstreamState.UNREACHABLE if away else UpstreamState.FAILING
            self._become(state, failure.getErrorMessage())
        return failure

    def _become(self, state: UpstreamState, why: str) -> None:
        self.why = why
        if state is self.state:
            return
        now = self.clock.seconds()
        if self.state in AWAY and state.answers:
            passed_s = f"{now - self.since:.1f}"
            message = "The inference server{which} answers again after {s} s"
            self._log.info(message, which=self.which, s=passed_s)
        self.state = state
        self.since = now


FRESH_S = 1.0
"""For how long an answer is good, in seconds."""

TIMEOUT_S = 5.0
"""How long the upstream may take, in seconds."""

Answer = Response | ProxyError
"""What the upstream said, or why it said nothing."""

_log = Logger()


@define(kw_only=True, eq=False)
class HealthCheck:
    """A question to the upstream, sent once a second at most however many ask."""

    question: UpstreamRequest
    send: Send = field(repr=False)
    clock: IReactorTime = field(repr=False)

    _answer: Answer | None = field(init=False, default=None, repr=False)
    _answered_at: float = field(init=False, default=0.0)
    _waiting: list[Deferred[Answer]] = field(init=False, factory=list, repr=False)

    def ask(self) -> Deferred[Answer]:
        """Fire with the answer; never fails."""
        asked: Deferred[Answer] = Deferred()
        age_s = self.clock.seconds() - self._answered_at
        if self._answer is not None and age_s < FRESH_S:
            asked.callback(self._answer)
            return asked
        self._waiting.append(asked)
        if len(self._waiting) == 1:
            sent = self.send(self.question).addTimeout(TIMEOUT_S, self.clock)
            sent.addErrback(_why).addCallback(self._heard)
        return asked

    def _heard(self, answer: Answer) -> None:
        self._answer = answer
        self._answered_at = self.clock.seconds()
        waiting, self._waiting = self._waiting, []
        for asked in waiting:
            # One that was cancelled takes no notice.
            asked.callback(answer)


def make_checks(clock: IReactorTime, upstream: Any) -> dict[bytes, HealthCheck]:
    """Return what asks *upstream* for its health, by the path that is asked for."""

    def ask(question: UpstreamRequest) -> Deferred[Response]:
        # The key may have changed since the last time.
        answer: Deferred[Response] = upstream.ask(
            replace(question, headers=upstream.credentials.on(()))
        )
        return answer

    return {
        path: HealthCheck(
            question=UpstreamRequest(method=b"GET", path=path, headers=(), body=b""),
            send=ask,
            clock=clock,
        )
        for path in (b"/health", b"/ping")
    }


def _why(failure: Failure) -> ProxyError:
    if failure.check(ProxyError):
        return cast("ProxyError", failure.value)
    if failure.check(defer.TimeoutError, defer.CancelledError):
        return UpstreamTimeout(
            f"the inference server did not answer within {TIMEOUT_S:g} seconds"
        )
    # All who wait must be answered.
    _log.failure("A bug while querying the inference server", failure)
    return InternalError("a bug in abproxy; its log says more")


QUESTION = UpstreamRequest(method=b"GET", path=b"/health", headers=(), body=b"")
SAYS_NO = GATEWAY | {503}
"""What is no answer of the server itself, or says that it is not ready."""


def answers_question(
    send: Send, headers: HeaderList, clock: IReactorTime
) -> Deferred[bool]:
    """
    Query the health of a server; never fails.

    Any answer will do, as not all have such a route, but not that of a gateway for
    one that is away, nor 503.

    Args:
        send: sends the question.
        headers: what is shown with it.
        clock: bounds the wait.
    """
    asked = send(replace(QUESTION, headers=headers))
    asked.addTimeout(TIMEOUT_S, clock)
    return asked.addCallbacks(lambda told: told.status not in SAYS_NO, lambda _: False)
