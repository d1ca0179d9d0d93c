"""
Who may come in: the door's own keys, checked as TEI checks its one.

Health, metrics and documentation are public, everything else wants a key.  A
path that nobody knows wants one too, where TEI says 404: what is behind the
door is not for a stranger to find out.

Whoever is let in without a key is a stranger to the upstream as well, and has
nothing to send: a preflight, a probe and a page have no body.  So a body wants a
key, and the answer is 401 as soon as the head is here: to throw it away would
mean to read whatever strangers send, and 413 would say that less is welcome.
"""

import hmac
import re

from attrs import field, frozen

from abproxy.errors import Unauthorized
from abproxy.web.observing import RequestInfo

__all__ = ["ApiKeys"]

_READS = frozenset({b"GET", b"HEAD"})
_PUBLIC = frozenset(
    {
        *(b"/", b"/health", b"/ping", b"/metrics", b"/docs", b"/api-doc/openapi.json"),
        *(b"/-/healthy", b"/-/ready", b"/-/docs", b"/-/openapi.json"),
    }
)

_DOCUMENT = re.compile(rb"/docs/(?:[\w-][\w.-]*)?")
"""A file of the documentation; `/docs/../info` may be another to a server."""


def _is_public(request: RequestInfo) -> bool:
    if request.method == b"OPTIONS":
        return True
    if request.method not in _READS:
        return False
    path = request.path
    is_document = _DOCUMENT.fullmatch(path) is not None
    return path in _PUBLIC or is_document or _is_of_a_page(path)


def _is_of_a_page(path: bytes) -> bool:
    # Scripts and styles hold no figures, and the page that asks for the key
    # is made of them.
    return path.startswith(b"/-/") and path.endswith((b".js", b".css"))


def _has_body(request: RequestInfo) -> bool:
    headers = request.requestHeaders
    lengths = headers.getRawHeaders(b"Content-Length", [])
    return headers.hasHeader(b"Transfer-Encoding") or lengths not in ([], [b"0"])


@frozen(kw_only=True)
class ApiKeys:
    """The keys that open the door; none at all leaves it open."""

    accepted: tuple[str, ...] = field(repr=False)

    def check(self, request: RequestInfo) -> None:
        """
        Let *request* go on to the upstream or not.

        Raises:
            Unauthorized: it needs a key and has not the right one.
        """
        if self.know(request):
            return
        if not _is_public(request) or _has_body(request):
            raise Unauthorized

    def fit(self, request: RequestInfo) -> bool:
        """
        Whether *request* may see a page of ours.

        A body is no matter there: it is not looked at.
        """
        return _is_public(request) or self.know(request)

    def know(self, request: RequestInfo) -> bool:
        """
        Whether *request* shows one of the keys, or none is asked for.

        Every key is compared, each in constant time, so that the time it
        takes tells nothing of the keys.
        """
        if not self.accepted:
            return True
        shown = request.requestHeaders.getRawHeaders(b"Authorization", [b""])[0]
        fits = [
            hmac.compare_digest(shown, b"Bearer " + key.encode())
            for key in self.accepted
        ]
        return any(fits)
