"""
The proxy's own pages: health, metrics, and all below `/-/`.

Everything else belongs to the upstream.  The pages can only be read, but for those
below `/-/upstreams`, which ask for a key of their own.  The live page
itself holds no figures, so a client without a key gets it too, and is asked for
the key with which the page then loads them.
"""

import re
import zlib
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec
from attrs import define, field
from msgspec.structs import replace
from twisted.internet.defer import maybeDeferred
from twisted.web.http import parse_qs

from abproxy.dialects.reply import CORS
from abproxy.errors import ProxyError, Unauthorized
from abproxy.events import RequestInfo
from abproxy.http.headers import with_request_id
from abproxy.http.messages import HeaderList, Response
from abproxy.web.auth import ApiKeys

__all__ = [
    "UPSTREAMS",
    "HealthPages",
    "Operations",
    "Pages",
    "json_reply",
    "own_pages",
]

OURS = b"/-/"
"""Every path below this is ours, also one that there is no page for."""

UPSTREAMS = b"/-/upstreams"
"""The page by which operators drain servers, and all below it."""

READS = frozenset({b"GET", b"HEAD"})

OK, MOVED, UNAUTHORIZED, NOT_FOUND, NOT_ALLOWED = 200, 308, 401, 404, 405
SERVER_ERROR, UNAVAILABLE = 500, 503

Page = Callable[[RequestInfo], Awaitable[Response]]
Pages = dict[bytes, Page]


@define(kw_only=True, eq=False)
class Operations:
    """Our pages, by path."""

    pages: Pages = field(repr=False)

    def owns(self, request: RequestInfo) -> bool:
        """Return whether *request* is for a page of ours, and not for the upstream."""
        path = request.path
        if path.startswith(OURS) or path == OURS[:-1]:
            return True
        return path in self.pages and request.method in READS

    async def answer(self, request: RequestInfo, keys: ApiKeys) -> Response:
        """
        Answer *request*, which is for a page of ours.

        Raises:
            Unauthorized: it needs one of *keys*.
        """
        if request.path == OURS[:-1] and OURS in self.pages:
            return _moved(b"-/")  # relative, as there may be a prefix before it
        if UPSTREAMS in self.pages and _is_below(request.path, UPSTREAMS):
            return await self.pages[UPSTREAMS](request)
        page = self.pages.get(request.path)
        if not keys.allows(request):
            return await self._ask_for_key(request, page)
        if page is None:
            return with_request_id(_no_such_page(self.pages), request.request_id())
        if request.method not in READS:
            return with_request_id(_reads_only(), request.request_id())
        return await page(request)

    async def _ask_for_key(self, request: RequestInfo, page: Page | None) -> Response:
        if page is None or request.path != OURS:
            raise Unauthorized
        form = replace(await page(request), status=UNAUTHORIZED)
        return with_request_id(form, request.request_id())


def _is_below(path: bytes, page: bytes) -> bool:
    return path == page or path.startswith(page + b"/")


def _moved(where: bytes) -> Response:
    return Response(status=MOVED, reason=b"", headers=((b"Location", where),), body=b"")


def _no_such_page(pages: Pages) -> Response:
    # Scripts and styles are not to be typed by hand, and one page is for operators.
    known = [
        path.decode()
        for path in pages
        if path != UPSTREAMS and not path.endswith((b".js", b".css"))
    ]
    error = f"there is no such page; what there is: {', '.join(known)}"
    return json_reply(NOT_FOUND, {"error": error, "error_type": "NotFound"})


def _reads_only() -> Response:
    error = "this page can only be read: use GET"
    reply = json_reply(NOT_ALLOWED, {"error": error, "error_type": "Validation"})
    return replace(reply, headers=(*reply.headers, (b"Allow", b"GET, HEAD")))


def json_reply(status: int, value: Any) -> Response:
    """Return *value* as a reply that must not be cached."""
    headers = (
        (b"Content-Type", b"application/json"),
        (b"Cache-Control", b"no-store"),
    )
    body = msgspec.json.encode(value)
    return Response(status=status, reason=b"", headers=headers, body=body)


# Figures, and the pages that show them

_SERIAL = re.compile(rb"[0-9]{1,18}")
"""What the number of a batch looks like; anything else is taken for 0."""


def own_pages(
    metrics: Callable[[bytes], Any], status: Callable[[int, str], Any]
) -> Pages:
    """
    Return all pages but those on health.

    Args:
        metrics: returns content type and body of all figures for an `Accept` line.
        status: returns what the live page shows, with the batches after a serial,
            of the model with a name if there are several.  Either may return a
            Deferred.
    """

    async def figures(request: RequestInfo) -> Response:
        [accepted, *_] = request.headers.getRawHeaders(b"Accept", [b""])
        return _safe_reply(*await maybeDeferred(metrics, accepted))

    async def everything(request: RequestInfo) -> Response:
        query = parse_qs(request.target.partition(b"?")[2], keep_blank_values=True)
        [since, *_] = query.get(b"since", [b""])
        serial = int(since) if _SERIAL.fullmatch(since) else 0
        [model, *_] = query.get(b"model", [b""])
        name = model.decode(errors="replace")
        return json_reply(OK, await maybeDeferred(status, serial, name))

    return {
        b"/metrics": figures,
        b"/-/": _file("live.html"),
        b"/-/status.json": everything,
        b"/-/docs": _file("docs.html"),
        b"/-/openapi.json": _file("openapi.json"),
        **_scripts_and_styles(),
    }


FILES = Path(__file__).with_name("pages")

KINDS = {
    "html": b"text/html; charset=utf-8",
    "json": b"application/json",
    "js": b"text/javascript; charset=utf-8",
    "css": b"text/css; charset=utf-8",
}
"""Content types by the ends of file names."""


def _scripts_and_styles() -> Pages:
    return {
        OURS + file.name.encode(): _file(file.name)
        for file in FILES.iterdir()
        if file.name.endswith((".js", ".css"))
    }


def _file(name: str) -> Page:
    kind = KINDS[name.rpartition(".")[2]]
    # Later `twistd --chroot` may hide the file; and few ever look at it.
    packed = zlib.compress((FILES / name).read_bytes())

    async def page(_request: RequestInfo) -> Response:
        return _safe_reply(kind, zlib.decompress(packed))

    return page


_POLICY = b"; ".join(
    [
        b"default-src 'none'",
        b"script-src 'self'",
        b"style-src 'self'",
        b"connect-src 'self'",
        b"img-src data:",
        b"form-action 'none'",
        b"frame-ancestors 'none'",
        b"base-uri 'none'",
    ]
)

_SAFE: HeaderList = (
    (b"Content-Security-Policy", _POLICY),
    (b"X-Content-Type-Options", b"nosniff"),
    (b"Referrer-Policy", b"no-referrer"),
    (b"Cache-Control", b"no-cache"),
)
"""Our pages load nothing from elsewhere, and no other page may frame them."""


def _safe_reply(kind: bytes, body: bytes) -> Response:
    headers = ((b"Content-Type", kind), *_SAFE)
    return Response(status=OK, reason=b"", headers=headers, body=body)


# Health

NO_SUCH_ROUTE = frozenset({401, 403, 404, 405})
"""How a server answers that has no route for its health, or hides it."""

LONGEST_REASON = 200


@define(kw_only=True, eq=False)
class HealthPages:
    """
    The pages on the health of the upstream, of this process, and on readiness.

    What the upstream answers on its health is passed on.  A server without such a
    route counts as healthy, as it does answer.
    """

    checks: Mapping[bytes, Callable[[], Awaitable[Response | ProxyError]]]
    """Asks the upstream, or returns why that failed, by path of the page."""

    is_full: Callable[[], int] = field(repr=False)
    """Return how many inputs wait if there is no room for another; else 0."""

    is_draining: Callable[[], bool] = field(repr=False)

    def by_path(self) -> Pages:
        """Return all of them."""
        return {
            **dict.fromkeys(self.checks, self._upstream),
            b"/-/healthy": self._healthy,
            b"/-/ready": self._ready,
        }

    async def _upstream(self, request: RequestInfo) -> Response:
        if self.is_draining():
            return _unhealthy("abproxy is going to stop")
        answer = await self.checks[request.path]()
        if not isinstance(answer, Response):
            return _unhealthy(str(answer))
        if answer.status in NO_SUCH_ROUTE:
            return Response(status=OK, reason=b"", headers=CORS, body=b"")
        return answer

    async def _healthy(self, _request: RequestInfo) -> Response:
        return json_reply(OK, {"healthy": True})

    async def _ready(self, _request: RequestInfo) -> Response:
        reasons = self._own_reasons()
        if not self.is_draining():
            # A load balancer has to be told of the end before the port closes, and
            # the inference server may not answer by then.
            reasons += _reasons_of(await self.checks[b"/health"]())
        status = UNAVAILABLE if reasons else OK
        return json_reply(status, {"ready": not reasons, "reasons": reasons})

    def _own_reasons(self) -> list[dict[str, str]]:
        reasons = []
        if self.is_draining():
            reasons.append(_reason("draining", "abproxy is going to stop"))
        if waiting := self.is_full():
            reasons.append(_reason("full", f"{waiting} inputs are waiting"))
        return reasons


def _reasons_of(answer: Response | ProxyError) -> list[dict[str, str]]:
    if not isinstance(answer, Response):
        return [_reason("unreachable", str(answer))]
    if answer.status < SERVER_ERROR:
        return []
    said = answer.body[:LONGEST_REASON].decode(errors="replace")
    return [_reason("unhealthy", f"the inference server says {said}")]


def _reason(word: str, message: str) -> dict[str, str]:
    return {"reason": word, "message": message}


def _unhealthy(why: str) -> Response:
    return json_reply(UNAVAILABLE, {"error": why, "error_type": "Unhealthy"})
