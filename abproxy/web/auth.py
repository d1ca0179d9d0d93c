"""
Who sends a request: whether it may, and what that client is to us.

The proxy's own keys are checked as TEI checks its one.  Health, metrics and
documentation are public, everything else needs a key.  An unknown path needs
one too, where TEI answers 404: a stranger is not to find out which paths the
upstream has.

Without a key a request is passed on without credentials, and without a body: a
preflight, a probe and a page have none.  So a body needs a key, and the answer is
401 as soon as the head is here: to throw the body away would mean to read
whatever strangers send, and 413 would say that less is welcome.

A client is its key, or its address where it shows none.
"""

import hmac
import re

from attrs import field, frozen

from abproxy.errors import Unauthorized
from abproxy.web.observing import RequestInfo

__all__ = ["ApiKeys", "Caller", "Clients"]

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


# Clients

_MILLISECONDS = re.compile(rb"[0-9]{1,9}(?:\.[0-9]{1,9})?")
_DEADLINES = (b"Request-Timeout-Ms", b"X-Envoy-Expected-Rq-Timeout-Ms")


@frozen(kw_only=True)
class Caller:
    """One client, as far as it matters for a call."""

    client: bytes = field(repr=False)
    """What tells clients apart."""

    is_bulk: bool
    """Whether it is in no hurry."""

    deadline_s: float | None
    """How long it waits for the answer, if it says so."""


@frozen(kw_only=True)
class Clients:
    """How callers are told apart."""

    bulk_keys: frozenset[str] = field(default=frozenset(), repr=False)
    """Keys whose calls are never in a hurry."""

    def who(self, request: RequestInfo) -> Caller:
        """Look at who sent *request*."""
        headers = request.requestHeaders
        shown = headers.getRawHeaders(b"Authorization", [b""])[0]
        priority = headers.getRawHeaders(b"X-Priority", [b""])[0]
        key = shown.removeprefix(b"Bearer ").decode("latin-1")
        return Caller(
            client=shown or _address(request),
            is_bulk=priority.lower() == b"bulk" or key in self.bulk_keys,
            deadline_s=_deadline_s(request),
        )


def _address(request: RequestInfo) -> bytes:
    return str(getattr(request.getClientAddress(), "host", "")).encode()


def _deadline_s(request: RequestInfo) -> float | None:
    said = [
        float(value) / 1000
        for name in _DEADLINES
        for value in request.requestHeaders.getRawHeaders(name, [])
        if _MILLISECONDS.fullmatch(value)
    ]
    return min((seconds for seconds in said if seconds > 0), default=None)
