"""
Who calls, in what hurry, and for how long they wait.

A client is its key, or its address where it shows none.
"""

import re

from attrs import field, frozen

from abproxy.web.observing import RequestInfo

__all__ = ["Caller", "Clients"]

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
