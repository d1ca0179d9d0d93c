"""
The foreman's door: for operators, and for workers that ask on behalf of one.

It answers what is ours and passes everything else on to the clients' door, so
that a call can be tried from the live page, wherever that is shown.
"""

from typing import Any, ClassVar, cast

from attrs import define, field
from klein import Klein
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.iweb import IRequest

from abproxy.dialects.answer import error_reply
from abproxy.dialects.tei import EMBED
from abproxy.errors import InternalError, ProxyError
from abproxy.http.headers import Credentials
from abproxy.web.auth import ApiKeys
from abproxy.web.relay import Relay
from abproxy.web.replies import write_reply
from abproxy.web.request import ProxyRequest

__all__ = ["ForemanDoor"]


@define(kw_only=True, eq=False)
class ForemanDoor:
    """Everything that is asked of the foreman."""

    keys: ApiKeys
    relay: Relay = field(repr=False)
    app: ClassVar[Klein] = Klein()
    _log: ClassVar[Logger] = Logger()

    @app.route("/", branch=True)
    async def answer(self, request: ProxyRequest) -> None:
        """Answer what is ours, pass on what is not."""
        ours = request.site.operations
        if ours.owns(request):
            write_reply(request, await ours.answer(request, self.keys))
            return
        self.keys.require(request)
        # With what was shown here: a worker looks at it again.
        await self.relay.forward(request, Credentials())

    @app.handle_errors(Exception)
    def failed(self, request: IRequest, failure: Failure) -> None:
        """Say what went wrong."""
        error: Any = failure.value
        request = cast("ProxyRequest", request)
        if not isinstance(error, ProxyError):
            self._log.failure("A request to the foreman failed", failure)
            error = InternalError("a bug in abproxy; its log says more")
        if request.startedWriting:
            request.channel.forceAbortClient()
        else:
            write_reply(request, error_reply(error, EMBED))
