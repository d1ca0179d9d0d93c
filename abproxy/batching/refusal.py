"""
What it means for those who wait that the upstream takes no work.

A server that is full, or away, is so for everybody, and trying again is ours
to do.  A client whose own quota is used up must hear of it, and nobody else.

The words of a refusal are for the call that was refused: an upstream may quote
the request.  All others who gave up waiting get an error of ours.
"""

import re
from email.utils import parsedate_to_datetime
from math import ceil

from attrs import frozen

from abproxy.dialects.call import LaneKey
from abproxy.errors import ProxyError, UpstreamFull
from abproxy.http.messages import Response

__all__ = ["RetryTimeouts", "in_our_words", "is_for_all", "pause_asked_for_s"]

_OVERLOADED = re.compile(rb'"(?:error_)?type"\s*:\s*"Overloaded"')
"""TEI's own word for having no permit left."""

TOO_MANY = 429
"""Requests, of everybody or of one client."""


@frozen(kw_only=True)
class RetryTimeouts:
    """How long calls wait for an upstream that takes no work, in seconds."""

    connect_s: float = 5.0
    """One that cannot be reached: about as long as a restart takes."""

    overload_s: float = 5.0
    """One that has no room."""

    def with_(self, cause: Response | ProxyError) -> float:
        """Choose by what went wrong."""
        return self.overload_s if isinstance(cause, Response) else self.connect_s


def is_for_all(cause: Response | ProxyError, lane: LaneKey) -> bool:
    """
    Whether the upstream takes no work at all, or one client has no quota.

    Only a 429 can be about a quota; a server that says 503 is not there for
    anybody.
    """
    if isinstance(cause, ProxyError) or not lane.is_personal:
        return True
    return cause.status != TOO_MANY or _OVERLOADED.search(cause.body) is not None


def in_our_words(cause: Response | ProxyError) -> ProxyError:
    """
    Make of a refusal what may be told to calls that were not refused alone.

    Never a 503: a published client repeats a POST answered with that for ever.
    """
    if isinstance(cause, ProxyError):
        return cause
    message = (
        f"the inference server takes no work now (it answered {cause.status}); "
        "try again later"
    )
    return UpstreamFull(message, max(1, ceil(pause_asked_for_s(cause))))


def pause_asked_for_s(cause: Response | ProxyError) -> float:
    """Read `Retry-After` in seconds, said as a number or a date; 0 if there is none."""
    if isinstance(cause, ProxyError):
        return 0.0
    said = _header(cause, b"retry-after")
    if said.isdigit():
        return float(said)
    try:
        until = parsedate_to_datetime(said.decode("latin-1"))
        now = parsedate_to_datetime(_header(cause, b"date").decode("latin-1"))
        return max((until - now).total_seconds(), 0.0)
    except (TypeError, ValueError):
        return 0.0


def _header(reply: Response, wanted: bytes) -> bytes:
    found = (value for name, value in reply.headers if name.lower() == wanted)
    return next(found, b"")
