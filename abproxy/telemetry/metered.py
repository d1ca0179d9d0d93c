"""The way upstream, with a meter in it."""

from typing import Protocol

from attrs import define, field
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure

from abproxy.errors import ProxyError
from abproxy.messages import Outgoing, Reply, Send

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

    def send(self, outgoing: Outgoing) -> Deferred[Reply]:
        """Send *outgoing*; status or reason, and the time it took, are metered."""
        began_at = self.clock.seconds()

        def over(result: Reply | Failure) -> Reply | Failure:
            self.meter.sent(_outcome(result), self.clock.seconds() - began_at)
            return result

        return self.send_on(outgoing).addBoth(over)


def _outcome(result: Reply | Failure) -> str:
    if isinstance(result, Reply):
        return str(result.status)
    if isinstance(result.value, ProxyError):
        return result.value.reason
    return "cancelled" if result.check(CancelledError) else "bug"
