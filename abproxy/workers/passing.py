"""
What a worker shows at the clients' door: all that is ours, of all workers.

Whichever worker is asked, it asks the foreman for the figures.  What the
inference server says of its health is the same whoever passes it on.
"""

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred

from abproxy.errors import ProxyError
from abproxy.http.messages import Response, UpstreamRequest
from abproxy.web.admin import Operations, json_reply
from abproxy.web.request import ProxyRequest
from abproxy.workers.private import question

__all__ = ["pass_on"]

OF_ALL = frozenset({b"/metrics", b"/-/ready", b"/-/status.json"})
"""Pages that speak of all workers."""

PASSED = (b"Accept", b"Authorization")

UNAVAILABLE = 503


def pass_on(
    shown: Operations,
    own: Operations,
    ask: Callable[[UpstreamRequest], Deferred[Response]],
) -> Operations:
    """
    Make what is shown at the clients' door.

    Args:
        shown: what the proxy would show there.
        own: what the worker says of itself.
        ask: carries a question to the foreman.
    """

    async def passed(request: ProxyRequest) -> Response:
        lines = [(name, _header(request, name)) for name in PASSED]
        headers = tuple((name, value) for name, value in lines if value)
        try:
            return await ask(question(request.uri, headers))
        except ProxyError:
            error = "the foreman of the workers does not answer"
            return json_reply(
                UNAVAILABLE, {"error": error, "error_type": "Unavailable"}
            )

    pages = {path: own.pages[path] for path in shown.pages}
    of_all = OF_ALL.intersection(pages)
    return Operations(pages=pages | dict.fromkeys(of_all, passed))


def _header(request: ProxyRequest, name: bytes) -> Any:
    [value, *_] = request.requestHeaders.getRawHeaders(name, [None])
    return value
