"""
Refusals: which calls they concern, for how long, and what other calls are told.

The words of a refusal are for the call that was refused: an upstream may quote
the request.  All others get an error of ours.
"""

import re
from math import ceil

from attrs import frozen

from abproxy.batching.batch import Failed
from abproxy.batching.part import Part
from abproxy.batching.stated import pause_stated_s, read_stated
from abproxy.dialects.call import LaneKey
from abproxy.errors import CannotConnect, ProxyError, UpstreamFull
from abproxy.events import Cause
from abproxy.http.messages import GATEWAY, Response

__all__ = [
    "RetryTimeouts",
    "in_our_words",
    "is_about_all",
    "is_about_quota",
    "is_about_room",
    "is_away",
    "is_no_answer",
    "is_size_possible",
    "pause_asked_for_s",
]

TOO_MANY_REQUESTS = 429
"""Of all clients, or of one."""

_OVERLOADED = re.compile(rb'"(?:error_)?type"\s*:\s*"Overloaded"')
"""TEI's own word for having no permit left."""


@frozen(kw_only=True)
class RetryTimeouts:
    """The seconds for which calls wait for an upstream that takes no work."""

    connect_s: float = 5.0
    """One that cannot be reached: about as long as a restart takes."""

    overload_s: float = 5.0
    """One that has no room."""

    def after(self, cause: Cause) -> float:
        """Return the one that *cause* is about."""
        return self.connect_s if is_away(cause) else self.overload_s


def is_about_quota(cause: Cause, key: LaneKey) -> bool:
    """
    Return whether one client has used up what it may ask for.

    Its caller has to get that answer.  Only a 429 to its own credentials can say so.
    """
    if not key.is_personal or isinstance(cause, ProxyError):
        return False
    return cause.status == TOO_MANY_REQUESTS and not is_about_room(cause)


def is_about_room(cause: Cause) -> bool:
    """Return whether TEI itself says that it has no permit left."""
    return isinstance(cause, Response) and _OVERLOADED.search(cause.body) is not None


def is_about_all(cause: Cause) -> bool:
    """
    Return whether no lane would fare better: no connection, or no permit left.

    Any other 429, 502, 503 or 504 may be about one model or tenant, as a gateway
    in front of several says them.
    """
    return isinstance(cause, ProxyError) or is_about_room(cause)


def is_size_possible(cause: Cause) -> bool:
    """Return whether a refusal may be about how much one request asks for."""
    return (
        isinstance(cause, Response)
        and cause.status == TOO_MANY_REQUESTS
        and not is_about_room(cause)
        and not is_about_rate(cause)
    )


def is_about_rate(response: Response) -> bool:
    """Return whether an upstream that states its limits has been asked too often."""
    return bool(read_stated(response) and pause_stated_s(response))


def is_no_answer(failed: Failed, part: Part) -> bool:
    """Return whether a request with *part* found no room, or nothing to answer it."""
    return isinstance(failed.cause, CannotConnect) or (
        failed.is_no_room and not is_about_quota(failed.cause, part.call.lane_key)
    )


def is_away(cause: Cause) -> bool:
    """Return whether the upstream is away, and not only full."""
    return isinstance(cause, ProxyError) or cause.status in GATEWAY


def in_our_words(cause: Cause) -> ProxyError:
    """
    Return the error for calls that were not refused alone.

    Never a 503: a published client repeats a POST answered with that for ever.
    """
    if isinstance(cause, ProxyError):
        return cause
    if is_away(cause):
        return CannotConnect(
            f"the inference server does not answer (its gateway says {cause.status})"
        )
    message = (
        f"the inference server takes no work now (it answered {cause.status}); "
        "try again later"
    )
    return UpstreamFull(message, max(1, ceil(pause_asked_for_s(cause))))


def pause_asked_for_s(cause: Cause) -> float:
    """Return the seconds for which nothing should be sent; 0 if that is not said."""
    return 0.0 if isinstance(cause, ProxyError) else pause_stated_s(cause)
