"""The way upstream, with a meter in it."""

from typing import Protocol

from attrs import define, field
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from abproxy.errors import ProxyError
from abproxy.http.messages import Response, Send, UpstreamRequest

__all__ = ["Metered"]


class Meter(Protocol):
    """Where the figures go."""

    def sent(self, outcome: str, took_s: float) -> None:
        """A request to the upstream is over."""


@define(kw_only=True, eq=False)
class Metered:
    """Sends, and tells what came of it."""

    send_on: Send = field(repr=False)
    meter: Meter
    clock: IReactorTime = field(repr=False)

    def send(self, request: UpstreamRequest) -> Deferred[Response]:
        """Send *request*; status or reason, and the time it took, are metered."""
        began_at = self.clock.seconds()

        def over(result: Response | Failure) -> Response | Failure:
            self.meter.sent(_outcome(result), self.clock.seconds() - began_at)
            return result

        return self.send_on(request).addBoth(over)


def _outcome(result: Response | Failure) -> str:
    if isinstance(result, Response):
        return str(result.status)
    if isinstance(result.value, ProxyError):
        return result.value.reason
    return "cancelled" if result.check(CancelledError) else "bug"
