"""
Authentication of clients, and what tells one from another.

The proxy's own keys are checked as TEI checks its one.  Health, metrics and
documentation are public, everything else needs a key.  An unknown path needs
one too, where TEI answers 404: without a key no client is to find out which paths
the upstream has.

Without a key a request is passed on without credentials, and without a body: a
preflight, a probe and a page have none.  So a body needs a key, and the answer is
401 as soon as the head is here: to discard the body would mean to read whatever is
sent without a key, and 413 would say that less of it is accepted.

A client is its key where keys are asked for, and else its address: what it shows
besides is checked by no one here, and could be another with each call.  Trusted
proxies tell the addresses of those that they stand before.
"""

import hmac
import re
from collections.abc import Hashable

from attrs import field, frozen
from twisted.web.http_headers import Headers

from abproxy.errors import DeadlinePassed, Unauthorized
from abproxy.events import RequestInfo
from abproxy.http.forwarded import NO_PROXIES, TrustedProxies, counted_as
from abproxy.http.sharing import read_timeout_s

__all__ = ["ApiKeys", "Caller", "Clients"]

_BEARER = b"Bearer "
_READS = frozenset({b"GET", b"HEAD"})
_PUBLIC = frozenset(
    {
        *(b"/", b"/health", b"/ping", b"/metrics", b"/docs", b"/api-doc/openapi.json"),
        *(b"/-/healthy", b"/-/ready", b"/-/docs", b"/-/openapi.json"),
    }
)

_OF_A_PREFLIGHT = (b"Origin", b"Access-Control-Request-Method")
"""What browsers send with the only kind of `OPTIONS` that needs no key."""

_DOCUMENT = re.compile(rb"/docs/(?:[\w-][\w.-]*)?")
"""A file of the documentation; `/docs/../info` may be another to a server."""


def _is_public(request: RequestInfo) -> bool:
    if request.method == b"OPTIONS":
        return all(map(request.headers.hasHeader, _OF_A_PREFLIGHT))
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
    headers = request.headers
    lengths = headers.getRawHeaders(b"Content-Length", [])
    return headers.hasHeader(b"Transfer-Encoding") or lengths not in ([], [b"0"])


@frozen(kw_only=True)
class ApiKeys:
    """The keys that clients must show; without any, no key is asked for."""

    accepted: tuple[str, ...] = field(repr=False)

    def require(self, request: RequestInfo) -> None:
        """
        Raise if *request* may not be sent on to the upstream.

        Raises:
            Unauthorized: it needs a key and has not the right one.
        """
        if self.recognize(request):
            return
        if not _is_public(request) or _has_body(request):
            raise Unauthorized

    def allows(self, request: RequestInfo) -> bool:
        """
        Return whether *request* may see a page of ours.

        It may have a body, which is not looked at.
        """
        return _is_public(request) or self.recognize(request)

    def recognize(self, request: RequestInfo) -> bool:
        """
        Return whether *request* shows one of the keys, or none is asked for.

        Every key is compared, each in constant time, so that nothing can be
        learned of the keys from the time it takes.
        """
        if not self.accepted:
            return True
        shown = request.headers.getRawHeaders(b"Authorization", [b""])[0]
        fits = [
            hmac.compare_digest(shown, _BEARER + key.encode()) for key in self.accepted
        ]
        return any(fits)


# Clients


@frozen(kw_only=True)
class Caller:
    """The client that sent a request, its priority, and how long it waits."""

    client: bytes = field(repr=False)
    """What tells clients apart."""

    sender: Hashable = field(repr=False)
    """Whose calls are sent alone if many fail: a key at an address, a connection."""

    is_bulk: bool
    """Whether it may wait behind calls that are more urgent."""

    deadline_s: float | None
    """How long after its head the answer may come, if there is a limit."""

    has_own_deadline: bool
    """Whether the client says so, and not the operator."""

    def too_late(self) -> DeadlinePassed:
        """Return the error for a request that has missed the deadline."""
        within = f"{(self.deadline_s or 0.0) * 1000:g} ms"
        if self.has_own_deadline:
            return DeadlinePassed(f"your deadline of {within} has passed")
        return DeadlinePassed(f"there was no answer within {within} (CALL_DEADLINE)")


@frozen(kw_only=True)
class Clients:
    """Identifies clients, by key or address."""

    keys: ApiKeys
    bulk_keys: frozenset[str] = field(default=frozenset(), repr=False)
    """Keys whose calls may all wait behind more urgent ones."""

    proxies: TrustedProxies = NO_PROXIES

    deadline_s: float | None = None
    """How long after its head any answer may come."""

    def address_of(self, peer: str, headers: Headers) -> str:
        """Return the address of the client that sent *headers* by way of *peer*."""
        if self.proxies.is_any and self.proxies.trusts(peer):
            return self.proxies.client_of(peer, headers)
        return peer

    def identify(self, request: RequestInfo) -> Caller:
        """Return who sent *request*."""
        headers, host = request.headers, request.client_host
        shown = headers.getRawHeaders(b"Authorization", [b""])[0]
        priority = headers.getRawHeaders(b"X-Priority", [b""])[0]
        is_key = bool(self.keys.accepted) and self.keys.recognize(request)
        is_bulk_key = is_key and shown[len(_BEARER) :].decode() in self.bulk_keys
        own_s, limit_s = _deadline_s(request), self.deadline_s
        deadlines = [each for each in (own_s, limit_s) if each is not None]
        deadline_s = min(deadlines, default=None)
        return Caller(
            client=shown if is_key else counted_as(host).encode(),
            sender=(shown, host) if shown else request.connection,
            is_bulk=priority.lower() == b"bulk" or is_bulk_key,
            deadline_s=deadline_s,
            has_own_deadline=own_s is not None and own_s == deadline_s,
        )


def _deadline_s(request: RequestInfo) -> float | None:
    deadlines = [
        seconds
        for name, values in request.headers.getAllRawHeaders()
        for value in values
        if (seconds := read_timeout_s(name.lower().decode("latin-1"), value))
    ]
    return min(deadlines, default=None)
