"""
One request to the upstream, whoever carries it: one deadline, one whole reply.

The deadline spans the request and its body, because a body can stall as well
as a head.
"""

from collections.abc import Callable
from typing import Any

from attrs import define, field
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from abproxy.errors import ConnectionBroken, ProxyError
from abproxy.http.failures import timed_out, translate
from abproxy.http.messages import Response, UpstreamRequest

__all__ = ["Upstream"]


@define(kw_only=True, eq=False)
class Upstream:
    """One inference server."""

    base_url: str
    clock: IReactorTime = field(repr=False)
    timeout_s: float
    max_answer_bytes: int

    forget_idle: Callable[[], object] = field(default=lambda: None, repr=False)
    """
    Called when a connection broke: those that are idle may be dead as well.

    A server that restarts closes all of them at once.  Whoever tries again
    would use up its tries on one after the other.
    """

    def send(self, outgoing: UpstreamRequest) -> Deferred[Response]:
        """
        Carry *outgoing* to the upstream and bring back the whole reply.

        Cancelling closes the connection: TEI then forgets what it has not
        begun to compute.

        Raises:
            UpstreamTimeout: no whole reply within the deadline.
            UpstreamBroken: no connection, or no usable reply.
        """
        exchange = self._exchange(outgoing).addErrback(self._told)
        return exchange.addTimeout(self.timeout_s, self.clock, timed_out)

    def _exchange(self, outgoing: UpstreamRequest) -> Deferred[Response]:
        """Send and receive; cancelled, it fails with that and nothing else."""
        raise NotImplementedError

    def _told(self, failure: Failure) -> Failure:
        if failure.check(CancelledError, ProxyError):
            return failure
        error: Any = failure.value
        told = translate(error)
        if isinstance(told, ConnectionBroken):
            self.forget_idle()
        told.__cause__ = error
        return Failure(told)
