"""
Our own pages where there are several workers: they speak of all of them.

Whichever worker is asked, it asks the supervisor for the figures.  What the
inference server says of its health is the same whichever process passes it on.
"""

from collections.abc import Callable
from typing import Any, ClassVar, cast

from attrs import define, field
from klein import Klein
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.iweb import IRequest

from abproxy.dialects.reply import error_reply
from abproxy.dialects.tei import EMBED
from abproxy.errors import InternalError, ProxyError
from abproxy.events import RequestInfo
from abproxy.http.headers import Credentials
from abproxy.http.messages import Response, UpstreamRequest
from abproxy.web.admin import UPSTREAMS, Pages, json_reply
from abproxy.web.auth import ApiKeys
from abproxy.web.relay import Relay
from abproxy.web.replies import write_reply
from abproxy.web.request import ProxyRequest, unless_gone
from abproxy.workers.ipc import get_page

__all__ = ["OF_ALL", "SupervisorApp", "ask_supervisor"]

OF_ALL = frozenset({b"/metrics", b"/-/ready", b"/-/status.json", UPSTREAMS})
"""Pages that speak of all workers."""

PASSED = (b"Accept", b"Authorization")
"""Header lines that the supervisor needs to see."""

UNAVAILABLE = 503


@define(kw_only=True, eq=False)
class SupervisorApp:
    """
    What the supervisor answers to operators, and to workers that ask for one.

    It answers its own pages and relays everything else to the clients' port, so
    that a call can be tried from the live page, wherever that is shown.
    """

    keys: ApiKeys
    relay: Relay = field(repr=False)
    app: ClassVar[Klein] = Klein()
    _log: ClassVar[Logger] = Logger()

    @app.route("/", branch=True)
    async def answer(self, request: ProxyRequest) -> None:
        """Answer our own pages, relay everything else."""
        if request.info.is_ours:
            pages = request.site.operations
            with unless_gone(request):
                page = await pages.answer(request.info, self.keys)
            write_reply(request, page)
            return
        self.keys.require(request.info)
        # With what was shown here: a worker looks at it again.
        with unless_gone(request):
            await self.relay.forward(request, Credentials())

    @app.handle_errors(Exception)
    def failed(self, request: IRequest, failure: Failure) -> None:
        """Answer with an error."""
        error: Any = failure.value
        request = cast("ProxyRequest", request)
        if not isinstance(error, ProxyError):
            self._log.failure("A request to the supervisor failed", failure)
            error = InternalError("a bug in abproxy; its log says more")
        if request.startedWriting:
            request.channel.forceAbortClient()
        else:
            write_reply(request, error_reply(error, EMBED))


def ask_supervisor(
    pages: Pages, ask: Callable[[UpstreamRequest], Deferred[Response]]
) -> Pages:
    """
    Return the pages that a worker shows to clients.

    Args:
        pages: what a proxy without workers would show there.
        ask: sends a request to the supervisor.
    """

    async def of_supervisor(request: RequestInfo) -> Response:
        lines = [(name, _header(request, name)) for name in PASSED]
        headers = tuple((name, value) for name, value in lines if value)
        try:
            return await ask(get_page(request.target, headers, request.method))
        except ProxyError:
            error = "the supervisor of the workers does not answer"
            return json_reply(
                UNAVAILABLE, {"error": error, "error_type": "Unavailable"}
            )

    return pages | dict.fromkeys(OF_ALL.intersection(pages), of_supervisor)


def _header(request: RequestInfo, name: bytes) -> Any:
    [value, *_] = request.headers.getRawHeaders(name, [None])
    return value
