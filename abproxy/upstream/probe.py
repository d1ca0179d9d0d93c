"""One question to the upstream, asked once a second at most however many ask."""

from typing import cast

from attrs import define, field
from twisted.internet import defer
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from abproxy.errors import InternalError, ProxyError, UpstreamTimeout
from abproxy.http.messages import Response, Send, UpstreamRequest

__all__ = ["Answer", "HealthCheck"]

FRESH_S = 1.0
"""For how long an answer is good, in seconds."""

TIMEOUT_S = 5.0
"""How long the upstream may take, in seconds."""

Answer = Response | ProxyError
"""What the upstream said, or why it said nothing."""

_log = Logger()


@define(kw_only=True, eq=False)
class HealthCheck:
    """A question, and the latest answer to it."""

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
            # Who has left has cancelled it, and it takes no notice.
            asked.callback(answer)


def _why(failure: Failure) -> ProxyError:
    if failure.check(ProxyError):
        return cast("ProxyError", failure.value)
    if failure.check(defer.TimeoutError, defer.CancelledError):
        return UpstreamTimeout(
            f"the inference server did not answer within {TIMEOUT_S:g} seconds"
        )
    # Whoever asks must hear something: others wait for the same answer.
    _log.failure("A bug while asking the inference server", failure)
    return InternalError("a bug in abproxy; its log says more")
