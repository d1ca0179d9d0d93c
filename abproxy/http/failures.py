"""
Foreign words in ours and ours in foreign ones, on the way upstream.

Both ways, batch and relay, translate header lines and errors here and nowhere
else.
"""

from typing import Any, NoReturn

from twisted.internet.defer import CancelledError
from twisted.internet.error import (
    ConnectError,
    ConnectingCancelledError,
    DNSLookupError,
)
from twisted.python.failure import Failure
from twisted.web.http_headers import Headers

from abproxy.errors import CannotConnect, ConnectionBroken, ProxyError, UpstreamTimeout
from abproxy.http.messages import HeaderList

__all__ = ["as_headers", "as_proxy_failure", "timed_out", "to_proxy_error"]


def as_headers(lines: HeaderList) -> Headers:
    """Make Twisted's headers of *lines*."""
    headers = Headers()
    for name, value in lines:
        headers.addRawHeader(name, value)
    return headers


def timed_out(_result: object, timeout_s: float) -> NoReturn:
    """Say what a deadline means that `Deferred.addTimeout` has kept."""
    raise UpstreamTimeout(
        f"the inference server did not answer within {timeout_s:g} seconds"
    )


def to_proxy_error(error: Exception) -> Exception:
    """
    Say what *error* means to a caller.

    Twisted wraps errors in errors.  A request that was cancelled is one of
    them, and is no fault of the inference server's.
    """
    reason = _bottom_of(error)
    if isinstance(reason, (CancelledError, ConnectingCancelledError)):
        return CancelledError()
    said = str(reason) or repr(reason)
    if isinstance(reason, (ConnectError, DNSLookupError)):
        return CannotConnect(f"cannot reach the inference server: {said}")
    return ConnectionBroken(f"the connection to the inference server broke: {said}")


def as_proxy_failure(failure: Failure) -> Failure:
    """Return *failure* as callers know it: an error of ours, or a cancellation."""
    if failure.check(CancelledError, ProxyError):
        return failure
    error: Any = failure.value
    told = to_proxy_error(error)
    told.__cause__ = error
    return Failure(told)


def _bottom_of(error: Exception) -> Exception:
    reasons = getattr(error, "reasons", None)
    return _bottom_of(reasons[0].value) if reasons else error
