"""
Our own surface: health, metrics, and all below `/-/`.

Everything else belongs to the upstream.  Nothing here can be changed, only
read.  The live page carries no figures itself, so it may ask a stranger for
the key that it gets them with.
"""

import re
from collections.abc import Awaitable, Callable
from importlib import resources
from typing import Any

from attrs import define, field, frozen
from msgspec.structs import replace
from twisted.internet.defer import maybeDeferred

from abproxy.errors import Unauthorized
from abproxy.messages import HeaderList, Reply
from abproxy.web.health import Health, json_reply
from abproxy.web.keys import Keys
from abproxy.web.observing import Asked
from abproxy.web.request import DoorRequest
from abproxy.web.request_id import named

__all__ = ["Operations", "Pages", "health_pages", "own_pages"]

OURS = b"/-/"
"""Below this nothing is the upstream's."""

_SERIAL = re.compile(rb"[0-9]{1,18}")
"""What the number of a batch looks like; with anything else all are shown."""

READS = frozenset({b"GET", b"HEAD"})

PAGES = resources.files("abproxy.web") / "pages"
PARTS = {b".js": b"text/javascript; charset=utf-8", b".css": b"text/css; charset=utf-8"}
"""What our pages are made of, by the ends of file names."""

OK, MOVED, UNAUTHORIZED, NOT_FOUND, NOT_ALLOWED = 200, 308, 401, 404, 405

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
"""Our pages load nothing from elsewhere, and nobody frames them."""


@frozen
class Page:
    """A file of ours, as it is sent."""

    kind: bytes
    body: bytes = field(repr=False)

    @classmethod
    def of(cls, name: str, kind: bytes) -> "Page":
        """Read the file *name* that comes along."""
        return cls(kind, (PAGES / name).read_bytes())

    def reply(self) -> Reply:
        """Send it."""
        headers = ((b"Content-Type", self.kind), *_SAFE)
        return Reply(status=OK, reason=b"", headers=headers, body=self.body)


Answer = Callable[[DoorRequest], Awaitable[Reply]]
Pages = dict[bytes, Answer]


@define(kw_only=True, eq=False)
class Operations:
    """What is ours, by path."""

    pages: Pages = field(repr=False)

    def owns(self, request: Asked) -> bool:
        """Whether *request* is for us."""
        path = request.path
        if path.startswith(OURS) or path == OURS[:-1]:
            return True
        return path in self.pages and request.method in READS

    async def answer(self, request: DoorRequest, keys: Keys) -> Reply:
        """
        Answer *request*, which is for us.

        Raises:
            Unauthorized: it needs one of *keys*.
        """
        if request.path == OURS[:-1] and OURS in self.pages:
            return _moved(OURS)
        page = self.pages.get(request.path)
        if not keys.fit(request):
            return await self._ask_for_key(request, page)
        if page is None:
            return named(_no_such_page(self.pages), request.name())
        if request.method not in READS:
            return named(_reads_only(), request.name())
        return await page(request)

    async def _ask_for_key(self, request: DoorRequest, page: Answer | None) -> Reply:
        if page is None or request.path != OURS:
            raise Unauthorized
        form = replace(await page(request), status=UNAUTHORIZED)
        return named(form, request.name())


def health_pages(health: Health) -> Pages:
    """Answer those who watch over us."""

    async def upstream(request: DoorRequest) -> Reply:
        return await health.upstream(request.path)

    async def healthy(_request: DoorRequest) -> Reply:
        return health.healthy()

    async def ready(_request: DoorRequest) -> Reply:
        return await health.ready()

    return {
        b"/health": upstream,
        b"/ping": upstream,
        b"/-/healthy": healthy,
        b"/-/ready": ready,
    }


def own_pages(metrics: Callable[[bytes], Any], status: Callable[[int], Any]) -> Pages:
    """
    Show what there is to see; both may take their time.

    Args:
        metrics: writes all figures for an `Accept` line: content type and body.
        status: says everything, of batches those after a serial.
    """

    async def figures(request: DoorRequest) -> Reply:
        [accepted, *_] = request.requestHeaders.getRawHeaders(b"Accept", [b""])
        kind, body = await maybeDeferred(metrics, accepted)
        return Page(kind, body).reply()

    async def everything(request: DoorRequest) -> Reply:
        [since, *_] = request.args.get(b"since", [b""])
        serial = int(since) if _SERIAL.fullmatch(since) else 0
        return json_reply(OK, await maybeDeferred(status, serial))

    return {
        b"/metrics": figures,
        b"/-/": _always(Page.of("live.html", b"text/html; charset=utf-8")),
        b"/-/status.json": everything,
        b"/-/docs": _always(Page.of("docs.html", b"text/html; charset=utf-8")),
        b"/-/openapi.json": _always(Page.of("openapi.json", b"application/json")),
        **_parts(),
    }


def _parts() -> Pages:
    """Serve the scripts and styles of our pages, whichever there are."""
    return {
        OURS + file.name.encode(): _always(Page.of(file.name, kind))
        for file in PAGES.iterdir()
        for ending, kind in PARTS.items()
        if file.name.encode().endswith(ending)
    }


def _always(page: Page) -> Answer:
    reply = page.reply()

    async def answer(_request: DoorRequest) -> Reply:
        return reply

    return answer


def _moved(where: bytes) -> Reply:
    return Reply(status=MOVED, reason=b"", headers=((b"Location", where),), body=b"")


def _no_such_page(pages: Pages) -> Reply:
    # What they are made of is for nobody to type.
    known = [path.decode() for path in pages if not path.endswith(tuple(PARTS))]
    error = f"there is no such page; what there is: {', '.join(known)}"
    return json_reply(NOT_FOUND, {"error": error, "error_type": "NotFound"})


def _reads_only() -> Reply:
    error = "this page can only be read: use GET"
    reply = json_reply(NOT_ALLOWED, {"error": error, "error_type": "Validation"})
    return replace(reply, headers=(*reply.headers, (b"Allow", b"GET, HEAD")))
